"""What goes wrong by path names the path, as the builtin errors do."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from lucid import errors
from lucid.errors import LucidError, NamespaceError, Stopped, UsageError
from lucid.filespace import Filespace
from tests.filespace.spaces import Space, parts_of

FAILURES: list[tuple[Callable[[Filespace], object], type[NamespaceError], str]] = [
    (lambda fs: fs.read_bytes("/none"), errors.NotFound, "/none"),
    (lambda fs: fs.resolve("/none"), errors.NotFound, "/none"),
    (lambda fs: fs.stat("dir/none"), errors.NotFound, "dir/none"),
    (lambda fs: fs.stat(b"/file/below"), errors.NotDirectory, "/file/below"),
    (lambda fs: fs.listdir("/file"), errors.NotDirectory, "/file"),
    (lambda fs: fs.mkdir("/dir"), errors.Exists, "/dir"),
    (lambda fs: fs.makedirs("/dir"), errors.Exists, "/dir"),
    (lambda fs: fs.makedirs("/file/a/b"), errors.NotDirectory, "/file/a/b"),
    (lambda fs: fs.remove("/dir"), errors.IsDirectory, "/dir"),
    (lambda fs: fs.rmdir("/dir"), errors.NotEmpty, "/dir"),
    (lambda fs: fs.write_bytes("/dir", b""), errors.IsDirectory, "/dir"),
    (lambda fs: fs.open("/file", "x"), errors.Exists, "/file"),
    (lambda fs: fs.symlink("target", "/file"), errors.Exists, "/file"),
    (lambda fs: fs.chmod("/none", 0o600), errors.NotFound, "/none"),
    (lambda fs: fs.truncate("/none", 0), errors.NotFound, "/none"),
    (lambda fs: fs.write_bytes("/" + "x" * 256, b""), errors.NameTooLong, "/" + "x" * 256),
]


@pytest.fixture
def fs(space: Space) -> Filespace:
    fs = space.connect("a")
    fs.mkdir("/dir")
    fs.write_bytes("/file", b"hello")
    fs.write_bytes("/dir/inner", b"hello")
    return fs


def test_errors_name_their_path(fs: Filespace) -> None:
    for call, kind, path in FAILURES:
        with pytest.raises(kind) as caught:
            call(fs)
        assert type(caught.value) is kind
        named = caught.value.filename
        assert (named.decode() if isinstance(named, bytes) else named) == path
        assert str(caught.value) == f"{path}: {caught.value.strerror}"
        assert caught.value.errno == kind.errno


def test_two_paths(fs: Filespace) -> None:
    for call in (fs.rename, fs.link):
        with pytest.raises(FileNotFoundError) as caught:
            call("/none", "/dir/new")
        assert (caught.value.filename, caught.value.filename2) == ("/none", "/dir/new")
        assert str(caught.value) == "/none -> /dir/new: No such file or directory."
        assert caught.value.errno == errno.ENOENT


def test_other_errors_name_it_too(fs: Filespace) -> None:
    fs.symlink("/loop", "/loop")
    with pytest.raises(UsageError, match=r"^/loop: Too many levels of symbolic links\.$"):
        fs.read_bytes("/loop")
    with pytest.raises(UsageError, match=r"^/dir -> /dir/sub: A directory cannot be moved into"):
        fs.rename("/dir", "/dir/sub")
    with pytest.raises(UsageError, match=r"^/file: Not a symbolic link\.$"):
        fs.readlink("/file")
    with fs.open("/file", "rb") as file, pytest.raises(LucidError, match=r"^/file: The handle"):
        file.raw.write(b"not opened for this")


def test_progress_of_what_was_just_closed_is_what_was_left(fs: Filespace) -> None:
    """`lucid umount` asks while the daemon closes; also where a name would have to be looked up."""
    fs.tree._files.damage = (parts_of(fs).clock.monotonic(), 1 << 32 | 7, "It is damaged.")
    assert "It is damaged." in fs.progress().problem
    final = fs.tree.close()
    assert fs.tree.progress() == final


def test_a_closed_filespace_says_so(fs: Filespace) -> None:
    fs.close(wait=False)
    with pytest.raises(Stopped, match=r"^The filespace is closed\.$"):
        fs.read_bytes("/file")
