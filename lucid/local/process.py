"""What a process that holds keys asks of the kernel. Called once, at the start of the program."""

from __future__ import annotations

import ctypes
import os
import resource

from lucid.errors import LocalError

__all__ = ["forbid_core_dumps"]

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """No core file of this process, and no other process of this user may read its memory.

    A core dump would write every key in clear onto the disk. The limit is inherited by children;
    the flag stops ptrace and the crash handlers that do not look at the limit.
    Raises LocalError when the kernel refuses.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise LocalError(f"Lucid could not forbid core dumps of itself: {reason}.")
