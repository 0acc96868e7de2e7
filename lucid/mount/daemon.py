"""Going to the background: fork, wait until the drive is usable, pass on why it is not.

The process forks before it has started any thread. Secrets go along in memory; nothing is written
and no argument shows them. The child reports through a pipe, one JSON line when it is usable or
when it cannot be; the parent waits for that line for as long as the child lives.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from lucid.errors import InternalError, LucidError
from lucid.mount.wire import decode, encode, error_message, raised

__all__ = ["Work", "in_background"]

log = logging.getLogger(__name__)

Work = Callable[[Callable[[], None]], int]
"""What the daemon does: called with `ready`, which it calls once when the drive is usable; returns
the exit status, or raises."""


def in_background(work: Work) -> int:
    """Runs `work` in a new daemon; returns its process id when it has called `ready`.

    Raises what `work` raised before that, as its LucidError; InternalError when the daemon ended
    without a word. REQUIRES: no other thread runs.
    """
    assert threading.active_count() == 1, "a fork keeps only the thread that forks"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _be_daemon(work, writer)
    os.close(writer)
    return _await(pid, reader)


def _await(pid: int, reader: int) -> int:
    with os.fdopen(reader, "rb") as pipe:
        try:
            line = pipe.readline()
        except KeyboardInterrupt:
            # The daemon has left our terminal and does not hear of it by itself.
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            raise
    if line:
        message = decode(line)
        if "error" not in message:
            return pid
        os.waitpid(pid, 0)
        raise raised(message)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    raise InternalError(f"The daemon {how} before the drive was usable.")


def _be_daemon(work: Work, writer: int) -> NoReturn:
    """The child. Never returns into the caller's code: the parent goes on with that."""
    code = InternalError.exit_code
    try:
        _let_go(writer)
        code = _report(work, writer)
    finally:
        logging.shutdown()
        os._exit(code)


def _let_go(writer: int) -> None:
    """A session of our own, and nothing of the caller's held: no terminal, directory or file."""
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd > 2 and fd != writer:
            with suppress(OSError):  # the one that listed the directory
                os.close(fd)


def _report(work: Work, writer: int) -> int:
    told = False

    def tell(line: bytes) -> None:
        """Whoever started us may be gone; that is no reason to end."""
        nonlocal told
        if told:
            return
        told = True
        try:
            os.write(writer, line)
        except BrokenPipeError:
            log.warning("nobody waited for the drive any more")
        os.close(writer)

    try:
        return work(lambda: tell(encode({"ready": True})))
    except BaseException as error:
        log.log(
            logging.ERROR,
            "the daemon ends: %s",
            error,
            exc_info=not isinstance(error, LucidError),
        )
        tell(encode(error_message(error)))
        return error.exit_code if isinstance(error, LucidError) else InternalError.exit_code
