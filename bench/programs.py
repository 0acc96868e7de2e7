"""Scenarios with programs that write here and there: a database, and fio's mix."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from bench import ProgramMissing
from bench.bed import MB, Bed
from bench.peer import program
from bench.trees import call

__all__ = ["fio", "sqlite"]

MIX = ["--rw=randrw", "--rwmixread=70", "--bs=64k", "--numjobs=4", "--ioengine=psync"]


def sqlite(bed: Bed) -> None:
    """Transactions of one row each, as sqlite3 makes them by default: with fsync."""
    path = bed.top / "rows.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, body BLOB)")
        with bed.phase("transactions", "fsync") as phase:
            phase.count = bed.sizes.transactions
            for number in range(bed.sizes.transactions):
                with phase.one():
                    base.execute("INSERT INTO rows VALUES (?, ?)", (number, bed.seed[:400]))
    bed.cold()
    with bed.phase("read all, cold") as phase, closing(sqlite3.connect(path)) as base:
        phase.count = base.execute("SELECT count(*) FROM rows").fetchone()[0]
    if phase.count != bed.sizes.transactions:
        raise RuntimeError(f"{bed.peer.name} has {phase.count} rows of {bed.sizes.transactions}")


def fio(bed: Bed) -> None:
    """Four threads read and write 64 KiB at random, seven reads to three writes."""
    tool = program("fio")
    if tool is None:
        raise ProgramMissing("fio is not installed: apt-get install fio")
    size = max(1 << 20, bed.sizes.large // 8)
    with bed.phase("mix", "close"):
        shown = call(
            tool, "--name=mix", f"--directory={bed.top}", f"--size={size}", "--thread", *MIX,
            f"--runtime={bed.sizes.fio_s}", "--time_based", "--group_reporting",
            "--output-format=json",
        )  # fmt: skip
        job = json.loads(shown)["jobs"][0]
    figures = bed.figures["mix"]
    # Its own clock: ours holds the making of its files too.
    figures["MB/s"] = sum(job[way]["bw_bytes"] for way in ("read", "write")) / MB
    figures["per s"] = sum(job[way]["iops"] for way in ("read", "write"))
    for way in ("read", "write"):
        spread = job[way]["clat_ns"]["percentile"]
        for percent in (50, 99):
            figures[f"{way} p{percent} ms"] = spread[f"{percent}.000000"] / 1e6
