"""Which drives are mounted by this user, and by which process: one small file each, in the user's
runtime directory.

A mount point in, the state directory (where the control socket is) out. Records of processes that
have ended are swept by whoever reads, except where the mount of a killed one is still there: `dead`
tells of it. Any process of the user; a record is written by rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import platformdirs

from lucid.errors import LocalError, NotMounted
from lucid.mount import mountinfo

__all__ = [
    "Record",
    "add",
    "at",
    "change_phase",
    "containing",
    "dead",
    "death",
    "find",
    "process_start",
    "records",
    "remove",
    "wait_for_end",
]


@dataclass(frozen=True)
class Record:
    """One drive."""

    point: str
    state_directory: str
    store: str
    pid: int
    started: int
    """Clock ticks after boot: together with pid it names one process for good."""
    phase: str = "mounted"
    """"mounted", or "closing": unmounted, with uploads still under way."""

    @property
    def is_alive(self) -> bool:
        return process_start(self.pid) == self.started


def process_start(pid: int) -> int | None:
    """When a process began, in clock ticks after boot; None when it has ended or never was."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name, in brackets, may have blanks and brackets in it; field 22 counts from 1.
    fields = line[line.rindex(b")") + 2 :].split()
    ended = fields[0] in (b"Z", b"X")  # only its parent does not know yet
    return None if ended else int(fields[19])


def _place() -> Path:
    """The runtime directory of the user, which a reboot empties, also where no login made it known.

    Never /tmp: anybody could make it there before us.
    """
    user = Path(f"/run/user/{os.geteuid()}")
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(given) / "lucid"
    if user.is_dir():
        return user / "lucid"
    if os.geteuid() == 0:
        return Path("/run/lucid")
    return platformdirs.user_state_path("lucid") / "mounts"


def _directory() -> Path:
    """Raises LocalError when the directory is not ours alone: others could point us at a socket."""
    place = _place()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise LocalError(f"{place} can be written by others. Remove it, then try again.")
    return place


def _file(point: str) -> Path:
    return _directory() / (
        hashlib.blake2b(os.fsencode(point), digest_size=16).hexdigest() + ".json"
    )


def add(record: Record) -> None:
    """Writes or replaces the record of a mount point."""
    place = _file(record.point)
    fresh = place.with_suffix(f".{record.pid}.new")
    fresh.write_text(json.dumps(asdict(record)))
    fresh.replace(place)


def change_phase(record: Record, phase: str) -> Record:
    """The record with another phase, also on disk, unless the mount point has a newer drive."""
    changed = replace(record, phase=phase)
    if find(record.point) in (None, record):
        add(changed)
    return changed


def remove(record: Record) -> None:
    """Takes the record away, unless it is another process's by now."""
    place = _file(record.point)
    current = _read(place)
    if current is not None and (current.pid, current.started) == (record.pid, record.started):
        place.unlink(missing_ok=True)


def _read(place: Path) -> Record | None:
    try:
        return Record(**json.loads(place.read_text()))
    except (OSError, ValueError, TypeError):
        return None  # written by another version, or gone meanwhile


def records() -> list[Record]:
    """All drives of this user whose process lives, by mount point."""
    return [record for record in _swept() if record.is_alive]


def dead() -> list[Record]:
    """Drives that are still mounted though their process was killed, by mount point."""
    return [record for record in _swept() if not record.is_alive]


def death(record: Record) -> NotMounted:
    """What to say of a dead drive."""
    return NotMounted(
        f"The drive at {record.point} is dead: its process was killed. Mount it again, or: "
        f"lucid umount {record.point}"
    )


def _swept() -> list[Record]:
    """All drives that live or are dead, by mount point; other records are removed."""
    found = []
    for place in _directory().glob("*.json"):
        record = _read(place)
        if record is not None and (record.is_alive or _is_left(record)):
            found.append(record)
        else:
            place.unlink(missing_ok=True)
    return sorted(found, key=lambda record: record.point)


def _is_left(record: Record) -> bool:
    """Whether the mount of a process that has ended is still there."""
    mounted = mountinfo.find(Path(record.point)) if record.phase == "mounted" else None
    return mounted is not None and mounted.is_ours


def find(point: str | Path) -> Record | None:
    """The drive at exactly this mount point."""
    record = _read(_file(str(point)))
    return record if record is not None and record.is_alive else None


def at(point: Path) -> Record:
    """The drive at exactly this mount point. Raises NotMounted, also where the drive is dead."""
    record = find(point)
    if record is not None:
        return record
    for one in dead():
        if one.point == str(point):
            raise death(one)
    raise NotMounted(f"No drive of yours is mounted at {point}. See: lucid status")


def wait_for_end(record: Record, timeout_s: float) -> bool:
    """Whether the record's process has ended, after waiting for that at most so long."""
    try:
        fd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return True
    try:
        # Looked at after the descriptor is there, so that another process with the number is found.
        if not record.is_alive:
            return True
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        return bool(waiting.poll(timeout_s * 1000))
    finally:
        os.close(fd)


def containing(path: Path) -> Record:
    """The mounted drive that a path lies in. Raises NotMounted, also where the drive is dead."""
    inside = [
        record
        for record in _swept()
        if record.phase == "mounted" and path.is_relative_to(record.point)
    ]
    if not inside:
        raise NotMounted(f"{path} is not on a drive that you have mounted. See: lucid status")
    record = max(inside, key=lambda record: len(record.point))
    if not record.is_alive:
        raise death(record)
    return record
