"""Batches against the reference, their bounds, and that they run beside other threads."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucid.engine.bulk import (
    BATCH_BLOCKS_MAX,
    digest_blocks,
    is_zero,
    open_blocks,
    seal_blocks,
)
from lucid.engine.errors import CorruptBlock
from lucid.engine.sodium import AdContext
from tests.engine import reference

BLOCK = 64 * 1024
OBJECT_ID, KEY = bytes(range(32)), bytes(range(32, 64))
FIELDS = (b"data", bytes(16), bytes(range(16)))

suites = pytest.mark.parametrize("suite", [1, 2])


def sealed_batch(suite: int, plaintexts: list[bytes]) -> tuple[AdContext, bytes, list[int]]:
    ctx = AdContext(suite, *FIELDS)
    out = bytearray(sum(map(len, plaintexts)) + len(plaintexts) * ctx.tag_bytes)
    lengths, _ = seal_blocks(ctx, OBJECT_ID, KEY, 100, 6, plaintexts, out)
    return ctx, bytes(out), lengths


@given(
    suite=st.sampled_from([1, 2]),
    plaintexts=st.lists(st.binary(max_size=200), max_size=8),
    first=st.integers(0, 2**63),
    flags=st.integers(0, 2**32 - 1),
)
def test_a_batch_is_its_blocks(suite: int, plaintexts: list[bytes], first: int, flags: int) -> None:
    ctx, other = AdContext(suite, *FIELDS), reference.Context(suite, *FIELDS)
    blocks = [
        reference.seal(other, OBJECT_ID, KEY, first + at, flags, plain)
        for at, plain in enumerate(plaintexts)
    ]
    size = sum(map(len, blocks))
    out = bytearray(size + 3)
    lengths, digests = seal_blocks(ctx, OBJECT_ID, KEY, first, flags, plaintexts, out)
    assert out == b"".join(blocks) + bytes(3)
    assert lengths == [len(block) for block in blocks]
    assert digests == [reference.digest16(block) for block in blocks]
    assert digest_blocks(out[:size], lengths) == digests
    back = bytearray(sum(map(len, plaintexts)) + 2)
    opened = open_blocks(ctx, OBJECT_ID, KEY, first, flags, out[:size], lengths, back)
    assert opened == len(back) - 2
    assert back == b"".join(plaintexts) + bytes(2)


@suites
@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_lengths_at_the_edges(suite: int, length: int) -> None:
    plain = [bytes(length), b"\x01" * length, bytes(length)]
    ctx, sealed, lengths = sealed_batch(suite, plain)
    back = bytearray(3 * length)
    assert open_blocks(ctx, OBJECT_ID, KEY, 100, 6, sealed, lengths, back) == 3 * length
    assert back == b"".join(plain)


@suites
def test_the_first_bad_block_is_named(suite: int) -> None:
    plain = [bytes(50)] * 5
    ctx, sealed, lengths = sealed_batch(suite, plain)
    for bad in range(5):
        altered = bytearray(sealed)
        for at in range(bad, 5, 2):
            altered[at * lengths[0] + 20] ^= 1
        with pytest.raises(CorruptBlock, match=f"block {bad} of the batch") as caught:
            open_blocks(ctx, OBJECT_ID, KEY, 100, 6, altered, lengths, bytearray(250))
        assert caught.value.index == bad
    for fields in [(bytes(32), KEY, 100, 6), (OBJECT_ID, KEY, 99, 6), (OBJECT_ID, KEY, 100, 7)]:
        with pytest.raises(CorruptBlock) as caught:
            open_blocks(ctx, *fields, sealed, lengths, bytearray(250))
        assert caught.value.index == 0


def test_a_block_shorter_than_its_tag_is_corrupt() -> None:
    ctx, sealed, lengths = sealed_batch(1, [b"abc", b""])
    with pytest.raises(CorruptBlock) as caught:
        open_blocks(ctx, OBJECT_ID, KEY, 100, 6, sealed[:-1], [35, 31], bytearray(10))
    assert caught.value.index == 1
    assert lengths == [35, 32]


def test_buffers_are_checked_before_anything_is_done() -> None:
    ctx, sealed, lengths = sealed_batch(1, [b"abc", b"defg"])
    call = (ctx, OBJECT_ID, KEY, 100, 6)
    with pytest.raises(ValueError, match="out has 70 bytes, 71 are needed"):
        seal_blocks(*call, [b"abc", b"defg"], bytearray(70))
    with pytest.raises(ValueError, match="out has 6 bytes, 7 are needed"):
        open_blocks(*call, sealed, lengths, bytearray(6))
    with pytest.raises(ValueError, match="the lengths sum to 35"):
        open_blocks(*call, sealed, lengths[:1], bytearray(10))
    for wrong in ([35, 37], [-1, 72], [2**33, 0]):
        with pytest.raises(ValueError, match="does not fit"):
            open_blocks(*call, sealed, wrong, bytearray(10))
        with pytest.raises(ValueError, match="does not fit"):
            digest_blocks(sealed, wrong)
    with pytest.raises(BufferError):
        seal_blocks(*call, [b"abc"], bytes(100))
    with pytest.raises(BufferError):
        open_blocks(*call, sealed, lengths, bytes(10))
    gaps = memoryview(bytearray(200))[::2]
    with pytest.raises(BufferError):
        seal_blocks(*call, [gaps], bytearray(300))
    with pytest.raises(BufferError):
        seal_blocks(*call, [b"abc"], gaps)
    with pytest.raises(BufferError):
        open_blocks(*call, gaps, [100], bytearray(100))
    with pytest.raises(BufferError):
        digest_blocks(gaps, [100])
    with pytest.raises(ValueError, match="object_id"):
        open_blocks(ctx, b"", KEY, 100, 6, sealed, lengths, bytearray(10))
    with pytest.raises(ValueError, match="key"):
        seal_blocks(ctx, OBJECT_ID, b"", 100, 6, [b"abc"], bytearray(100))


def test_never_in_place() -> None:
    ctx = AdContext(1, *FIELDS)
    both = bytearray(300)
    view = memoryview(both)
    with pytest.raises(ValueError, match="plaintext 0 overlaps out"):
        seal_blocks(ctx, OBJECT_ID, KEY, 0, 0, [view[:10]], view[9:200])
    with pytest.raises(ValueError, match="sealed overlaps out"):
        open_blocks(ctx, OBJECT_ID, KEY, 0, 0, view[:50], [50], view[49:])
    seal_blocks(ctx, OBJECT_ID, KEY, 0, 0, [view[:10]], view[10:52])


def test_a_batch_is_bounded_and_its_ordinals_exist() -> None:
    ctx = AdContext(1, *FIELDS)
    too_many = [b""] * (BATCH_BLOCKS_MAX + 1)
    with pytest.raises(ValueError, match="at most"):
        seal_blocks(ctx, OBJECT_ID, KEY, 0, 0, too_many, bytearray())
    with pytest.raises(ValueError, match="at most"):
        open_blocks(ctx, OBJECT_ID, KEY, 0, 0, b"", [0] * len(too_many), bytearray())
    with pytest.raises(ValueError, match="at most"):
        digest_blocks(b"", [0] * len(too_many))
    out = bytearray(64)
    seal_blocks(ctx, OBJECT_ID, KEY, 2**64 - 2, 0, [b"", b""], out)
    with pytest.raises(ValueError, match="ordinals run over"):
        seal_blocks(ctx, OBJECT_ID, KEY, 2**64 - 1, 0, [b"", b""], out)
    with pytest.raises(ValueError, match="ordinals run over"):
        open_blocks(ctx, OBJECT_ID, KEY, 2**64 - 1, 0, out, [32, 32], bytearray())


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 127, 128, 129, 4096, BLOCK, BLOCK + 1])
def test_zeros(length: int) -> None:
    assert is_zero(bytes(length))
    for at in {0, length // 2, length - 1, 63, 64} & set(range(length)):
        data = bytearray(length)
        data[at] = 1
        assert not is_zero(data)
    with pytest.raises(BufferError):
        is_zero(memoryview(bytes(10))[::2])


def test_two_threads_open_at_once_without_the_gil() -> None:
    """This thread sees both others inside of their calls, so none of the three held the GIL.

    With a switch interval of a minute a thread lets the GIL go only where it does so on purpose:
    here inside of open_blocks, between the two marks.
    """
    ctx, sealed, lengths = sealed_batch(1, [bytes(BLOCK)] * 64)
    inside = [False, False]
    stop = threading.Event()

    def work(number: int) -> None:
        out = bytearray(64 * BLOCK)
        while not stop.is_set():
            inside[number] = True
            open_blocks(ctx, OBJECT_ID, KEY, 100, 6, sealed, lengths, out)
            inside[number] = False

    workers = [threading.Thread(target=work, args=(n,), name=f"opener-{n}") for n in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    seen = 0
    try:
        with Path(os.devnull).open("wb", buffering=0) as nowhere:
            for worker in workers:
                worker.start()
            deadline = time.perf_counter() + 20
            while seen < 20 and time.perf_counter() < deadline:
                seen += inside == [True, True]
                # Lets the GIL go for a moment, so that a worker that came back can go on.
                nowhere.write(b".")
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for worker in workers:
            worker.join(30)
    assert not any(worker.is_alive() for worker in workers)
    assert seen == 20
