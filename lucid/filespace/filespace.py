"""`Filespace`: a whole file system without a mount, by paths; and how one is made and opened."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from contextlib import closing
from functools import partial

from lucid.config import Config
from lucid.crypto.passphrase import DEFAULT_STRETCH, Stretch
from lucid.crypto.suites import default_suite, suite_of_name
from lucid.errors import StoreError
from lucid.filespace import founding
from lucid.filespace.founding import Created
from lucid.filespace.known_device import is_known_device, url_file
from lucid.filespace.opening import AWAY, open_parts
from lucid.filespace.paths import PathApi
from lucid.filespace.place import make_directory
from lucid.filespace.surface import Progress, Status, Totals
from lucid.filespace.tree import Tree
from lucid.format.ops import RULES
from lucid.store.base import ObjectStore
from lucid.store.stack import StoreOptions, Timeouts, open_store
from lucid.types import Clock, Entropy, SystemClock, SystemEntropy

__all__ = ["BLOCK_SIZE", "Filespace", "change_passphrase", "connect", "init"]

BLOCK_SIZE = 128 * 1024
SHORT_LOOK = StoreOptions(Timeouts(connect_s=2.0, read_s=3.0), retry_s=1.0, attempts=3)
"""For a device that opens without the store if it must: about 3 s while the store hangs."""


def init(
    url: str,
    *,
    passphrase: str,
    name: str = "",
    block_size: int = BLOCK_SIZE,
    cipher: str | None = None,
    member: str = "",
    clock: Clock | None = None,
    entropy: Entropy = SystemEntropy,
    stretch: Stretch = DEFAULT_STRETCH,
    store: ObjectStore | None = None,
    rules: int = RULES,
) -> Created:
    """Make a filespace at `url` (s3://bucket/prefix or file:///directory).

    Returns its id and the recovery code, which is shown once and kept nowhere. `cipher` is
    "aegis-256" or "xchacha20-poly1305"; by default what is fast on this machine. With `rules` 1
    it can be opened by lucid 0.1 too, until something is restored in it. Raises
    FilespaceExists, StoreUnfit, BucketMissing, StoreDenied, StoreUnavailable, UsageError.
    """
    if store is None:
        make_directory(url)
    own = store or open_store(url, clock=clock, entropy=entropy)
    try:
        made = founding.create(
            own,
            name=name or url.rstrip("/").rsplit("/", 1)[-1],
            passphrase=passphrase,
            suite=suite_of_name(cipher) if cipher else default_suite(),
            block_size=block_size,
            member_label=member or _user(),
            clock=clock or SystemClock(),
            entropy=entropy,
            stretch=stretch,
            rules=rules,
        )
        # What this device has seen there was removed by hand, or there would be no room for it.
        url_file(own.url).unlink(missing_ok=True)
        return made
    finally:
        if store is None:
            own.close()


def connect(
    url: str,
    *,
    passphrase: str,
    config: Config | None = None,
    clock: Clock | None = None,
    entropy: Entropy = SystemEntropy,
    store: ObjectStore | None = None,
) -> Filespace:
    """Open the filespace at `url`; `passphrase` may be the recovery code.

    Raises FilespaceMissing, WrongPassphrase, StateInUse, and what the store raises. While the store
    is away, a device that has been here before opens what it knows after a few seconds, and goes
    online by itself.
    """
    config, clock = config or Config(), clock or SystemClock()
    look: Callable[[], StoreError | None] | None = None
    if store is None:
        options = StoreOptions(retry_s=config.read_timeout_s)
        store = open_store(url, clock=clock, entropy=entropy, options=options, check=False)
        look = partial(_why_away, store, url, config)
    opened = open_parts(store, passphrase, config, clock=clock, entropy=entropy, look=look)
    try:
        return Filespace(Tree(opened))
    except BaseException:
        opened.closing.close()
        raise


def _why_away(store: ObjectStore, url: str, config: Config) -> StoreError | None:
    """Look once whether the store is there; None if it is.

    A device that can do without it looks for a moment only, and goes on. Any other raises what the
    store raises.
    """
    if not is_known_device(store.url, config):
        store.check()
        return None
    try:
        with closing(open_store(url, options=SHORT_LOOK, check=False)) as look:
            look.check()
    except AWAY as error:
        return error
    return None


def change_passphrase(url: str, *, old: str, new: str, entropy: Entropy = SystemEntropy) -> None:
    """Open with `old` (passphrase or recovery code), and with `new` from now on.

    The recovery code stays as it is. Raises WrongPassphrase, FilespaceMissing, UsageError.
    """
    store = open_store(url, entropy=entropy)
    try:
        founding.change_passphrase(store, old, lambda: new, entropy=entropy)
    finally:
        store.close()


class Filespace(PathApi):
    """An open filespace, by paths. `tree` is the same by inode numbers.

    Safe from many threads. Use it as a context manager, or call `close`, which waits until
    everything is in the store::

        with lucid.connect("s3://bucket/team", passphrase="...") as fs:
            fs.write_bytes("/notes.txt", b"hello")
            print(fs.listdir("/"))
    """

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self.tree = tree

    def __enter__(self) -> Filespace:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(wait=exception[0] is None)

    @property
    def read_only(self) -> bool:
        return self.tree.read_only

    def sync(self, timeout: float | None = None) -> str:
        """Publish, upload and commit all that is pending; returns a token of the head."""
        return self.tree.sync(None, timeout)

    def wait(self, token: str, timeout: float = 60.0) -> int:
        """Return the head when everything is visible here that `sync` made this token for.

        Raises TimedOut, UsageError for what is no token of this filespace, HistoryFork.
        """
        return self.tree.others.wait(token, timeout)

    def refresh(self, timeout: float = 30.0) -> bool:
        """Read the log to its end now; False when that did not happen in time."""
        return self.tree.refresh(timeout)

    def totals(self) -> Totals:
        return self.tree.totals()

    def progress(self) -> Progress:
        return self.tree.progress()

    def status(self) -> Status:
        return self.tree.status()

    def close(
        self,
        *,
        wait: bool = True,
        timeout: float | None = None,
        report: Callable[[Progress], None] | None = None,
    ) -> Progress:
        """End everything. With `wait`, first bring all that is pending into the store; returns
        what remains, which the next open goes on with. Idempotent."""
        return self.tree.close(wait=wait, timeout=timeout, report=report)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "founder"
