"""The stores that the conformance suite runs on, bare and under the whole stack."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lucid.store import ObjectStore, open_store
from lucid.store.base import StoreLayer
from lucid.store.directory import DirectoryStore
from lucid.store.memory import Bucket, MemoryStore
from lucid.store.stack import StoreOptions, stack_store
from tests.seaweed import S3Server

__all__ = ["KINDS", "Opener", "bare_of", "openers"]

KINDS = ("memory", "directory", "s3")
OPTIONS = StoreOptions(requests=16, reserved=4, retry_s=20.0)
Opener = Callable[[], ObjectStore]
_numbers = itertools.count()


def bare_of(store: ObjectStore) -> ObjectStore:
    """The store below all decorators."""
    while isinstance(store, StoreLayer):
        store = store.inner
    return store


def openers(
    kind: str, is_stacked: bool, request: pytest.FixtureRequest, folder: Path
) -> Iterator[Opener]:
    """Yield what opens one more client of one and the same, empty, store; close them at the end."""
    opened: list[ObjectStore] = []
    make = _maker(kind, request, folder)

    def open_one() -> ObjectStore:
        bare = make()
        store = stack_store(bare, options=OPTIONS) if is_stacked else bare
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


def _maker(kind: str, request: pytest.FixtureRequest, folder: Path) -> Opener:
    if kind == "memory":
        bucket = Bucket()
        return lambda: MemoryStore(bucket)
    if kind == "directory":
        return lambda: DirectoryStore(folder)
    server: S3Server = request.getfixturevalue("s3_server")
    environment = pytest.MonkeyPatch()
    request.addfinalizer(environment.undo)
    for name, value in server.environment().items():
        environment.setenv(name, value)
    url = f"s3://{_shared_bucket(server)}/run-{next(_numbers)}?addressing=path"
    return lambda: bare_of(open_store(url, check=False))


_buckets: dict[str, str] = {}


def _shared_bucket(server: S3Server) -> str:
    """One bucket for all tests of a run: each test has a prefix of its own in it."""
    if server.endpoint not in _buckets:
        _buckets[server.endpoint] = server.make_bucket()
    return _buckets[server.endpoint]
