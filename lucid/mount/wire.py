"""Errors and progress as JSON lines: what a daemon tells the command that started or asks it.

Pure. The same form goes through the pipe of a starting daemon and through the control socket.
"""

from __future__ import annotations

import json
from typing import Any

from lucid import errors
from lucid.errors import InternalError, LucidError

__all__ = ["LINE_MAX", "Message", "decode", "encode", "error_message", "raised", "sentence"]

LINE_MAX = 1 << 20

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Raises InternalError for what is not one JSON object."""
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        shown = line[:80].decode("utf-8", "backslashreplace").rstrip()
        raise InternalError(f"The daemon said something that is no message: {shown}.")
    return message


def error_message(error: BaseException) -> Message:
    """An error as a message. What is not ours arrives as InternalError."""
    kind = type(error).__name__ if isinstance(error, LucidError) else "InternalError"
    text = sentence(error) if isinstance(error, LucidError) else f"{type(error).__name__}: {error}"
    return {"error": kind, "message": text}


def raised(message: Message) -> LucidError:
    """The error of a message, of its own class again."""
    kind = getattr(errors, str(message.get("error")), None)
    if not (isinstance(kind, type) and issubclass(kind, LucidError)):
        kind = InternalError
    return kind(str(message.get("message", "")))


def sentence(error: LucidError) -> str:
    """The sentence alone: an OSError's str() begins with its number."""
    return str(getattr(error, "strerror", None) or error)
