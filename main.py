"""Starts the server: ``python main.py``. Everything else is behind ``python main.py --help``."""

from __future__ import annotations

import sys

from fooocusapi.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
