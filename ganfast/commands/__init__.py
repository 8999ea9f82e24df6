"""Commands of the command line, one file each: a dataclass of options with a ``run``. The others are in ``cli.py``."""
