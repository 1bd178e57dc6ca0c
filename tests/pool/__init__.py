"""The same storms and known bugs on hardsock's pool and on others: see compare.py."""
