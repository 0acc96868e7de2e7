"""Where the log of a mount goes: stderr in the foreground, else a file of bounded size.

A daemon knows its state directory only when the filespace is open, so lines are held until then.
Names of files never reach the log: it rests on the local disk in clear, and is its owner's alone.
"""

from __future__ import annotations

import io
import logging
import os
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path

from lucid.errors import LocalError

__all__ = ["Log"]

FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"
HELD_MAX = 10_000
FILE_BYTES_MAX = 4 << 20
NAME = "lucid.log"
MODE = 0o600


class _Repeats(logging.Filter):
    """Lets a line through once, however often it comes in a row, and tells how often it came.

    While a store does not answer, each read says the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[str, object, object] | None = None
        self._times = 0

    def filter(self, record: logging.LogRecord) -> bool:
        line = (record.name, record.msg, record.args)
        if line == self._last and not record.exc_info:
            self._times += 1
            return False
        if self._times:
            record.msg = f"{record.getMessage()} (the line before came {self._times} times more)"
            record.args = None
        self._last, self._times = line, 0
        return True


class _Held(MemoryHandler):
    """Keeps the first lines; without a target, the standard one would grow for ever."""

    def emit(self, record: logging.LogRecord) -> None:
        if self.target is not None or len(self.buffer) < self.capacity:
            super().emit(record)


class _File(RotatingFileHandler):
    """A file of bounded size, made for its owner's eyes only."""

    def _open(self) -> io.TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        return os.fdopen(fd, "a", encoding="utf-8")


class Log:
    """The log of this process. Made once, by the main thread."""

    def __init__(self, *, debug: bool, foreground: bool, file: Path | None) -> None:
        """Raises LocalError when `file` cannot be written."""
        self._held: _Held | None = None
        handler: logging.Handler
        if file is not None:
            handler = _to_file(file)
        elif foreground:
            handler = logging.StreamHandler()
        else:
            handler = self._held = _Held(HELD_MAX, flushLevel=logging.CRITICAL + 1)
        handler.setFormatter(logging.Formatter(FORM))
        handler.addFilter(_Repeats())
        logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
        logging.getLogger("lucid").setLevel(logging.DEBUG if debug else logging.INFO)
        # These tell of every request, and of URLs.
        for library in ("boto3", "botocore", "urllib3", "s3transfer", "websockets"):
            logging.getLogger(library).setLevel(logging.WARNING)

    def into(self, directory: Path) -> None:
        """From now on into a file of this state directory, if it has no place yet."""
        if self._held is None:
            return
        self._held.setTarget(_to_file(directory / NAME))
        self._held.flushLevel = logging.NOTSET
        self._held.flush()


def _to_file(path: Path) -> _File:
    try:
        handler = _File(path, maxBytes=FILE_BYTES_MAX, backupCount=1, delay=False)
    except OSError as error:
        raise LocalError(f"The log {path} cannot be written: {error.strerror}.") from None
    handler.setFormatter(logging.Formatter(FORM))
    return handler
