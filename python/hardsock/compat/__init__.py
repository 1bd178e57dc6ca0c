"""Modules that can stand for those of the standard library."""
