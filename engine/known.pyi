"""What names lead to and what stat(2) says of inodes, for answers without the GIL.

Any thread that holds the GIL may call.
"""

from typing import final

from typing_extensions import Self

SET_COUNT: int
"""Sets of four entries, of each of the two tables."""
LONGEST_NAME: int
"""Bytes of the longest name that is kept."""

@final
class KnownTable:
    """Attributes by inode, inodes by (directory, name). Keeps nothing before `begin`.

    Attributes are (ino, mode, nlink, uid, gid, rdev, size, 512-byte blocks, atime_ns, mtime_ns,
    ctime_ns). Invariant for whoever fills it: each change is told before anybody is answered from
    what it made; a ticket is taken before looking.
    """

    def __new__(cls) -> Self: ...
    def begin(self) -> None:
        """Answers are kept from now on. Without memory for them it goes on keeping none."""

    def end(self) -> None:
        """Forgets all, and keeps nothing any more."""

    def ticket(self) -> int:
        """To be handed in with what is found from now on."""

    def keep(self, ticket: int, attributes: tuple[int, ...]) -> bool:
        """Attributes were found. False: not kept, for the inode may have changed meanwhile, or they
        are none that stat(2) has room for."""

    def keep_name(self, ticket: int, parent: int, name: bytes, ino: int) -> bool:
        """A name leads to this inode. False: not kept; see `keep`."""

    def changed(self, ino: int) -> None:
        """What was known of an inode is not true any more."""

    def name_changed(self, key: tuple[int, bytes]) -> None:
        """A name, (directory, name), leads elsewhere or nowhere, or somewhere again."""

    def all_changed(self) -> None:
        """Nothing that was known is true any more."""

    def inode(self, ino: int) -> tuple[int, ...] | None:
        """The attributes of an inode; None: ask elsewhere."""

    def name(self, parent: int, name: bytes) -> tuple[int, ...] | None:
        """The attributes of the inode that a name leads to; None: ask elsewhere."""

    def stats(self) -> dict[str, int]:
        """hits, passes."""
