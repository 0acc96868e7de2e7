"""The control socket: how `lucid status`, `sync`, `versions` and others talk to a mounted drive.

A Unix socket `control` in the state directory, for its owner only. One connection is one command:
a JSON line {"command": ..., ...} in; any number of {"progress": ...} lines and then one
{"result": ...} or {"error": ..., "message": ...} line out. The server has one thread that accepts
and one a connection, at most CONNECTIONS_MAX.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from lucid.errors import LucidError, NotMounted, TimedOut, UsageError
from lucid.mount.wire import LINE_MAX, Message, decode, encode, error_message, raised

__all__ = ["Call", "Command", "ControlServer", "Progressing", "ask"]

log = logging.getLogger(__name__)

NAME = "control"
CONNECTIONS_MAX = 16
REQUEST_S = 5.0
SEND_S = 10.0
ANSWER_S = 30.0
CLOSE_S = 3.0

Progressing = Callable[[Message], None]
"""Sends a progress line to the caller; a caller that has gone is no error."""
Command = Callable[[Message, Progressing], Message]
"""Runs one command; its result. Raises LucidError, which the caller gets."""


@contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """A path of the socket that fits into the 107 bytes of an address, however deep it lies."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)


class ControlServer:
    """Answers commands from `start` until `close`.

    Guarded by _lock: _connections. Write once: the rest.
    """

    def __init__(self, directory: Path, commands: dict[str, Command]) -> None:
        self._directory = directory
        self._commands = commands
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._closing = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="lucid-control", daemon=True)

    def start(self) -> None:
        """Takes over the name of a daemon that was killed: the state directory's lock is ours."""
        (self._directory / NAME).unlink(missing_ok=True)
        with _short_path(self._directory) as path:
            self._listener.bind(path)
        (self._directory / NAME).chmod(0o600)
        self._listener.listen(CONNECTIONS_MAX)
        self._thread.start()

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Lets commands that run end, at most for `timeout_s`, then cuts them off; joins."""
        self._closing.set()
        self._wake_writer.send(b"x")
        if self._thread.is_alive():
            self._thread.join()
        (self._directory / NAME).unlink(missing_ok=True)
        with self._lock:
            left = dict(self._connections)
        for thread in left:
            thread.join(timeout_s)
        for thread, connection in left.items():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(timeout_s)
        for each in (self._listener, self._wake_reader, self._wake_writer):
            each.close()

    def _accept(self) -> None:
        waiting = select.poll()  # select() takes no descriptor above 1,023
        waiting.register(self._listener, select.POLLIN)
        waiting.register(self._wake_reader, select.POLLIN)
        while True:
            waiting.poll()
            if self._closing.is_set():
                return
            try:
                connection, _ = self._listener.accept()
            except OSError:
                log.exception("a connection was not accepted")
                continue
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        """A thread for the connection; one too many is closed at once."""
        with self._lock:
            if len(self._connections) >= CONNECTIONS_MAX:
                connection.close()
                return
            thread = threading.Thread(
                target=self._answer, args=(connection,), name="lucid-control-call", daemon=True
            )
            self._connections[thread] = connection
        thread.start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(REQUEST_S)
                line = _read_line(connection)
                connection.settimeout(SEND_S)
                self._run(line, connection)
        except OSError as error:
            log.debug("the caller of a command has gone: %s", error)
        finally:
            with self._lock:
                self._connections.pop(threading.current_thread(), None)

    def _run(self, line: bytes, connection: socket.socket) -> None:
        def progressing(progress: Message) -> None:
            with suppress(OSError):
                connection.sendall(encode({"progress": progress}))

        try:
            request = decode(line)
            command = self._commands.get(str(request.get("command")))
            if command is None:
                raise UsageError("The daemon does not know this command; it is of another version.")
            answer: Message = {"result": command(request, progressing)}
        except LucidError as error:
            answer = error_message(error)
        except Exception as error:
            log.exception("a command failed")
            answer = error_message(error)
        connection.sendall(encode(answer))


def _read_line(connection: socket.socket) -> bytes:
    """One line. Raises OSError when it does not come, or is too long."""
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(65_536)
        if not piece or len(line) > LINE_MAX:
            raise ConnectionError("the line did not end")
        line += piece
    return line


class Call:
    """One command under way, seen from the caller. A context manager; one thread."""

    def __init__(self, directory: Path, command: str, **fields: object) -> None:
        """Sends the command. Raises NotMounted when nobody listens there."""
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(SEND_S)
        try:
            with _short_path(directory) as path:
                self._socket.connect(path)
            self._socket.sendall(encode({"command": command, **fields}))
        except OSError as error:
            self._socket.close()
            raise NotMounted(f"The daemon of this drive does not listen: {error}.") from None

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def next(self, timeout_s: float) -> Message | None:
        """The next message, {"progress": ...} or {"result": ...}; None when none came in time.

        Raises what the daemon raised, and NotMounted when it ended without an answer.
        """
        self._socket.settimeout(timeout_s)
        while b"\n" not in self._received:
            try:
                piece = self._socket.recv(65_536)
            except TimeoutError:
                return None
            except OSError:
                piece = b""
            if not piece:
                raise NotMounted("The daemon of this drive has ended without an answer.")
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        message = decode(line)
        if "error" in message:
            raise raised(message)
        return message


def ask(directory: Path, command: str, **fields: object) -> Message:
    """Runs a short command; its result. Raises NotMounted, TimedOut, and what the daemon raises."""
    with Call(directory, command, **fields) as call:
        while True:
            message = call.next(ANSWER_S)
            if message is None:
                raise TimedOut(
                    "The daemon of this drive does not answer. To end it: kill -9 it, then "
                    "lucid umount. What was closed is safe. Its lucid.log may tell why."
                )
            if "result" in message:
                result: Message = message["result"]
                return result
