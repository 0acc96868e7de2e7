"""Which of the mount's workers wait in the kernel.  Import it through `lucid.mount.fuse` only."""

def wait_short() -> bool:
    """Waits until all workers but one are busy; False after `end_short(True)`.  Meanwhile lets
    another worker lead when the one that did stays in Python."""

def end_short(over: bool) -> None:
    """Ends `wait_short`, or with False makes it wait again, for the next session."""

def end_session() -> None:
    """No worker waits for a turn any more; `work` ends.  REQUIRES: llfuse's own workers have ended,
    or will by themselves."""

def interrupt_extras() -> None:
    """Makes workers that wait in the kernel look whether the session has ended.  One that was about
    to begin to wait is missed: repeat it until they are gone."""

def stats() -> dict[str, int]:
    """leading: workers that wait in the kernel; waiting: those that sleep."""
