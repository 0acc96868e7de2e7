"""The name that a file gets beside another one, when both cannot have the name they want.

`stem (conflict MEMBER DEVICE 2026-11-22 10.15.00).ext`, then with ` 2`, ` 3` after the bracket.
Names are bytes and need not be UTF-8. Part of the fold: integers and bytes only, no clock, no
locale, and a change of any result is a new number of the fold rules. Pure; any thread.
"""

from __future__ import annotations

__all__ = ["MARK", "conflict_name", "is_conflict_of", "split_name", "utc_text"]

NAME_BYTES_MAX = 255
LABEL_BYTES_MAX = 64
EXTENSION_BYTES_MAX = 32
"""A longer one is a sentence with a dot in it, and is cut like the rest of the name."""

_TIME_BYTES = len("2026-11-22 10.15.00")
MARK = b" (conflict "
"""In every conflict name; a file that is called so by hand has it too."""
_UNCLEAN = bytes.maketrans(bytes(range(32)) + b"/\x7f", b"_" * 34)


def conflict_name(name: bytes, member: bytes, device: bytes, time_ns: int, nth: int = 1) -> bytes:
    """The name beside `name` for what `member` did on `device` at `time_ns`; `nth` from 1."""
    stem, extension = split_name(name)
    mark = _mark(member, device) + utc_text(time_ns) + b")"
    if nth > 1:
        mark += b" %d" % nth
    room = NAME_BYTES_MAX - len(mark) - len(extension)
    return _cut(stem, room) + mark + extension


def is_conflict_of(landed: bytes, name: bytes, member: bytes, device: bytes) -> bool:
    """Whether `landed` is a name that this member's device got instead of `name`, at any time."""
    stem, extension = split_name(name)
    mark = _mark(member, device)
    place = landed.rfind(mark)
    if place < 0 or not landed.endswith(extension):
        return False
    head = landed[:place]
    if head != stem and not (stem.startswith(head) and len(landed) > NAME_BYTES_MAX - 4):
        return False
    closing = place + len(mark) + _TIME_BYTES
    number = landed[closing + 1 : len(landed) - len(extension)]
    return landed[closing : closing + 1] == b")" and (
        not number or (number[:1] == b" " and number[1:].isdigit())
    )


def split_name(name: bytes) -> tuple[bytes, bytes]:
    """(stem, extension with its dot). Dots in front are part of the stem: `.profile` has no
    extension."""
    dots = len(name) - len(name.lstrip(b"."))
    place = name.rfind(b".", dots)
    if place < 0 or not 1 < len(name) - place <= EXTENSION_BYTES_MAX:
        return name, b""
    return name[:place], name[place:]


def utc_text(time_ns: int) -> bytes:
    """`2026-11-22 10.15.00` in UTC, by the proleptic Gregorian calendar."""
    days, second = divmod(time_ns // 1_000_000_000, 86_400)
    # Days counted from 1 March of the year 0, so that a leap day is the last one of its year.
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * march_month + 2) // 5 + 1
    month = march_month + 3 if march_month < 10 else march_month - 9
    year = min(max(year_of_era + era * 400 + (month <= 2), 0), 9999)
    hour, minute = second // 3600, second // 60 % 60
    return b"%04d-%02d-%02d %02d.%02d.%02d" % (year, month, day, hour, minute, second % 60)


def _mark(member: bytes, device: bytes) -> bytes:
    return MARK + _label(member) + b" " + _label(device) + b" "


def _label(label: bytes) -> bytes:
    return _cut(label.translate(_UNCLEAN), LABEL_BYTES_MAX) or b"_"


def _cut(text: bytes, size: int) -> bytes:
    """At most `size` bytes of `text`, and no half of a UTF-8 character."""
    if len(text) <= size:
        return text
    # A character has at most three bytes after its first; more of them are no UTF-8 at all.
    for end in range(size, max(size - 4, 0), -1):
        if text[end] & 0xC0 != 0x80:
            return text[:end]
    return text[:size]
