"""Mount points: what is mounted where, whether a drive can go there, and how it comes off again.

Called by the process that mounts or unmounts, from any thread. Except for `check`, nothing here
touches a path that may lie in a mount that hangs; the kernel's table of mounts is read instead.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import stat
import subprocess
from pathlib import Path

from lucid.errors import (
    FuseMissing,
    MountError,
    MountPointBusy,
    MountPointMissing,
    MountPointNotEmpty,
    NotMounted,
)
from lucid.mount import registry
from lucid.mount.mountinfo import FILE_SYSTEM, Mount, find, mounts

__all__ = [
    "FILE_SYSTEM",
    "Mount",
    "abort",
    "absolute",
    "check",
    "find",
    "mounts",
    "require_fuse",
    "set_read_ahead",
    "unmount",
    "users_of",
]

UNMOUNT_S = 30.0
DEVICE = Path("/dev/fuse")
CONNECTIONS = Path("/sys/fs/fuse/connections")
DEVICES = Path("/sys/class/bdi")


def absolute(path: str | Path) -> Path:
    """An absolute path with every parent resolved, without looking at the last component.

    The last one may be a dead mount, and even a stat of it would fail or hang.
    """
    path = Path(path)
    if path.name in ("", ".."):
        return path.resolve()
    return path.parent.resolve() / path.name


def require_fuse() -> None:
    """Raises FuseMissing with what to install."""
    if importlib.util.find_spec("llfuse") is None:
        raise FuseMissing(
            "The Python package llfuse is missing. Install libfuse-dev, pkg-config and gcc, then "
            "run: pip install llfuse"
        )
    if not DEVICE.exists():
        raise FuseMissing(
            "/dev/fuse is missing. Load the kernel module (modprobe fuse), or give the container "
            "the device (--device /dev/fuse --cap-add SYS_ADMIN)."
        )
    if fusermount() is None and os.geteuid() != 0:
        raise FuseMissing("fusermount is missing. Install the package fuse3 (or fuse).")


def fusermount() -> str | None:
    """The program that unmounts for users without rights; fuse3's serves as well."""
    return shutil.which("fusermount") or shutil.which("fusermount3")


def check(point: Path, *, nonempty: bool = False) -> None:
    """Whether a drive can be mounted at this directory; a dead mount there is cleared first.

    Raises MountPointMissing, MountPointBusy, MountPointNotEmpty.
    """
    if (mounted := find(point)) is not None and registry.find(point) is not None:
        # Before the look at it: its daemon lives, but might hang.
        raise _taken(mounted)
    try:
        status = point.stat()
        os.statvfs(point)  # a stat the kernel may answer for a dead daemon, this it may not
    except FileNotFoundError:
        raise MountPointMissing(f"{point} does not exist. Make it: mkdir -p {point}") from None
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise MountPointMissing(f"{point} cannot be used: {error.strerror}.") from None
        _clear_dead(point)
        return check(point, nonempty=nonempty)
    if not stat.S_ISDIR(status.st_mode):
        raise MountPointMissing(f"{point} is not a directory.")
    if (mounted := find(point)) is not None:
        raise _taken(mounted)
    if not nonempty and os.listdir(point):
        raise MountPointNotEmpty(
            f"{point} is not empty. Take an empty directory, or give -o nonempty to hide its files."
        )


def _taken(mounted: Mount) -> MountPointBusy:
    next_step = f" To unmount it: lucid umount {mounted.point}" if mounted.is_ours else ""
    what = mounted.source.removeprefix("lucid:") if mounted.is_ours else mounted.source
    return MountPointBusy(f"{what} is mounted at {mounted.point} already.{next_step}")


def _clear_dead(point: Path) -> None:
    """Takes away a mount whose daemon was killed; one of another program is left alone."""
    mounted = find(point)
    if mounted is not None and not mounted.is_ours:
        raise MountPointBusy(
            f"A dead mount of another program ({mounted.kind}) is at {point}. Unmount that first."
        )
    unmount(point, lazy=True)


def unmount(point: Path, *, lazy: bool = False) -> None:
    """Takes the mount away; `lazy` also while files in it are open.

    Raises MountPointBusy when files are open there, NotMounted, MountError.
    """
    program = fusermount()
    if os.geteuid() == 0 or program is None:
        command = ["umount", "-i", *(["-l"] if lazy else []), "--", str(point)]
    else:
        command = [program, "-u", *(["-z"] if lazy else []), "--", str(point)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=UNMOUNT_S, check=False,
            env=os.environ | {"LC_ALL": "C"}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise FuseMissing("fusermount is missing. Install the package fuse3 (or fuse).") from None
    except subprocess.TimeoutExpired:
        raise MountError(f"{point} did not unmount within {UNMOUNT_S:.0f} s.") from None
    if done.returncode == 0:
        return
    said = " ".join(done.stderr.split())
    if "busy" in said:
        raise MountPointBusy(_busy_sentence(point))
    if "not mounted" in said or "not found" in said:
        raise NotMounted(f"Nothing is mounted at {point} any more.")
    raise MountError(f"{point} cannot be unmounted: {said}")


def _busy_sentence(point: Path) -> str:
    users = users_of(point)
    who = f" by {', '.join(users)}" if users else ""
    return f"{point} is in use{who}. Close the files and leave the directory, then try again."


def set_read_ahead(mount: Mount, size: int) -> bool:
    """Let the kernel read `size` bytes ahead in this mount; False where only root may say so."""
    device = f"{os.major(mount.device)}:{os.minor(mount.device)}"
    try:
        (DEVICES / device / "read_ahead_kb").write_text(str(size // 1024))
    except OSError:
        return False
    return True


def users_of(point: Path, most: int = 5) -> list[str]:
    """`name (pid)` of processes that have something open below a mount point.

    Only the links in /proc are read, so a mount that hangs is no danger; other users' processes
    stay unseen.
    """
    found: list[str] = []
    below = f"{point}/"
    for process in sorted(Path("/proc").glob("[0-9]*")):
        try:
            links = [process / "cwd", process / "root", *(process / "fd").iterdir()]
            if any(f"{os.readlink(link)}/".startswith(below) for link in links):
                name = (process / "comm").read_text().strip()
                found.append(f"{name} ({process.name})")
        except OSError:
            continue  # it has ended meanwhile, or is not ours to look at
        if len(found) == most:
            break
    return found


def abort(mount: Mount) -> bool:
    """Ends the FUSE connection of a mount; everything that waits on it fails at once.

    The last resort against a mount that hangs. Where the control file system is not mounted, a
    forced unmount does the same, for root only. False: there is no way to do it.
    """
    try:
        (CONNECTIONS / str(os.minor(mount.device)) / "abort").write_bytes(b"1")
    except OSError:
        # It stays mounted, and umount says "busy"; the connection is gone all the same.
        command = ["umount", "-i", "-f", "--", str(mount.point)]
        subprocess.run(command, capture_output=True, timeout=UNMOUNT_S, check=False)
        return os.geteuid() == 0
    return True
