"""What llfuse lacks, put between it and libfuse.  Import it through `lucid.mount.fuse` only."""

from lucid.engine.hits import HitTable
from lucid.engine.known import KnownTable

class NoLock:
    """A context manager that does nothing, quickly."""

    def __enter__(self) -> NoLock: ...
    def __exit__(self, kind: object, error: object, trace: object) -> bool: ...

def serve_hits(hits: HitTable | None) -> None:
    """Serve reads from this table; None ends that.  REQUIRES: no worker runs."""

def serve_known(
    names: KnownTable | None, *, owner: tuple[int, int] | None, block_size: int, valid_ns: int
) -> None:
    """Answer lookup and getattr from this table, where it can; None ends that.

    owner: (uid, gid) shown for every inode; None shows the stored ones. valid_ns: how long the
    kernel may believe it. REQUIRES: no worker runs.
    """

def work() -> None:
    """Handle requests as one of llfuse's workers does, until the session ends, or nobody needed
    this worker for half a minute."""

def drop_pages() -> None:
    """The kernel is to forget what pages it has of the file whose open this thread handles."""

def is_page_write() -> bool:
    """Whether the write that this thread handles comes from the kernel's pages (a mapping)."""

def answer(fd: int, unique: int, error: int, data: bytes = b"") -> None:
    """Answer a request that was taken from libfuse. Never blocks; the kernel refuses only what was
    unmounted meanwhile."""

def stats() -> dict[str, int]:
    """sessions: how many llfuse began through this module; refused: xattrs answered here; locks and
    flocks: whether the kernel asks this session about locks of fcntl, of flock."""
