"""What a drive must hold, as plain dictionaries and byte arrays.

A file knows, beside its bytes, every state it went through since it was last made durable: after
kill -9 it may have any of them, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lucid.filespace.surface import FileHandle

ROOT = 1
Place = tuple[int, bytes]
"""Directory and name."""


@dataclass(eq=False)
class ModelFile:
    """One file."""

    ino: int
    data: bytearray = field(default_factory=bytearray)
    mode: int = 0o644
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    public: bool = False
    """The log may know it: it is there after a crash, whatever its bytes."""
    flushed: bool = False
    """It had a FLUSH, so it is there after a crash."""
    since: list[bytes] = field(default_factory=list)
    """States that a crash may bring back: at the last FLUSH, and after each write since."""

    def changed(self) -> None:
        self.since.append(bytes(self.data))

    def durable(self) -> None:
        self.flushed = True
        self.since = [bytes(self.data)]

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if len(self.data) < end:
            self.data.extend(bytes(end - len(self.data)))
        self.data[offset:end] = data
        self.changed()

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))
        self.changed()


@dataclass(eq=False)
class OpenFile:
    """A handle that is open."""

    handle: FileHandle
    file: ModelFile
    writable: bool
    append: bool
    wrote: bool


@dataclass(eq=False)
class ModelDrive:
    """Names and what they lead to."""

    names: dict[Place, ModelFile] = field(default_factory=dict)
    open_files: list[OpenFile] = field(default_factory=list)

    def links(self, file: ModelFile) -> int:
        return sum(1 for other in self.names.values() if other is file)

    def writers(self, file: ModelFile) -> int:
        return sum(1 for one in self.open_files if one.file is file and one.writable)

    def published(self, file: ModelFile) -> None:
        """Its newest bytes are an op in the journal."""
        file.public = True
        file.durable()

    def in_directory(self, directory: int) -> dict[bytes, ModelFile]:
        return {name: file for (parent, name), file in self.names.items() if parent == directory}
