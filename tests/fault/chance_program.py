"""A program that does things by chance on a machine that will lose power, and what is to be left.

It writes down what it did. What is left is that played again, without the writes whose bytes are
gone and without what rests on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.fault.losing import OLD, OTHER, Losing
from tests.filespace.spaces import BLOCK, parts_of, some_bytes

NAMES = ["a", "b", "file", "other"]
"""So few that most of what is done meets something that was done before."""


@dataclass(eq=False)
class Node:
    """What a name leads to."""

    kind: str = "file"
    is_there: bool = True
    """Whether it is left in the end: it was made with bytes that are there, or got some later."""
    content: bytes = b""
    is_older: bool = False
    """Whether it lacks what was last written to it."""
    mode: int | None = None
    mtime_ns: int | None = None
    """None: that of its last write, whatever that was."""
    not_mtimes_ns: set[int] = field(default_factory=set)
    """Those that were set for bytes that are gone."""


@dataclass
class Names:
    """Paths and what they lead to."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def of(self, *kinds: str) -> list[str]:
        return sorted(path for path, node in self.nodes.items() if node.kind in kinds)

    def is_empty(self, path: str) -> bool:
        return not any(each.startswith(path + "/") for each in self.nodes)

    def move(self, old: str, new: str) -> None:
        moved = {path: node for path, node in self.nodes.items() if is_in(path, old)}
        kept = {
            path: node
            for path, node in self.nodes.items()
            if path not in moved and not is_in(path, new)
        }
        self.nodes = kept | {new + path[len(old) :]: node for path, node in moved.items()}


