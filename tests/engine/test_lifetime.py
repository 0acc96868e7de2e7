"""Objects die in any order, at any time, without a word; and the package says what it lacks."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ANY_ORDER = """
import gc, itertools, os, sys
from pathlib import Path
from tests.engine.rig import BLOCK, Rig

root = Path(sys.argv[1])
for turn, order in enumerate(itertools.permutations(range(5))):
    if turn % 10:
        continue
    base = root / str(turn)
    base.mkdir()
    rig = Rig(base, frames=2)
    segment = rig.segment([BLOCK, 100])
    rig.put(segment)
    blockmap = rig.map([rig.row(segment)], BLOCK + 100)
    answer = rig.reader.read(blockmap, 10, BLOCK)
    view = memoryview(answer)
    frame = rig.pool.get(rig.cachemap.token(segment.slot), 0)
    plain = segment.plain[0][10:] + segment.plain[1][:10]
    rig.cachemap.close()
    objects = [rig, blockmap, answer, frame, view]
    del rig, blockmap, answer, frame
    for at in order:
        assert view is None or bytes(view) == plain
        if objects[at] is view:
            view = None
        objects[at] = None
        gc.collect()
"""

CYCLES = """
import gc, sys
from pathlib import Path
from tests.engine.rig import BLOCK, Rig

for turn in range(20):
    base = Path(sys.argv[1]) / str(turn)
    base.mkdir()
    rig = Rig(base, frames=2)
    segment = rig.segment([BLOCK])
    rig.put(segment)
    blockmap = rig.map([rig.row(segment)], BLOCK)
    answer = rig.reader.read(blockmap, 5, 10)
    loop = [rig, blockmap, answer, memoryview(answer), rig.pool.get(1, 1)]
    loop.append(loop)
    rig.cachemap.close()
    del rig, blockmap, answer, loop
gc.collect()
"""

AT_EXIT = """
import sys, threading
from pathlib import Path
from tests.engine.rig import BLOCK, Rig

rig = Rig(Path(sys.argv[1]), frames=2)
segment = rig.segment([BLOCK] * 4)
rig.put(segment)
blockmap = rig.map([rig.row(segment)], 4 * BLOCK)
kept = rig.reader.read(blockmap, 0, 10)
view = memoryview(kept)
rig.cachemap.close()
sys.modules["kept"] = view
"""


KEEPS_A_KEY = """
import sys
from lucid.engine.bulk import open_blocks, seal_blocks
from lucid.engine.cachemap import CacheMap
from lucid.engine.sodium import AdContext, open_, seal

masked = bytes.fromhex(sys.argv[1])
key = bytearray(32)

def step(word):
    key[:] = bytes(32)
    print(word, flush=True)
    sys.stdin.readline()
    for at in range(32):
        key[at] = masked[at] ^ 0xA5

ctx = AdContext(int(sys.argv[2]), b"data", bytes(16), bytes(16))
cachemap = CacheMap()
step("none")
sealed = seal(ctx, bytes(32), key, 0, 0, bytes(100_000))
assert open_(ctx, bytes(32), key, 0, 0, sealed) == bytes(100_000)
out = bytearray(200_000)
[length, _], _ = seal_blocks(ctx, bytes(32), key, 0, 0, [bytes(9), bytes(9)], out)
open_blocks(ctx, bytes(32), key, 0, 0, out[:length], [length], bytearray(9))
step("used")
slot = cachemap.acquire(bytes(32), key, ctx, 100)
step("held")
cachemap.release(slot)
step("freed")
cachemap.acquire(bytes(32), key, ctx, 100)
step("held")
cachemap.close()
step("closed")
"""


def memory_holds(pid: int, pattern: bytes) -> bool:
    """Whether these bytes stand anywhere in the writable memory of a process."""
    areas = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for area in areas:
            span, rights = area.split()[:2]
            if not rights.startswith("rw") or "[v" in area:
                continue
            start, end = (int(edge, 16) for edge in span.split("-"))
            memory.seek(start)
            if pattern in memory.read(end - start):
                return True
    return False


@pytest.mark.parametrize("suite", [1, 2])
def test_keys_are_wiped(suite: int) -> None:
    key = random.Random(suite).randbytes(32)
    masked = bytes(byte ^ 0xA5 for byte in key).hex()
    with subprocess.Popen(
        [sys.executable, "-c", KEEPS_A_KEY, masked, str(suite)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            for word in ["none", "used", "held", "freed", "held", "closed"]:
                assert child.stdout.readline() == word + "\n"
                try:
                    found = memory_holds(child.pid, key)
                except PermissionError:
                    pytest.skip("the memory of a child process may not be read here")
                assert found == (word == "held"), word
                child.stdin.write("\n")
                child.stdin.flush()
        finally:
            child.stdin.close()
            child.kill()


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("program", [ANY_ORDER, CYCLES, AT_EXIT], ids=["order", "cycles", "exit"])
def test_nothing_is_said_at_the_end(program: str, tmp_path: Path) -> None:
    done = run(program, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_extension_says_how_to_build() -> None:
    program = """
import sys
sys.modules["lucid.engine.reader"] = None
try:
    import lucid.engine
except ImportError as error:
    print(error)
"""
    done = run(program)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert "not built" in done.stdout
    assert "./build.sh" in done.stdout


def test_a_wrong_cipher_library_stops_the_import() -> None:
    program = """
import nacl.bindings, nacl._sodium as sodium

class Odd:
    sodium_init = staticmethod(lambda: -1)

sodium.lib, real = Odd, sodium.lib
import lucid.engine
"""
    done = run(program)
    assert done.returncode == 1
    assert "EngineError: libsodium could not be initialised" in done.stderr


def test_an_old_cipher_library_is_named() -> None:
    program = """
import nacl.bindings, nacl._sodium as sodium

class Old:
    sodium_init = staticmethod(lambda: 0)

class NoAddresses:
    def addressof(self, lib, name):
        raise AttributeError(name)

sodium.lib, sodium.ffi = Old, NoAddresses()
import lucid.engine
"""
    done = run(program)
    assert done.returncode == 1
    assert "lacks crypto_aead_aegis256_encrypt; PyNaCl >= 1.6 is needed" in done.stderr
