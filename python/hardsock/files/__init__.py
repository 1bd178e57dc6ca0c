"""What makefile() and sendfile() return and use."""
