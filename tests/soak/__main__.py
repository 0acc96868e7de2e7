"""`./build.sh soak`: kills a drive's daemon again and again, cuts the power, says what was lost.

Exits with 1 when something was lost, or too few kills were made in the time; what a failed round
left is kept then.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import randbelow

from tests.seaweed import running_server
from tests.soak.cuts import cut_power_again_and_again
from tests.soak.kills import Plan, soak
from tests.soak.ledger import Mismatch
from tests.soak.rig import REPOSITORY

KEPT = REPOSITORY / "build" / "soak"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./build.sh soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--power-cuts", type=int, default=50, help="after the kills")
    parser.add_argument("--minutes", type=float, default=60.0, help="end after so long")
    parser.add_argument("--seed", type=int, help="makes the same steps and chances again")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seaweed", action="store_true", help="on an S3 server, not a directory")
    return parser.parse_args()


def directory_store(place: Path) -> str:
    (place / "store").mkdir()
    return f"file://{place}/store"


@contextmanager
def stores(seaweed: bool, root: Path) -> Iterator[Callable[[Path], str]]:
    """What makes the URL of an empty store."""
    if not seaweed:
        yield directory_store
        return
    (root / "seaweed").mkdir()
    with contextmanager(running_server)(root / "seaweed") as server:
        os.environ.update(server.environment())
        yield lambda place: f"s3://{server.make_bucket()}/soak"


def tell(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    chosen = arguments()
    seed = randbelow(1_000_000) if chosen.seed is None else chosen.seed
    root = Path(tempfile.mkdtemp(prefix="lucid-soak-"))
    (root / "run").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(root / "run")
    tell(f"seed {seed}")
    plan = Plan(chosen.kills, seed, chosen.workers, chosen.minutes)
    try:
        with stores(chosen.seaweed, root) as new_store:
            done = soak(plan, root, new_store, tell)
        if chosen.power_cuts and done.kills >= chosen.kills:
            steps = cut_power_again_and_again(chosen.power_cuts, seed, root)
            tell(f"{chosen.power_cuts} power cuts survived, {steps} steps acknowledged")
    except Mismatch as error:
        shutil.rmtree(KEPT, ignore_errors=True)
        shutil.copytree(root, KEPT, ignore=shutil.ignore_patterns("drive", "run", "control"))
        tell(f"FAILED in {error}\nWhat is left lies in {KEPT}")
        return 1
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if done.kills < chosen.kills:
        tell(f"Only {done.kills} of {chosen.kills} kills were made in {chosen.minutes:g} minutes.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
