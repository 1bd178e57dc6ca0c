"""Who owns what is open, where it was opened, and what was left behind."""
