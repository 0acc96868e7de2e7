"""Going to the background: fork, wait until the drive is usable, pass on why it is not.

The process forks before it has started any thread. Secrets go along in memory; nothing is written
and no argument shows them. The child reports through a pipe, one JSON line when it is usable or
when it cannot be; the parent waits for that line for as long as the child lives. A signal that ends
the parent meanwhile ends the child first: nothing that was given up is mounted later.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from lucid.errors import InternalError, LucidError
from lucid.mount.signals import ENDING
from lucid.mount.wire import decode, encode, error_message, raised

__all__ = ["Work", "in_background"]

log = logging.getLogger(__name__)

GIVEN_UP_S = 6.0
"""How long a daemon that is told to end gets for that before it is killed."""

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
    signals = _Signals()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _be_daemon(work, writer, signals)
    os.close(writer)
    try:
        line = _line(pid, reader, signals)
    except _Ended as ended:
        signals.restore()
        signal.raise_signal(ended.number)
        raise SystemExit(128 + ended.number) from None  # whoever handles it lets us go on
    finally:
        signals.restore()
    return _usable(pid, line)


class _Ended(BaseException):
    """A signal came that ends this process."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Signals:
    """What ends the parent while it waits: held back from here on, so that none comes between the
    fork and the wait, then heard as _Ended. One that was ignored (nohup) stays so."""

    def __init__(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        self._handlers: dict[int, Any] = {}
        for number in ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                self._handlers[number] = signal.signal(number, self._raise)

    def hear(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self.hear()

    def _raise(self, number: int, frame: object) -> NoReturn:
        raise _Ended(number)


def _line(pid: int, reader: int, signals: _Signals) -> bytes:
    """What the daemon says; empty if it ends without a word."""
    with os.fdopen(reader, "rb") as pipe:
        try:
            signals.hear()
            return pipe.readline()
        except BaseException:
            # Ctrl-C among them: the daemon has left our terminal and does not hear of it by itself.
            _end(pid)
            raise


def _end(pid: int) -> None:
    """Ends a daemon that is not usable yet, whatever it waits for."""
    fd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        if not waiting.poll(GIVEN_UP_S * 1000):
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(fd)
    os.waitpid(pid, 0)


def _usable(pid: int, line: bytes) -> int:
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


def _be_daemon(work: Work, writer: int, signals: _Signals) -> NoReturn:
    """The child. Never returns into the caller's code: the parent goes on with that."""
    code = InternalError.exit_code
    try:
        signals.restore()
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
