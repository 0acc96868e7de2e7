"""The one door from the command line to lucid.filespace. Imported late: it loads half the package.

What a command needs of a filespace it calls here, so that a test can put another behind the door.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lucid.config import Config, parse_size
from lucid.errors import UsageError

if TYPE_CHECKING:
    from lucid.filespace import Filespace
    from lucid.filespace.collection import Collection
    from lucid.filespace.fsck import FsckReport
    from lucid.filespace.lost_found import LostFound
    from lucid.filespace.repairing import Repair
    from lucid.filespace.surface import Surface
    from lucid.store import ObjectStore

__all__ = [
    "CIPHERS",
    "block_size",
    "change_passphrase",
    "check",
    "check_free",
    "check_there",
    "collect",
    "create",
    "lost_found",
    "missing_directory",
    "open_surface",
    "repair",
    "resend",
    "tidy",
]

CIPHERS = ("aegis-256", "xchacha20-poly1305")
BLOCK_SIZES = tuple(1 << bits for bits in range(16, 21))


def tidy(store: str) -> str:
    """The URL of a store in the one form that is shown and compared. Raises UsageError."""
    if not store.startswith(("s3://", "file:///")):
        raise UsageError(f"{store} is no store. Write s3://bucket/prefix or file:///directory.")
    if store.startswith("s3://"):
        from lucid.store.s3_url import S3Location

        S3Location.parse(store)
    return store.rstrip("/") if store != "file:///" else store


def block_size(text: str) -> int:
    """Raises UsageError."""
    size = parse_size(text)
    if size not in BLOCK_SIZES:
        raise UsageError(f"A block is 64K, 128K, 256K, 512K or 1M, not {text}.")
    return size


def missing_directory(store: str) -> Path | None:
    """The directory that `create` will make first; None if there is none to make."""
    from lucid.filespace.place import directory_of

    path = directory_of(store)
    try:
        return None if path is None or path.exists() else path
    except OSError:
        return None  # `create` says why


def check_there(store: str, config: Config | None = None) -> None:
    """What can be told of a store without a passphrase or a network: is its directory there?

    With `config`, a device that has mounted it before may do without. Raises BucketMissing,
    StoreDenied.
    """
    missing = missing_directory(store)
    if missing is None:
        return
    if config is not None:
        from lucid.filespace.known_device import is_known_device

        if is_known_device(missing.as_uri(), config):
            return
    _look_at(store)


def check_free(store: str) -> None:
    """Whether a new filespace can be made in a directory; tells nothing of a bucket.

    Raises BucketMissing, StoreDenied, FilespaceExists.
    """
    from lucid.filespace import place

    path = place.directory_of(store)
    if path is None:
        return
    with suppress(OSError):  # making it says why
        if not path.is_dir():
            place.check_parent(store)
            return
    _look_at(store, place.check_free)


def _look_at(store: str, look: Callable[[ObjectStore], None] | None = None) -> None:
    from lucid.store import open_store

    with closing(open_store(store)) as opened:
        if look is not None:
            look(opened)


def create(
    store: str, *, name: str, passphrase: str, block_size: int, cipher: str | None
) -> dict[str, Any]:
    """A new filespace: {"filespace", "recovery_code", "warnings"}."""
    from lucid.filespace import init

    made = init(store, name=name, passphrase=passphrase, block_size=block_size, cipher=cipher)
    return {
        "filespace": made.filespace,
        "recovery_code": made.recovery_code,
        "warnings": list(made.warnings),
    }


def open_surface(store: str, passphrase: str, config: Config) -> Surface:
    """Opens a filespace for a mount."""
    from lucid.filespace import connect

    return connect(store, passphrase=passphrase, config=config).tree


def change_passphrase(store: str, *, old: str, new: Callable[[], str]) -> None:
    """Wraps the member's keys with another passphrase; `new` is asked when `old` has opened."""
    from lucid.filespace import founding
    from lucid.store import open_store
    from lucid.types import SystemEntropy

    with closing(open_store(store)) as opened:
        founding.change_passphrase(opened, old, new, entropy=SystemEntropy)


def check(
    store: str, passphrase: str, *, read_data: bool, report: Callable[[str, int, int | None], None]
) -> FsckReport:
    """Looks through a filespace and changes nothing."""
    from lucid.filespace.fsck import check

    return check(store, passphrase, read_data=read_data, report=report)


def collect(
    store: str,
    passphrase: str,
    *,
    delete: bool,
    retention_s: int,
    repack_below: float,
    repack_max: int,
    report: Callable[[str, int, int | None], None],
) -> Collection:
    """Looks for what can be freed, and frees it if told to."""
    from lucid.filespace.collecting import collect

    return collect(
        store, passphrase, delete=delete, retention_s=retention_s, repack_below=repack_below,
        repack_max=repack_max, report=report,
    )  # fmt: skip


def repair(store: str, passphrase: str, config: Config) -> Repair:
    """A repair of the state directory that belongs to a store; nothing is done yet."""
    from lucid.filespace.repairing import Repair
    from lucid.store import open_store

    return Repair(lambda: open_store(store), passphrase, config)


def resend(surface: Filespace, report: Callable[[str, int, int | None], None]) -> int:
    """Gives back to the store what it lost and the cache has; the number of segments."""
    from lucid.filespace.resending import resend

    return resend(surface, report)


def lost_found(surface: Filespace, *, all_orphans: bool) -> LostFound:
    """A look for segments that no entry names; nothing is done yet."""
    from lucid.filespace.lost_found import LostFound

    return LostFound(surface, all_orphans=all_orphans)
