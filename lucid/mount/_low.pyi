"""What llfuse lacks, put between it and libfuse.  Import it through `lucid.mount.fuse` only."""

from lucid.engine.hits import HitTable

class NoLock:
    """A context manager that does nothing, quickly."""

    def __enter__(self) -> NoLock: ...
    def __exit__(self, kind: object, error: object, trace: object) -> bool: ...

def serve_hits(hits: HitTable | None) -> None:
    """Serve reads from this table; None ends that.  REQUIRES: no worker runs."""

def wait_short() -> bool:
    """Waits until all workers but one are busy; False after `end_short(True)`."""

def end_short(over: bool) -> None:
    """Ends `wait_short`, or with False makes it wait again, for the next session."""

def work() -> None:
    """Handle requests as one of llfuse's workers does, until the session ends, or nobody needed
    this worker for half a minute."""

def end_session() -> None:
    """No worker waits for a turn any more; `work` ends.  REQUIRES: llfuse's own workers have ended,
    or will by themselves."""

def interrupt_extras() -> None:
    """Makes workers that wait in the kernel look whether the session has ended.  One that was about
    to begin to wait is missed: repeat it until they are gone."""

def is_page_write() -> bool:
    """Whether the write that this thread handles comes from the kernel's pages (a mapping)."""

def stats() -> dict[str, int]:
    """sessions: how many llfuse began through this module; leading: workers that wait in the
    kernel; waiting: those that sleep; refused: xattrs answered here."""
