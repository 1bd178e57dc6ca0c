"""``hardsock top``, ``ps`` and ``attach``: looking at running processes from a terminal.

``processes.py`` finds them and asks; ``kernel.py`` is what can be known without asking;
``tables.py`` makes lines of what was told; ``screen.py`` shows them.
"""