def is_in(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def padded(content: bytes, size: int) -> bytes:
    return content + bytes(max(0, size - len(content)))


class Program:
    """See the module."""

    def __init__(self, machine: Losing, seed: int) -> None:
        self.done: list[tuple[object, ...]] = []
        self._machine = machine
        self._chance = Random(seed)
        self._staging = machine.space.state("a") / "staging"
        self._known = set(self._staging.iterdir())
        self._begin = {"/file": Node(content=OLD), "/other": Node(content=OTHER)}
        self._seen = Names(dict(self._begin))
        self._again: list[Callable[[Names], None]] = []
        """What it did, as it is when what is lost never was."""

    def step(self) -> None:
        names = [self._rename] * 8 + [self._remove] * 3 + [self._link, self._mkdir, self._rmdir]
        bytes_ = [self._save] * 6 + [self._rewrite] * 4 + [self._create, self._delta]
        others = [self._truncate, self._symlink, self._chmod, self._utime, self._utime]
        self._chance.choice([*names, *bytes_, *others])()

    def left(self) -> dict[str, Node]:
        """What is to be there once what is lost is gone. To be asked for once."""
        names = Names(dict(self._begin))
        for again in self._again:
            again(names)
        return names.nodes

    # -- choosing

    def _place(self) -> str:
        top = self._chance.choice(["", "", "", *self._seen.of("dir")])
        return f"{top}/{self._chance.choice(NAMES)}"

    def _free(self) -> str | None:
        place = self._place()
        return None if place in self._seen.nodes else place

    def _some(self, *kinds: str) -> tuple[str, Node] | None:
        paths = self._seen.of(*kinds)
        if not paths:
            return None
        path = self._chance.choice(paths)
        return path, self._seen.nodes[path]

    def _bytes(self, blocks: int) -> bytes:
        return some_bytes(self._chance.randrange(1 << 40), blocks * BLOCK)

    def _is_kept(self) -> bool:
        """Whether the bytes that were sealed since the last time will be there. Most are not."""
        parts = parts_of(self._machine.fs)
        pending = [set(placed.segments) for placed in parts.order.all()]
        parts.staged.finish_for(set().union(*pending))
        fresh = set(self._staging.iterdir()) - self._known
        self._known |= fresh
        if not fresh or self._chance.random() < 0.3:
            return True
        self._machine.lost += sorted(fresh)
        return False

    # -- contents

    def _create(self) -> None:
        path = self._free()
        if path is not None:
            self._create_as(path)

    def _save(self) -> None:
        """Written beside what was there, and renamed over it, as most programs do."""
        path, some = self._free(), self._some("file", "symlink")
        if path is not None:
            self._create_as(path)
            if some is not None:
                self._rename_to(path, some[0])

    def _create_as(self, path: str) -> None:
        content = self._bytes(2)
        self._machine.fs.write_bytes(path, content)
        is_kept = self._is_kept()
        node = self._seen.nodes[path] = Node(is_there=is_kept)

        def again(names: Names) -> None:
            if node.is_there:
                names.nodes[path] = node
                node.content, node.is_older = content if is_kept else b"", not is_kept

        self._did(again, "create", path, is_kept)

    def _rewrite(self) -> None:
        some, content = self._some("file"), self._bytes(2)
        if some is not None:
            self._machine.fs.write_bytes(some[0], content)
            self._whole(*some, content, self._is_kept())

    def _whole(self, path: str, node: Node, content: bytes, is_kept: bool) -> None:
        """It needs nothing of what was there, so it brings a file back that is gone."""
        node.is_there |= is_kept

        def again(names: Names) -> None:
            node.is_older = not is_kept
            if is_kept:
                node.content, node.mtime_ns = content, None

        self._did(again, "rewrite", path, len(content), is_kept)

    def _changed(self, path: str, node: Node, change: Callable[[bytes], bytes]) -> None:
        """It rests on what was there."""
        is_kept = self._is_kept()

        def again(names: Names) -> None:
            if not is_kept:
                node.is_older = True
            if not node.is_older:
                node.content, node.mtime_ns = change(node.content), None

        self._did(again, "change", path, is_kept)

    def _delta(self) -> None:
        some, new = self._some("file"), self._bytes(1)
        at = self._chance.choice([0, 5, BLOCK])
        if some is None or (not at and self._machine.fs.stat(some[0]).size <= len(new)):
            return
        with self._machine.fs.open(some[0], "r+b") as file:
            file.seek(at)
            file.write(new)
        self._changed(*some, lambda old: padded(old, at)[:at] + new + old[at + len(new) :])

    def _truncate(self) -> None:
        some = self._some("file")
        size = self._chance.choice([0, 1, BLOCK, 3 * BLOCK])
        before = 0 if some is None else self._machine.fs.stat(some[0]).size
        if some is None or size == before or (size and not before):
            return
        self._machine.fs.truncate(some[0], size)
        if size:
            self._changed(*some, lambda old: padded(old, size)[:size])
        else:
            self._whole(*some, b"", self._is_kept())

    # -- names

    def _mkdir(self) -> None:
        path = self._free()
        if path is not None:
            self._machine.fs.mkdir(path)
            self._made(path, "dir")

    def _symlink(self) -> None:
        path = self._free()
        if path is not None:
            self._machine.fs.symlink("target", path)
            self._made(path, "symlink")

    def _made(self, path: str, kind: str) -> None:
        node = self._seen.nodes[path] = Node(kind)
        self._did(lambda names: names.nodes.update({path: node}), kind, path)

    def _link(self) -> None:
        some, new = self._some("file"), self._free()
        if some is None or new is None:
            return
        old, node = some
        self._machine.fs.link(old, new)
        self._seen.nodes[new] = node
        there = {new: node}
        self._did(
            lambda names: names.nodes.update(there if node.is_there else {}), "link", old, new
        )

    def _rename(self) -> None:
        some, new = self._some("file", "dir", "symlink"), self._place()
        if some is not None and not is_in(new, some[0]) and not is_in(some[0], new):
            self._rename_to(some[0], new)

    def _rename_to(self, old: str, new: str) -> None:
        node = self._seen.nodes[old]
        target = self._seen.nodes.get(new)
        if target is node or (target and (node.kind == "dir") != (target.kind == "dir")):
            return
        if target and target.kind == "dir" and not self._seen.is_empty(new):
            return
        self._machine.fs.rename(old, new)
        self._seen.move(old, new)

        def again(names: Names) -> None:
            # Of a file that is gone: what it had replaced there moves in its stead, if anything.
            if old in names.nodes:
                names.move(old, new)

        self._did(again, "rename", old, new)

    def _remove(self) -> None:
        some = self._some("file", "symlink")
        if some is not None:
            self._machine.fs.remove(some[0])
            self._removed(some[0])

    def _rmdir(self) -> None:
        some = self._some("dir")
        if some is not None and self._seen.is_empty(some[0]):
            self._machine.fs.rmdir(some[0])
            self._removed(some[0])

    def _removed(self, path: str) -> None:
        del self._seen.nodes[path]

        def again(names: Names) -> None:
            names.nodes.pop(path, None)

        self._did(again, "remove", path)

    # -- attributes

    def _chmod(self) -> None:
        some, mode = self._some("file", "dir"), self._chance.choice([0o600, 0o640, 0o755])
        if some is None:
            return
        path, node = some
        self._machine.fs.chmod(path, mode)

        def again(names: Names) -> None:
            node.mode = mode

        self._did(again, "chmod", path, oct(mode))

    def _utime(self) -> None:
        some, time_ns = self._some("file"), self._chance.randrange(10**18)
        if some is None:
            return
        path, node = some
        self._machine.fs.utime(path, time_ns, time_ns)

        def again(names: Names) -> None:
            if node.is_older:
                node.not_mtimes_ns.add(time_ns)
            else:
                node.mtime_ns = time_ns

        self._did(again, "utime", path, time_ns)

    def _did(self, again: Callable[[Names], None], *what: object) -> None:
        self._again.append(again)
        self.done.append(what)
