"""``python -m ganfast``, and ``torchrun -m ganfast``: the command line."""

import sys

from ganfast.cli import main

sys.exit(main())
