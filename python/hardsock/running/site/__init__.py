"""The folder that ``hardsock run`` puts into PYTHONPATH, for the program and what it starts."""
