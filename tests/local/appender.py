"""A process of its own that appends to a journal until it is killed, and says how far it is.

Its arguments: the journal's directory, and the number of the first record.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lucid.local.disk import RealDisk
from tests.local.journals import open_journal, patch


def main() -> None:
    root, number = Path(sys.argv[1]), int(sys.argv[2])
    journal = open_journal(RealDisk(), root, fresh=os.urandom)
    while True:
        journal.append_many([patch(number, 300), patch(number + 1, 3000)])
        number += 2
        if number % 64 == 0:
            journal.sync()
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
