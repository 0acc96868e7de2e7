"""A collection on a real S3 server: what a list says of times, deleting by hundreds, and a new
device after that (S-602, S-603, S-604)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lucid.config import Config
from lucid.filespace import Filespace, connect, init
from lucid.filespace.collecting import collect
from lucid.filespace.fsck import check
from lucid.store import open_store
from lucid.store.base import ObjectInfo, ObjectStore, StoreLayer
from tests.filespace.checkpoints import EVERY, SETTINGS, write_until
from tests.filespace.spaces import BLOCK, PASSPHRASE, STRETCH, WAIT_S, some_bytes
from tests.seaweed import S3Server, s3_server

__all__ = ["s3_server"]

DAY_NS = 86_400 * 10**9


class Older(StoreLayer):
    """A store that was written eight days ago, and its data some hours before that."""

    def over(self, inner: ObjectStore) -> ObjectStore:
        return Older(inner)

    def list(
        self, prefix: str, start_after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return map(_older, self.inner.list(prefix, start_after, limit))

    def stat(self, key: str) -> ObjectInfo:
        return _older(self.inner.stat(key))


def _older(info: ObjectInfo) -> ObjectInfo:
    by = 8 * DAY_NS + (DAY_NS // 8 if info.key.startswith("data/") else 0)
    return ObjectInfo(info.key, info.size, info.modified_ns - by)


def opened(url: str, state: Path) -> Filespace:
    return connect(url, passphrase=PASSPHRASE, config=Config(state_dir=state, **SETTINGS))


@pytest.mark.slow
def test_on_a_real_server(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3_server.make_bucket()}/team?addressing=path"
    init(url, passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH)
    with opened(url, tmp_path / "a") as fs:
        write_until(fs, EVERY + 2)
        for seed in range(EVERY):
            fs.write_bytes("/plan", some_bytes(seed, 5000))
            fs.sync(timeout=WAIT_S)
        write_until(fs, 3 * EVERY + 2)
    store = Older(open_store(url))
    try:
        shown = collect(url, PASSPHRASE, store=store, every=EVERY)
        done = collect(url, PASSPHRASE, store=store, every=EVERY, delete=True)
        assert done.segments == shown.segments and done.segments.count >= EVERY - 2
        assert done.log.count == done.first_entry - 2 >= 2 * EVERY
        assert done.checkpoints.count
        again = collect(url, PASSPHRASE, store=store, every=EVERY, delete=True)
        assert again.log.count <= 4
    finally:
        store.close()
    with opened(url, tmp_path / "new") as fs:
        assert fs.read_bytes("/plan") == some_bytes(EVERY - 1, 5000)
        assert "Begun from checkpoint" in fs.status().checkpoint_notes[0]
    assert check(url, PASSPHRASE, read_data=True).clean


@pytest.mark.slow
def test_a_repack_on_a_real_server(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-613, S-614: the store shrinks, and every byte reads the same."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3_server.make_bucket()}/team?addressing=path"
    init(url, passphrase=PASSPHRASE, block_size=BLOCK, stretch=STRETCH)
    contents = {}
    store = Older(open_store(url))
    try:
        with opened(url, tmp_path / "a") as fs:
            for seed in range(4):
                first, later = some_bytes(seed, 8 * BLOCK), some_bytes(10 + seed, 6 * BLOCK)
                fs.write_bytes(f"/{seed}", first)
                fs.sync(timeout=WAIT_S)
                with fs.open(f"/{seed}", "r+b") as file:
                    file.seek(2 * BLOCK)
                    file.write(later)
                fs.sync(timeout=WAIT_S)
                contents[f"/{seed}"] = first[: 2 * BLOCK] + later
            fs.write_bytes("/last", b"last")
            fs.sync(timeout=WAIT_S)
            shown = collect(url, PASSPHRASE, store=store)
            done = collect(url, PASSPHRASE, store=store, delete=True)
            assert done.repacked == shown.repacked and done.repacked.count == 4
            full = _stored(store)
            # To this store all that is there is old, what was just written too.
            assert collect(url, PASSPHRASE, store=store, delete=True).segments.count == 4
            assert _stored(store) < full - 4 * 6 * BLOCK
            assert fs.refresh(WAIT_S)
            for path, content in contents.items():
                assert fs.read_bytes(path) == content
    finally:
        store.close()
    with opened(url, tmp_path / "new") as fs:
        for path, content in contents.items():
            assert fs.read_bytes(path) == content
    assert check(url, PASSPHRASE, read_data=True).clean


def _stored(store: ObjectStore) -> int:
    return sum(info.size for info in store.list("data/"))
