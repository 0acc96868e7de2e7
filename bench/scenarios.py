"""The scenarios by name, and one run of one of them: store, distance, peer and all."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import large_files, ours, programs, trees
from bench.bed import CHUNK, MB, Bed, Sizes
from bench.delay import delay_line
from bench.peer import Peer, Place, drop_page_cache, variables
from tests.seaweed import S3Server, running_server

__all__ = ["OURS", "SCENARIOS", "Distance", "S3Server", "raw_reads", "run", "server"]

SCENARIOS: dict[str, Callable[[Bed], None]] = {
    "sequential": large_files.sequential,
    "interleaved": large_files.interleaved,
    "editor": large_files.editor,
    "random": large_files.random_reads,
    "small": trees.small_files,
    "copy": trees.copy_tree,
    "untar": trees.untar,
    "git": trees.git,
    "names": trees.names,
    "sqlite": programs.sqlite,
    "fio": programs.fio,
    "mount": ours.mount,
    "computing": ours.computing,
}
"""A scenario raises ProgramMissing where a program that it needs is missing."""

OURS = {"mount", "computing"}
"""Only this drive can do these: nobody else's filespace can be made by hand, and no other daemon
has an interpreter."""

RANGE = 8 << 20
AT_ONCE = 4

Distance = tuple[float, float]
"""Round trip in ms, and MB/s of a connection each way; 0 for none and no limit."""


@contextmanager
def server(folder: Path) -> Iterator[S3Server]:
    """A SeaweedFS server on this machine."""
    with closing(running_server(folder)) as servers:  # type: ignore[type-var]
        yield next(servers)


@contextmanager
def own_bucket(store: S3Server) -> Iterator[str]:
    """A bucket that is gone afterwards with all that is in it: the server has room for some at a
    time, and so has the disk."""
    name, ending = store.make_bucket(), False
    try:
        yield name
    except (KeyboardInterrupt, SystemExit):
        # The server ends with us, or has ended already: a signal of the terminal is for all.
        ending = True
        raise
    finally:
        if not ending:
            with closing(store.client()) as client:
                client.delete_bucket(Bucket=name)


def run(
    store: S3Server,
    distance: Distance,
    kind: type[Peer],
    scenario: str,
    sizes: Sizes,
    top: Path,
    watch: Callable[[Peer], None] | None = None,
) -> Bed:
    """One run in a directory and a bucket of its own. `watch` is shown the peer once it is mounted.

    Raises what the scenario raises.
    """
    port = urlsplit(store.endpoint).port
    assert port is not None
    with (
        tempfile.TemporaryDirectory(prefix="lucid-bench-", dir=top) as folder,
        delay_line(port, Path(folder), *distance) as line,
        own_bucket(store) as bucket,
    ):
        place = Place(Path(folder), line.endpoint, bucket, store.access_key, store.secret_key)
        peer = kind(place)
        bed = Bed(peer, sizes, os.urandom(CHUNK), line.passed)
        with peer.mounted():
            if watch is not None:
                watch(peer)
            SCENARIOS[scenario](bed)
        bed.figures["all of it"] = {"cpu s": peer.cpu_s(), "peak MiB": peer.peak_mib()}
    return bed


def raw_reads(
    store: S3Server, distance: Distance, sizes: Sizes, top: Path
) -> dict[str, dict[str, float]]:
    """Ranged GETs of the bytes of the sequential scenario, a few at a time, as figures of a phase:
    the limit of the store and of the way there."""
    from lucid.store import open_store

    port = urlsplit(store.endpoint).port
    assert port is not None
    with (
        variables(store.environment()),
        tempfile.TemporaryDirectory(dir=top) as folder,
        delay_line(port, Path(folder), *distance) as line,
        own_bucket(store) as bucket,
        closing(open_store(f"s3://{bucket}/raw?endpoint={line.endpoint}")) as opened,
    ):
        keys = [f"{number}" for number in range(max(1, sizes.large // RANGE))]
        piece = os.urandom(min(RANGE, sizes.large))
        for key in keys:
            opened.put_if_absent(key, key.encode() + piece[len(key) :])
        if sizes.drop:
            # As everybody else who reads cold: the server too has to fetch them from its disk.
            drop_page_cache()
        began = time.perf_counter()
        opened.get(keys[0], 0, 4096)
        first = time.perf_counter() - began
        began = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            size = sum(threads.map(lambda key: len(opened.get(key)), keys))
        seconds = time.perf_counter() - began
    figures = {"s": seconds, "MB/s": size / seconds / MB, "first byte ms": first * 1000}
    return {"read cold": figures}
