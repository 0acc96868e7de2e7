"""What every test gets: a home of its own, a clean environment, and a check of what it leaves.

A test that leaves a thread of lucid, a mount, or an unclosed resource behind fails itself, not one
that comes later. Tests run in the main thread of pytest; nothing here is shared between processes.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import threading
import time
from collections.abc import Generator, Iterator
from importlib import import_module
from itertools import count
from pathlib import Path

import hypothesis
import pytest

QUICK_S = 0.05
GRACE_S = 3.0
"""How long threads and mounts of a test may take to go after its last line."""

FOREIGN_SETTINGS = ("AWS_", "LUCID_", "XDG_", "BOTO_")
OUR_SETTINGS = ("LUCID_EXAMPLES", "LUCID_ON_S3")
_home_number = count()

# No clocks: a busy machine is slow at making examples too.
hypothesis.settings.register_profile(
    "lucid",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("lucid")


def pytest_configure(config: pytest.Config) -> None:
    """Before any session fixture: nothing of the caller's settings reaches a test."""
    foreign = {name for name in os.environ if name.startswith(FOREIGN_SETTINGS)}
    for name in foreign.difference(OUR_SETTINGS):
        del os.environ[name]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what runs in the background so, and every program of a test would inherit
        # it: nobody could interrupt one.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # The same, by nohup.


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays: later collections need not look through it each time."""
    gc.collect()
    gc.freeze()


def why_no_mount() -> str | None:
    """The precise reason for which no file system can be mounted here, or None."""
    try:
        import_module("llfuse")
    except ImportError as error:
        return f"llfuse does not load: {error}"
    if shutil.which("fusermount") is None:
        return "fusermount is missing: install fuse3 (or fuse)"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `mount` skip where no mount can be, but never on CI."""
    if item.get_closest_marker("mount") is None:
        return
    reason = why_no_mount()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must be able to mount: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def own_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An empty home directory; HOME and the XDG directories lie in it."""
    home = tmp_path_factory.getbasetemp() / f"home{next(_home_number)}"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    for variable, place in {
        "XDG_CONFIG_HOME": ".config",
        "XDG_CACHE_HOME": ".cache",
        "XDG_DATA_HOME": ".local/share",
        "XDG_STATE_HOME": ".local/state",
    }.items():
        monkeypatch.setenv(variable, str(home / place))
    yield home
    shutil.rmtree(home, ignore_errors=True)


def lucid_threads() -> set[threading.Thread]:
    """The threads of this process that lucid started."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("lucid-")}


def mounts_below(root: Path) -> set[str]:
    """Mount points below a directory."""
    table = Path("/proc/self/mountinfo")
    if not table.exists():
        return set()
    points = (line.split(" ")[4] for line in table.read_text().splitlines())
    return {point for point in points if point.startswith(f"{root}/")}


@pytest.fixture(autouse=True)
def leaves_nothing(
    own_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[None, None, None]:
    """Fails the test that leaves threads or mounts; collects its garbage while it is to blame."""
    root = tmp_path_factory.getbasetemp()
    threads, mounts = lucid_threads(), mounts_below(root)
    began = time.monotonic()
    yield
    # What a quick test has made is young; to look through all takes longer than most tests.
    gc.collect(1 if time.monotonic() - began < QUICK_S else 2)
    end = time.monotonic() + GRACE_S
    for thread in lucid_threads() - threads:
        thread.join(max(0.0, end - time.monotonic()))
    left_threads = sorted(thread.name for thread in lucid_threads() - threads)
    left_mounts = sorted(mounts_below(root) - mounts)
    assert not left_threads, f"threads left running: {', '.join(left_threads)}"
    assert not left_mounts, f"left mounted: {', '.join(left_mounts)}"
