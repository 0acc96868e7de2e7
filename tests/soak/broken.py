"""`lucid`, with one step left out that makes something durable: what a soak has to catch.

    python -m tests.soak.broken ops|images mount ...

In the place of the records that are left out the journal gets others that say nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lucid.cli.main import main as lucid
from lucid.format.journal import ImageRecord, Limit, OpRecord, Record
from lucid.local.frames import Position
from lucid.local.journal import Journal

LEFT_OUT = {"ops": OpRecord, "images": ImageRecord}


def leave_out(kind: type[Record]) -> None:
    real = Journal.append_many

    def append_many(
        self: Journal, records: Sequence[Record], *, removal: bool = False
    ) -> list[Position]:
        kept = [Limit(0) if isinstance(record, kind) else record for record in records]
        return real(self, kept, removal=removal)

    Journal.append_many = append_many  # type: ignore[method-assign]


if __name__ == "__main__":
    leave_out(LEFT_OUT[sys.argv[1]])
    sys.exit(lucid(sys.argv[2:]))
