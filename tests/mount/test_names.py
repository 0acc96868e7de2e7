"""Names, attributes, links and directories through a real mount over a file system in memory."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lucid.mount.options import MountOptions
from tests.mount.drive import Drive

pytestmark = pytest.mark.mount


def fails_with(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as raised:
        call()
    assert raised.value.errno == number, errno.errorcode[raised.value.errno or 0]


def test_the_root(drive: Drive) -> None:
    status = drive.point.stat()
    assert status.st_ino == 1
    assert stat.S_ISDIR(status.st_mode)
    assert status.st_blksize == drive.surface.block_size
    assert sorted(os.listdir(drive.point)) == []


def test_numbers_above_32_bits(drive: Drive) -> None:
    """S-5"""
    (drive.point / "a").touch()
    assert (drive.point / "a").stat().st_ino > 1 << 32
    (entry,) = os.scandir(drive.point)
    assert entry.inode() == (drive.point / "a").stat().st_ino


def test_dot_and_dot_dot_are_listed(drive: Drive) -> None:
    (drive.point / "d").mkdir()
    listed = drive.python(
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None)\n"
        "class Dirent(ctypes.Structure):\n"
        "    _fields_ = [('ino', ctypes.c_uint64), ('off', ctypes.c_int64),\n"
        "                ('len', ctypes.c_ushort), ('kind', ctypes.c_ubyte),\n"
        "                ('name', ctypes.c_char * 256)]\n"
        "libc.opendir.restype = ctypes.c_void_p\n"
        "libc.readdir.argtypes = [ctypes.c_void_p]\n"
        "libc.readdir.restype = ctypes.POINTER(Dirent)\n"
        "stream = libc.opendir(b'd')\n"
        "while found := libc.readdir(stream):\n"
        "    print(found.contents.name.decode(), found.contents.ino)\n"
    )
    inside = (drive.point / "d").stat().st_ino
    assert listed.split("\n")[:2] == [f". {inside}", ".. 1"]


def test_missing_and_wrong_kinds(drive: Drive) -> None:
    (drive.point / "f").touch()
    (drive.point / "d").mkdir()
    fails_with(errno.ENOENT, lambda: os.stat(drive.point / "none"))
    fails_with(errno.ENOTDIR, lambda: os.stat(drive.point / "f" / "x"))
    fails_with(errno.EEXIST, lambda: os.mkdir(drive.point / "d"))
    fails_with(errno.EISDIR, lambda: os.open(drive.point / "d", os.O_WRONLY))
    fails_with(errno.ENOTDIR, lambda: os.rmdir(drive.point / "f"))
    fails_with(errno.EISDIR, lambda: os.unlink(drive.point / "d"))
    fails_with(errno.EEXIST, lambda: os.open(drive.point / "f", os.O_CREAT | os.O_EXCL))


def test_directories(drive: Drive) -> None:
    (drive.point / "d" / "e").mkdir(parents=True)
    assert (drive.point / "d").stat().st_nlink == 3
    fails_with(errno.ENOTEMPTY, lambda: os.rmdir(drive.point / "d"))
    (drive.point / "d" / "e").rmdir()
    (drive.point / "d").rmdir()
    assert os.listdir(drive.point) == []


def test_rename_over_a_file(drive: Drive) -> None:
    (drive.point / "new").write_text("new")
    (drive.point / "old").write_text("old")
    with (drive.point / "old").open() as kept:
        os.rename(drive.point / "new", drive.point / "old")
        assert kept.read() == "old"
    assert (drive.point / "old").read_text() == "new"
    assert os.listdir(drive.point) == ["old"]


def test_rename_between_directories(drive: Drive) -> None:
    (drive.point / "a" / "x").mkdir(parents=True)
    (drive.point / "b").mkdir()
    os.rename(drive.point / "a" / "x", drive.point / "b" / "y")
    assert os.listdir(drive.point / "b") == ["y"]
    fails_with(errno.EINVAL, lambda: os.rename(drive.point / "b", drive.point / "b" / "y" / "z"))
    fails_with(errno.ENOTEMPTY, lambda: os.rename(drive.point / "a", drive.point / "b"))


def test_hard_links(drive: Drive) -> None:
    """S-3"""
    (drive.point / "a").write_text("same")
    os.link(drive.point / "a", drive.point / "b")
    assert (drive.point / "a").stat().st_nlink == 2
    assert (drive.point / "a").samefile(drive.point / "b")
    os.unlink(drive.point / "a")
    assert (drive.point / "b").read_text() == "same"
    assert (drive.point / "b").stat().st_nlink == 1


def test_symbolic_links(drive: Drive) -> None:
    """S-12"""
    (drive.point / "target").write_text("here")
    os.symlink("target", drive.point / "link")
    assert os.readlink(drive.point / "link") == "target"
    assert (drive.point / "link").read_text() == "here"
    assert (drive.point / "link").lstat().st_size == len("target")
    os.symlink(b"\xff/nowhere", os.fsencode(drive.point / "odd"))
    assert os.readlink(os.fsencode(drive.point / "odd")) == b"\xff/nowhere"
    fails_with(errno.ENOENT, lambda: os.stat(drive.point / "odd"))


def test_names_of_any_bytes(drive: Drive) -> None:
    """S-1"""
    point = os.fsencode(drive.point)
    longest = bytes(range(1, 47)) + bytes(range(48, 256)) + b"z"
    assert len(longest) == 255
    names = [longest, b"\xff\xfe", b"new\nline", "Zürich".encode(), b" ", b"\\", b"-rf"]
    for name in names:
        Path(os.fsdecode(point + b"/" + name)).write_bytes(name)
    assert sorted(os.listdir(point)) == sorted(names)
    for name in names:
        assert Path(os.fsdecode(point + b"/" + name)).read_bytes() == name
    fails_with(errno.ENAMETOOLONG, lambda: os.mkdir(point + b"/" + b"n" * 256))


def test_fifo_and_socket(drive: Drive) -> None:
    """S-12"""
    os.mkfifo(drive.point / "fifo", 0o640)
    status = (drive.point / "fifo").stat()
    assert stat.S_ISFIFO(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o640
    reader = os.open(drive.point / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(drive.point / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(writer)
    os.close(reader)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        directory = os.open(drive.point, os.O_RDONLY)
        place = f"/proc/self/fd/{directory}/socket"  # socket paths have at most 107 bytes
        server.bind(place)
        server.listen()
        client.connect(place)
        os.close(directory)
    assert stat.S_ISSOCK((drive.point / "socket").stat().st_mode)


def test_mknod_of_a_regular_file(drive: Drive) -> None:
    os.mknod(drive.point / "f", stat.S_IFREG | 0o600)
    assert (drive.point / "f").read_bytes() == b""
    assert (drive.point / "f").stat().st_mode == stat.S_IFREG | 0o600


def test_mode_and_times(drive: Drive) -> None:
    """S-15"""
    path = drive.point / "f"
    path.touch()
    path.chmod(0o4751)
    assert stat.S_IMODE(path.stat().st_mode) == 0o4751
    before = path.stat().st_ctime_ns
    times = (1_234_567_890_123_456_789, -1_500_000_001)
    os.utime(path, ns=times)
    status = path.stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == times
    assert status.st_ctime_ns >= before
    path.read_bytes()
    assert path.stat().st_atime_ns == times[0], "reading must not move atime"
    os.utime(path, ns=(0, 2**33 * 10**9 + 1))
    assert path.stat().st_mtime_ns == 2**33 * 10**9 + 1


def test_the_umask_of_the_caller(drive: Drive) -> None:
    drive.python("import os; os.umask(0o027); os.mkdir('d'); open('f', 'w').close()")
    assert stat.S_IMODE((drive.point / "d").stat().st_mode) == 0o750
    assert stat.S_IMODE((drive.point / "f").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="chown to others needs root")
@pytest.mark.parametrize("owners", [False, True])
def test_owners(make_drive: Callable[..., Drive], owners: bool) -> None:
    """S-17"""
    drive = make_drive(options=MountOptions(owners=owners))
    path = drive.point / "f"
    path.touch()
    os.chown(path, 4242, 4343)
    status = path.stat()
    shown = (4242, 4343) if owners else (os.getuid(), os.getgid())
    assert (status.st_uid, status.st_gid) == shown
    stored = drive.surface.attributes(status.st_ino)
    assert (stored.uid, stored.gid) == (4242, 4343)


@pytest.mark.skipif(os.geteuid() != 0, reason="chown to others needs root")
def test_a_set_group_id_directory_hands_on_its_group(make_drive: Callable[..., Drive]) -> None:
    drive = make_drive(options=MountOptions(owners=True))
    shared = drive.point / "shared"
    shared.mkdir()
    os.chown(shared, 0, 4343)
    shared.chmod(0o2775)
    (shared / "f").touch()
    (shared / "d").mkdir()
    os.symlink("f", shared / "l")
    assert (shared / "f").stat().st_gid == (shared / "l").lstat().st_gid == 4343
    assert (shared / "d").stat().st_gid == 4343
    assert (shared / "d").stat().st_mode & stat.S_ISGID
    assert not (shared / "f").stat().st_mode & stat.S_ISGID


def test_statfs(drive: Drive) -> None:
    """S-18"""
    (drive.point / "f").write_bytes(bytes(1_000_000))
    answer = os.statvfs(drive.point)
    assert answer.f_namemax == 255
    assert answer.f_bavail * answer.f_frsize == 1 << 50
    assert answer.f_bfree == answer.f_bavail
    used = (answer.f_blocks - answer.f_bfree) * answer.f_frsize
    assert 1_000_000 <= used < 1_000_000 + 4096
    assert answer.f_files - answer.f_ffree == 2
    assert answer.f_bsize == drive.surface.block_size


def test_twenty_thousand_names_while_some_go(drive: Drive) -> None:
    """S-4"""
    surface = drive.surface
    directory = surface.mkdir(1, b"many", 0o755, 0, 0).ino
    names = [f"{number:06}".encode() for number in range(20_000)]
    for name in names:
        surface.mknod(directory, name, stat.S_IFREG | 0o644, 0, 0, 0)
    listed = set()
    with os.scandir(os.fsencode(drive.point / "many")) as entries:
        for number, entry in enumerate(entries):
            listed.add(entry.name)
            if number % 2 == 0:
                os.unlink(os.fsencode(drive.point / "many") + b"/" + entry.name)
    assert listed == set(names), "each name that stayed is listed, and each once"
    assert len(os.listdir(drive.point / "many")) == 10_000


def test_a_hundred_thousand_names(drive: Drive) -> None:
    surface = drive.surface
    directory = surface.mkdir(1, b"many", 0o755, 0, 0).ino
    for number in range(100_000):
        surface.mknod(directory, b"%d" % number, stat.S_IFREG | 0o644, 0, 0, 0)
    surface.trace.clear()
    listed = os.listdir(drive.point / "many")
    assert len(listed) == len(set(listed)) == 100_000
    assert surface.trace.count("lookup") <= 1, "listing asks for no entry by itself"


def test_telldir_and_seekdir(drive: Drive) -> None:
    for number in range(2000):
        (drive.point / f"{number}").touch()
    done = drive.python(
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p\n"
        "libc.telldir.restype = ctypes.c_long\n"
        "stream = ctypes.c_void_p(libc.opendir(b'.'))\n"
        "def names(most):\n"
        "    found = []\n"
        "    while len(found) < most and (entry := libc.readdir(stream)):\n"
        "        found.append(ctypes.string_at(entry + 19))\n"
        "    return found\n"
        "names(700)\n"
        "place = libc.telldir(stream)\n"
        "rest = names(10**6)\n"
        "libc.seekdir(stream, ctypes.c_long(place))\n"
        "assert names(10**6) == rest\n"
        "print(len(rest))\n"
    )
    assert int(done) == 2002 - 700


def test_a_removed_directory_that_is_open(drive: Drive) -> None:
    (drive.point / "d").mkdir()
    fd = os.open(drive.point / "d", os.O_RDONLY)
    os.rmdir(drive.point / "d")
    assert os.fstat(fd).st_nlink == 0
    assert os.listdir(fd) == []
    fails_with(errno.ENOENT, lambda: os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_what_the_kernel_forgot_is_found_again(drive: Drive) -> None:
    (drive.point / "f").write_text("x")
    with (drive.point / "f").open() as file:
        os.unlink(drive.point / "f")
        assert os.fstat(file.fileno()).st_nlink == 0
        assert file.read() == "x"
    for at in range(300):
        (drive.point / f"g{at}").write_text("x")
        os.unlink(drive.point / f"g{at}")
    fails_with(errno.ENOENT, lambda: os.stat(drive.point / "f"))
    (drive.point / "f").write_text("again")
    assert (drive.point / "f").read_text() == "again"


def test_read_only(make_drive: Callable[..., Drive]) -> None:
    """S-19"""
    drive = make_drive(options=MountOptions(read_only=True))
    fails_with(errno.EROFS, lambda: os.mkdir(drive.point / "d"))
    fails_with(errno.EROFS, lambda: os.open(drive.point / "f", os.O_CREAT | os.O_WRONLY))
    assert os.statvfs(drive.point).f_flag & os.ST_RDONLY
    assert os.statvfs(drive.point).f_flag & os.ST_NOSUID
