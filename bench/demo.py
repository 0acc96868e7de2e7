"""`./build.sh demo`: the main job, start to end, on the embedded directory store.

Makes a filespace, mounts it, copies a source tree and a large film into it, unmounts; then mounts
it as another machine would, with an empty state directory, and seeks into the middle of the film:
what is read is fetched, block by block, and nothing else. Everything is in a temporary directory
that is gone at the end. Uses only the `lucid` command, and ffmpeg for the film where there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MiB = 1 << 20
FILM_BYTES = 200 * MiB
FILM_SECONDS = 15
COMMAND_S = 600
LOOK_S = 0.5
SKIPPED = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__", "*.so", "*.a")


def say(text: str = "") -> None:
    print(text, flush=True)


def show_rate(what: str, seconds: float, size: int, files: int = 1) -> None:
    each = f", {files / seconds:,.0f} files/s" if files > 1 else ""
    say(f"  {what:<34} {seconds:6.2f} s   {size / seconds / 1e6:7.1f} MB/s{each}")


@contextmanager
def timed() -> Iterator[list[float]]:
    """The list holds the seconds afterwards."""
    took: list[float] = []
    began = time.perf_counter()
    yield took
    took.append(time.perf_counter() - began)


class Demo:
    """One run in a directory of its own."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.store = f"file://{top}/store"
        self.drive = top / "drive"
        (top / "store").mkdir()
        self.drive.mkdir()
        self.environment = os.environ | {
            "LUCID_PASSPHRASE": secrets.token_urlsafe(16),
            "XDG_RUNTIME_DIR": str(top),
        }

    def lucid(self, *arguments: object) -> str:
        command = [sys.executable, "-m", "lucid", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, text=True,
            timeout=COMMAND_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"demo: {' '.join(map(str, arguments[:1]))} failed")
        return done.stdout

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.lucid("status", self.drive, "--json"))
        return answer

    def mount(self, machine: str) -> None:
        with timed() as took:
            self.lucid("mount", self.store, self.drive, "--state-dir", self.top / machine)
        say(f"  mounted by {machine:<23} {took[0]:6.2f} s")

    def umount(self) -> None:
        with timed() as took:
            self.lucid("umount", self.drive)
        say(f"  unmounted, all in the store        {took[0]:6.2f} s")


def make_film(path: Path) -> None:
    """A real film of FILM_BYTES or more, its index at the end; noise keeps it from being small."""
    picture = f"testsrc2=size=1280x720:rate=25:duration={FILM_SECONDS},noise=alls=40:allf=t"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", picture]
    command += ["-f", "lavfi", "-i", f"sine=frequency=440:duration={FILM_SECONDS}"]
    command += ["-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p", "-c:a", "aac", str(path)]
    if shutil.which("ffmpeg") is None:
        say("  ffmpeg is not installed; random bytes stand in for the film")
        path.write_bytes(os.urandom(FILM_BYTES))
        return
    with subprocess.Popen(command) as process:
        until = time.monotonic() + COMMAND_S
        while not is_over(process):
            show_growth(path)
            if time.monotonic() > until:
                process.kill()
    if process.returncode:
        raise SystemExit(f"demo: ffmpeg ended with status {process.returncode}")
    if path.stat().st_size < FILM_BYTES:
        raise SystemExit(f"demo: the film came out too small ({path.stat().st_size} bytes)")


