"""What the clients of a team do, chosen by integers, and how a schedule of it is run."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from unittest import mock

from lucid.errors import LucidError, NamespaceError, UsageError
from lucid.store.faulty import Fault
from tests.filespace.convergence import DIRECTORIES, FILL, Client, Do, Held, Parted, Team, names
from tests.filespace.spaces import BLOCK, WAIT_S

__all__ = ["KINDS", "Step", "run", "schedule"]

Step = tuple[int, int, int, int]
"""Which kind, which client, and two numbers that the kind understands."""

NAMES = ("a", "b.txt", "c")
OFFSETS = (0, 1, 100, 5000, BLOCK - 3, BLOCK, 2 * BLOCK + 9)


def _path(client: Client, number: int) -> str:
    """A name that all know, or, now and then, one that is there."""
    if number % 5 == 4:
        return _any(client, number // 5)
    directory = DIRECTORIES[number // 3 % len(DIRECTORIES) if number % 2 else 0]
    return f"{directory}/{NAMES[number % len(NAMES)]}"


def _any(client: Client, number: int, directories: bool = False) -> str:
    """One of the names that are there, also of conflict copies."""
    there = [path for path, is_directory in names(client.fs) if is_directory <= directories]
    if not there:
        raise UsageError("Nothing is there.")
    return there[number % len(there)]


def _directory(number: int) -> str:
    return DIRECTORIES[1:][number % 3]


def _file(client: Client, number: int) -> str:
    """A path that leads to no symbolic link: open follows these, and the ledger does not."""
    path = _path(client, number)
    try:
        if stat.S_ISLNK(client.fs.stat(path, follow_symlinks=False).mode):
            raise UsageError("It is a symbolic link.")
    except NamespaceError:
        pass
    return path


def _overwrite(client: Client, one: int, other: int) -> None:
    client.save(_file(client, one), os.O_TRUNC, 0, FILL[other % len(FILL)])


def _patch(client: Client, one: int, other: int) -> None:
    client.save(_file(client, one), 0, OFFSETS[other % len(OFFSETS)], FILL[other % len(FILL)])


def _append(client: Client, one: int, other: int) -> None:
    client.save(_file(client, one), os.O_APPEND, 0, FILL[other % len(FILL)])


def _truncate(client: Client, one: int, other: int) -> None:
    size = (0, 3, 200, BLOCK + 1, 3 * BLOCK)[other % 5]
    if other % 2:
        client.save(_file(client, one), 0, 0, 0, cut=max(size, 3))
        return
    path = _file(client, one)
    client.let_go_at(path)
    client.fs.truncate(path, size)


def _atomic_save(client: Client, one: int, other: int) -> None:
    """A new file beside it, renamed over it."""
    path = _file(client, one)
    if client.fs.exists(path) and stat.S_ISDIR(client.fs.stat(path).mode):
        return
    fresh = f"{path}.new{client.name if other % 2 else ''}"
    client.save(fresh, os.O_TRUNC, 0, FILL[other % len(FILL)])
    client.let_go_at(path)
    client.fs.rename(fresh, path)


def _rename(client: Client, one: int, other: int) -> None:
    source, target = _any(client, one, directories=one % 4 == 0), _path(client, other)
    if source != target:
        client.let_go_at(target)
        client.fs.rename(source, target)


def _rename_directory(client: Client, one: int, other: int) -> None:
    source = _any(client, one, directories=True)
    if stat.S_ISDIR(client.fs.stat(source, follow_symlinks=False).mode):
        client.fs.rename(source, (*DIRECTORIES[1:], "/x/y")[other % 4])


def _unlink(client: Client, one: int, other: int) -> None:
    path = _any(client, one)
    client.let_go_at(path)
    client.fs.remove(path)


def _mkdir(client: Client, one: int, other: int) -> None:
    client.fs.mkdir(_directory(one))


def _rmdir(client: Client, one: int, other: int) -> None:
    client.fs.rmdir(_directory(one))


def _remove_tree(client: Client, one: int, other: int) -> None:
    """rm -r"""
    top = _directory(one)
    for path, is_directory in reversed(list(names(client.fs, top))):
        if is_directory:
            client.fs.rmdir(path)
        else:
            client.let_go_at(path)
            client.fs.remove(path)
    client.fs.rmdir(top)


def _link(client: Client, one: int, other: int) -> None:
    client.fs.link(_any(client, one), _path(client, other))


def _symlink(client: Client, one: int, other: int) -> None:
    client.fs.symlink(f"target {one}", _path(client, other))


def _set_attributes(client: Client, one: int, other: int) -> None:
    ino = client.fs.resolve(_any(client, one, directories=True), follow=False)
    tree = client.fs.tree
    if other % 3 == 0:
        tree.set_attributes(ino, mode=(0o600, 0o640, 0o755)[other // 3 % 3])
    elif other % 3 == 1:
        tree.set_attributes(ino, uid=other, atime_ns=other, mtime_ns=other * 10**9)
    else:
        tree.set_xattr(ino, b"user.note%d" % (other % 2), client.mark())


def _remove_xattr(client: Client, one: int, other: int) -> None:
    tree = client.fs.tree
    inodes = {client.fs.resolve(path, follow=False) for path, _ in names(client.fs)}
    noted = [(ino, name) for ino in sorted(inodes) for name in tree.list_xattrs(ino)]
    if not noted:
        raise UsageError("Nothing has an attribute.")
    tree.remove_xattr(*noted[one % len(noted)])


def _hold(client: Client, one: int, other: int) -> None:
    if len(client.held) < 3:
        flags = (0, os.O_APPEND, os.O_TRUNC)[other % 3]
        client.held.append(Held(client.open(_file(client, one), flags)))


def _held_write(client: Client, one: int, other: int) -> None:
    if client.held:
        held = client.held[one % len(client.held)]
        client.write(held, OFFSETS[other % len(OFFSETS)], FILL[other % len(FILL)])


def _held_cut(client: Client, one: int, other: int) -> None:
    if client.held:
        client.cut(client.held[one % len(client.held)], OFFSETS[other % len(OFFSETS)])


def _held_fsync(client: Client, one: int, other: int) -> None:
    if client.held:
        client.fs.tree.fsync(client.held[one % len(client.held)].handle)


def _held_close(client: Client, one: int, other: int) -> None:
    if client.held:
        client.close(client.held.pop(one % len(client.held)))


def _commit(client: Client, one: int, other: int) -> None:
    """All of one client goes into the log; then it has looked at all of it."""
    client.commit()
    client.look()
    client.rest()


def _look(client: Client, one: int, other: int) -> None:
    client.look()
    client.rest()


def _commit_together(client: Client, one: int, other: int) -> None:
    """All who can commit at once, an op or two an entry: who wins which number is left to them."""
    online = [each for each in client.team.clients if not each.offline]
    with mock.patch("lucid.sync.committer.OPS_MAX", 1 + one % 3):
        _at_once([each.commit for each in online])
    for each in online:
        each.look()
    for each in online:
        each.rest()


def _cut_off(client: Client, one: int, other: int) -> None:
    client.cut_off(True)


def _come_back(client: Client, one: int, other: int) -> None:
    for each in client.team.clients:
        each.cut_off(False)


def _fault(client: Client, one: int, other: int) -> None:
    """The next calls of this client meet these."""
    put = (Fault.LOSE_ANSWER, Fault.REFUSE, Fault.BUSY)[one % 3]
    client.plan.script("put", [None] * (other % 2) + [put] * (1 + other % 3), prefix="log/")
    if other % 2:
        got = (Fault.REFUSE, Fault.LOSE_ANSWER, Fault.VANISH, Fault.TRUNCATE)[one % 4]
        # One lie at a time: what is the same wrong thing at two looks is believed (S-52).
        if not client.plan._scripts.get("get"):
            client.plan.script("get", [got], prefix="log/")
    if other % 5 == 0:
        client.plan.script("put", [put], prefix="data/")


def _crash(client: Client, one: int, other: int) -> None:
    client.crash()


def _restart(client: Client, one: int, other: int) -> None:
    client.restart()


def _at_once(work: Sequence[Callable[[], None]]) -> None:
    """Each in a thread of its own; raises what one of them raises."""
    errors: list[BaseException] = []

    def one(do: Callable[[], None]) -> None:
        try:
            do()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(do,), daemon=True) for do in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "a commit hangs"
    if errors:
        raise errors[0]


_OFTEN: tuple[Do, ...] = (
    _overwrite, _patch, _append, _truncate, _atomic_save, _rename, _unlink, _hold, _held_write,
    _held_close, _commit, _commit_together,
)  # fmt: skip
_SELDOM: tuple[Do, ...] = (
    _rename_directory, _mkdir, _mkdir, _rmdir, _remove_tree, _link, _symlink, _set_attributes,
    _remove_xattr, _held_cut, _held_fsync, _look, _cut_off, _come_back, _come_back, _fault, _crash,
    _restart,
)  # fmt: skip
KINDS = tuple((do.__name__.strip("_"), do) for do in (*_OFTEN * 3, *_SELDOM))


@contextmanager
def quick() -> Iterator[None]:
    """Who was cut off tries again soon, so that a schedule takes a second."""
    with ExitStack() as stack:
        for room in ("sync.committer", "data.upload"):
            stack.enter_context(mock.patch(f"lucid.{room}.PAUSE_FIRST_S", 0.002))
            stack.enter_context(mock.patch(f"lucid.{room}.PAUSE_MAX_S", 0.02))
        stack.enter_context(mock.patch("lucid.sync.publisher.PAUSE_S", 0.01))
        yield


def run(
    root: Path,
    steps: Sequence[Step],
    clients: int = 3,
    steered: bool = True,
    also: Callable[[Team], None] = lambda team: None,
) -> dict[str, int]:
    """Take the steps, make quiet, check; `also` sees the team before the first step. Returns how
    often each kind came to something. Raises Parted, Missing, and what no filespace may raise."""
    with quick():
        team = Team(root, clients, steered)
        try:
            also(team)
            for step in steps:
                kind, who, one, other = step
                team.take(*KINDS[kind % len(KINDS)], who, one, other)
            team.quiet()
            team.check()
            team.done["conflicts"] = sum("(conflict " in at for at, _ in names(team.clients[0].fs))
            return team.done
        except LucidError as error:
            raise Parted(f"{type(error).__name__}: {error}") from error
        finally:
            team.close()


def schedule(seed: int, length: int = 40) -> list[Step]:
    """Steps by a seed."""
    chance = Random(seed)
    numbers = (len(KINDS), 60, 60, 60)
    return [tuple(chance.randrange(each) for each in numbers) for _ in range(length)]  # type: ignore[misc]
