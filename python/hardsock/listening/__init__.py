"""Listening: whom to let in, and how many."""