def is_over(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended, after waiting a moment for that."""
    try:
        process.wait(LOOK_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def show_growth(path: Path) -> None:
    """How far the film is, on one line that the next thing said writes over."""
    if sys.stdout.isatty() and path.exists():
        done = path.stat().st_size
        print(f"  a film: {done // MiB} of about {FILM_BYTES // MiB} MiB", end="\r", flush=True)


def digests(top: Path) -> dict[str, str]:
    """Relative path -> digest of the content, for a whole tree."""
    return {
        str(path.relative_to(top)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(top.rglob("*"))
        if path.is_file()
    }


def prepare(demo: Demo, film: Path) -> None:
    say("Preparing")
    with timed() as took:
        make_film(film)
    show_rate(f"a film is made ({film.stat().st_size // MiB} MiB)", took[0], film.stat().st_size)
    with timed() as took:
        demo.lucid("init", demo.store, "--name", "Demo")
    say(f"  a filespace is made in a directory {took[0]:6.2f} s")


def fill(demo: Demo, source: Path, film: Path) -> dict[str, str]:
    """Copies a tree and the film into the drive; the digests of the tree."""
    say("\nA machine fills the drive")
    demo.mount("machine-1")
    with timed() as took:
        shutil.copytree(source, demo.drive / "source", ignore=SKIPPED, symlinks=True)
    wanted = digests(demo.drive / "source")
    size = sum((demo.drive / "source" / name).stat().st_size for name in wanted)
    show_rate(f"{len(wanted):,} source files ({size // MiB} MiB)", took[0], size, len(wanted))
    with timed() as took:
        shutil.copyfile(film, demo.drive / "film.mp4")
    show_rate(f"a film ({film.stat().st_size // MiB} MiB)", took[0], film.stat().st_size)
    demo.umount()
    return wanted


def seek(demo: Demo, film: Path) -> None:
    """Looks into the middle of the film, first one byte, then as a player does."""
    seen = demo.drive / "film.mp4"
    middle = film.stat().st_size // 2
    before = demo.status()
    with timed() as took:
        fd = os.open(seen, os.O_RDONLY)
        piece = os.pread(fd, 4096, middle)
        os.close(fd)
    with film.open("rb") as original:
        original.seek(middle)
        if original.read(4096) != piece:
            raise SystemExit("demo: the bytes from the middle are not those that were written")
    say(f"  first byte from the middle         {took[0] * 1000:6.1f} ms")
    show_fetched(before, demo.status())
    if shutil.which("ffmpeg") is None:
        return
    before = demo.status()
    with timed() as took:
        show_frame(demo, seen)
    say(f"  ffprobe, and a frame from the middle {took[0]:4.2f} s")
    show_fetched(before, demo.status())


def show_frame(demo: Demo, seen: Path) -> None:
    probe = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", seen]
    duration = float(subprocess.run(probe, check=True, capture_output=True, timeout=60).stdout)
    frame = demo.top / "frame.png"
    command = ["ffmpeg", "-v", "error", "-ss", str(duration / 2), "-i", seen]
    subprocess.run([*command, "-frames:v", "1", frame], check=True, timeout=60)
    if not frame.stat().st_size:
        raise SystemExit("demo: no frame came out of the film")


def show_fetched(before: dict[str, Any], after: dict[str, Any]) -> None:
    fetched = after["bytes_fetched"] - before["bytes_fetched"]
    requests = after["requests"].get("get", 0) - before["requests"].get("get", 0)
    noun = "request" if requests == 1 else "requests"
    say(f"    fetched from the store: {fetched / MiB:.2f} MiB in {requests} {noun}")


def look(demo: Demo, wanted: dict[str, str], film: Path) -> None:
    say("\nAnother machine, with nothing of it on its disk")
    demo.mount("machine-2")
    seek(demo, film)
    with timed() as took:
        found = digests(demo.drive / "source")
    size = sum((demo.drive / "source" / name).stat().st_size for name in found)
    show_rate("all source files, first read", took[0], size, len(found))
    if found != wanted:
        raise SystemExit("demo: the files that came back are not those that were written")
    for what in ("the whole film, first read", "the whole film, from the cache"):
        subprocess.run(["sh", "-c", "echo 1 > /proc/sys/vm/drop_caches"], check=False)
        with timed() as took:
            digest = digest_of(demo.drive / "film.mp4")
        show_rate(what, took[0], film.stat().st_size)
        if digest != digest_of(film):
            raise SystemExit("demo: the film that came back is not the one that was written")
    demo.umount()


def digest_of(path: Path) -> bytes:
    digest = hashlib.blake2b()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(MiB):
            digest.update(piece)
    return digest.digest()


def check_store(demo: Demo) -> None:
    say("\nWhat lies in the store")
    found = json.loads(demo.lucid("fsck", demo.store, "--json"))
    say(f"  {found['entries']:,} log entries, {found['segments']:,} segments, "
        f"{found['segment_bytes'] / MiB:.0f} MiB, all of it sealed")  # fmt: skip
    if not found["clean"]:
        raise SystemExit(f"demo: fsck found: {found['problems']}")
    say("  lucid fsck: everything is as it should be")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=Path(sysconfig.get_path("stdlib")))
    chosen = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="lucid-demo."))
    demo = Demo(top)
    try:
        prepare(demo, top / "film.mp4")
        wanted = fill(demo, chosen.source, top / "film.mp4")
        look(demo, wanted, top / "film.mp4")
        check_store(demo)
    finally:
        if demo.drive.is_mount():
            demo.lucid("umount", "--no-wait", demo.drive)
        shutil.rmtree(top, ignore_errors=True)
    say("\nDone; nothing is left behind.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
