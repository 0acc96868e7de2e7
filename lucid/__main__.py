"""`python -m lucid` is the `lucid` command."""

from __future__ import annotations

import sys

from lucid.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
