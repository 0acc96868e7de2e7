"""Checks of single fields, shared by every parser of this room. Pure; any thread."""

from __future__ import annotations

from typing import Any

from lucid.errors import FormatError, UnsupportedFormat
from lucid.format.limits import (
    FORMAT_VERSION,
    ID_SIZE,
    LABEL_MAX,
    NAME_MAX,
    TARGET_MAX,
    XATTR_VALUE_MAX,
)

__all__ = [
    "check_bytes",
    "check_fields",
    "check_id",
    "check_int",
    "check_label",
    "check_name",
    "check_target",
    "check_version",
    "check_xattr_name",
    "check_xattr_value",
    "is_name",
    "shown",
]


def check_int(value: Any, low: int, high: int, what: str) -> int:
    """`value` if it is an integer from `low` to `high`."""
    if type(value) is not int:
        raise FormatError(f"{what} is not an integer.")
    if not low <= value <= high:
        raise FormatError(f"{what} is out of range: {value}.")
    return value


def check_bytes(value: Any, size: int, what: str) -> bytes:
    """`value` if it is exactly `size` bytes."""
    if type(value) is not bytes or len(value) != size:
        raise FormatError(f"{what} is not {size} bytes.")
    return value


def check_id(value: Any, what: str) -> bytes:
    """`value` if it can be the id of a filespace, member or generation."""
    return check_bytes(value, ID_SIZE, what)


def check_fields(value: Any, count: int, what: str) -> list[Any]:
    """`value` if it is an array of exactly `count` fields."""
    if type(value) is not list or len(value) != count:
        raise FormatError(f"{what} does not have its {count} fields.")
    return value


def check_version(value: Any, what: str) -> None:
    """Raises UnsupportedFormat for a format other than ours."""
    check_int(value, 0, 0xFFFF, f"The format of {what}")
    if value != FORMAT_VERSION:
        raise UnsupportedFormat(
            f"{what} is of format {value}; this version of lucid knows format {FORMAT_VERSION}."
            " Install a newer one."
        )


def shown(name: bytes) -> str:
    """A name as a sentence shows it, whatever bytes it has; a long one is cut."""
    return name[:300].decode("utf-8", "backslashreplace")


def is_name(name: bytes) -> bool:
    """Whether `name` can be a file name: 1 to 255 bytes, no slash, no NUL, and not only dots."""
    return (
        0 < len(name) <= NAME_MAX
        and b"/" not in name
        and b"\0" not in name
        and name not in (b".", b"..")
    )


def check_name(name: bytes) -> None:
    """Raises FormatError unless `name` can be a file name, see `is_name`."""
    if not is_name(name):
        raise FormatError(f"No file can have the name {shown(name)}.")


def check_target(target: bytes) -> None:
    """Raises FormatError unless `target` can be the target of a symbolic link."""
    if not 0 < len(target) <= TARGET_MAX or b"\0" in target:
        raise FormatError("A symbolic link has 1 to 4095 bytes, none of them NUL.")


def check_xattr_name(name: bytes) -> None:
    """Raises FormatError unless `name` can be the name of an extended attribute."""
    if not 0 < len(name) <= NAME_MAX or b"\0" in name:
        raise FormatError(f"No extended attribute can have the name {shown(name)}.")


def check_xattr_value(value: bytes) -> None:
    """Raises FormatError for a value that is too long."""
    if len(value) > XATTR_VALUE_MAX:
        raise FormatError(f"An extended attribute has at most {XATTR_VALUE_MAX} bytes.")


def check_label(label: bytes) -> None:
    """Raises FormatError unless `label` can stand in a conflict name: short UTF-8, no control
    characters, no slash."""
    try:
        text = label.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("A label is not UTF-8.") from error
    if not 0 < len(label) <= LABEL_MAX:
        raise FormatError(f"A label has 1 to {LABEL_MAX} bytes.")
    # Not str.isprintable(): its answer changes with the Unicode tables of the Python in use.
    if any(sign == "/" or sign < " " or "\x7f" <= sign <= "\x9f" for sign in text):
        raise FormatError(f"No member or device can have the label {shown(label)}.")
