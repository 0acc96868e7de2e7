"""What names lead to and what stat(2) says of inodes, for answers without the GIL.

Any thread that holds the GIL may call.
"""

from typing import final

from typing_extensions import Self

SET_COUNT: int
"""Sets of four entries, of each of the two tables."""
DIRECTORY_COUNT: int
"""New directories of which all names are known at once."""
HASH_COUNT: int
"""Names that are known in all of them."""
NO_FLOOR: int
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

    def keep(self, ticket: int, attributes: tuple[int, ...], floor_ns: int = NO_FLOOR) -> bool:
        """Attributes were found. False: not kept, for the inode may have changed meanwhile, or they
        are none that stat(2) has room for.

        floor_ns: of a directory, when its mtime was set last. `directory_touched` at a later time
        moves mtime and ctime.
        """

    def keep_name(self, ticket: int, parent: int, name: bytes, ino: int) -> bool:
        """A name leads to this inode. False: not kept; see `keep`."""

    def changed(self, ino: int) -> None:
        """What was known of an inode is not true any more."""

    def directory_touched(self, ino: int, time_ns: int, subdirectories: int) -> None:
        """A name in it changed at this time, and it has so many subdirectories more."""

    def directory_is_new(self, ino: int) -> None:
        """It was just made: no name was ever in it, and every one that comes is told. REQUIRES: it
        holds no private name."""

    def name_changed(self, key: tuple[int, bytes], is_private: bool = False) -> None:
        """A name, (directory, name), leads elsewhere or nowhere, or somewhere again.

        is_private: only this machine has it.
        """

    def all_changed(self) -> None:
        """Nothing that was known is true any more."""

    def inode(self, ino: int) -> tuple[int, ...] | None:
        """The attributes of an inode; None: ask elsewhere."""

    def name(self, parent: int, name: bytes) -> tuple[int, ...] | None:
        """The attributes of the inode that a name leads to; None: ask elsewhere."""

    def is_absent(self, parent: int, name: bytes) -> bool:
        """Whether a name is known to lead nowhere; False: ask elsewhere."""

    def stats(self) -> dict[str, int]:
        """hits, passes."""
