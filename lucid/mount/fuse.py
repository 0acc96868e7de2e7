"""The door to llfuse: loads the low extension before it, in the one order that works.

Everything in `lucid.mount` takes llfuse from here. The low extension exports functions of libfuse;
llfuse uses them when they are in the global scope of the dynamic linker before it is loaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lucid.errors import FuseMissing

_flags = sys.getdlopenflags()
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
try:
    from lucid.mount import _locks as lock_requests
    from lucid.mount import _low as low
    from lucid.mount import _turns as turns
except ImportError as _cause:
    raise FuseMissing(
        f"The mount's extension is not there ({_cause}). "
        "In a source tree run ./build.sh; otherwise install libfuse2 and lucidfs again."
    ) from _cause
finally:
    sys.setdlopenflags(_flags)

import llfuse  # noqa: E402  # after the extension, see above

# llfuse holds a lock around each handler, so that file systems without locks of their own are safe.
# Taking it gives the interpreter up and takes it back, and so did letting go of it while a handler
# ran: a request took the interpreter four times. Ours guard what they share, and take it once.
llfuse.lock = low.NoLock()

__all__ = ["check_locks", "check_low", "llfuse", "lock_requests", "low", "turns"]

MAPS = Path("/proc/self/maps")


def check_low(sessions_before: int) -> None:
    """Raises FuseMissing unless llfuse's new session went through the low extension.

    Without it locks and reads would be served in other ways than is promised.
    """
    copies = {line.split()[-1] for line in MAPS.read_text().splitlines() if "libfuse.so" in line}
    if len(copies) > 1:
        raise FuseMissing(f"Two copies of libfuse are loaded: {', '.join(sorted(copies))}.")
    if low.stats()["sessions"] != sessions_before + 1:
        raise FuseMissing(
            "llfuse was loaded before lucid.mount, or does not use the system's libfuse. "
            "Import lucid.mount first, and install llfuse from source."
        )


def check_locks() -> None:
    """Raises FuseMissing unless the kernel asks this session about locks: else it would grant them
    by itself, and to every machine. REQUIRES: the kernel's first request is answered."""
    stats = low.stats()
    if not (stats["locks"] and stats["flocks"]):
        raise FuseMissing(
            "The kernel does not pass locks on to the drive, and programs would be told that they "
            "have locks that exclude nobody elsewhere. Use Linux 5.4 or newer and libfuse 2.9."
        )
