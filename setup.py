"""Builds the Cython half of lucid: every `engine/*.pyx`, and the libfuse extension of the mount.

Everything else about the package stands in pyproject.toml. `lucid/engine` is a symlink to
`../engine`, so all paths here begin with `lucid/` and are the same in a checkout and in an sdist.

Environment:
    ENGINE_DEBUG=1   bounds checks, None checks and assertions on, no optimisation, symbols
    ENGINE_JOBS=n    compilers at once (default: one a core)
    ENGINE_SKIP=1    no extension: build.sh builds it in place, after the editable install
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("ENGINE_DEBUG", "") not in ("", "0")
JOBS = int(os.environ.get("ENGINE_JOBS", "0")) or os.cpu_count() or 1

# No `overflowcheck`: hashes wrap on purpose. No `wraparound`: with it, a negative index would pass.
DIRECTIVES: dict[str, object] = {
    "language_level": 3,
    "binding": True,
    "embedsignature": False,
    "initializedcheck": DEBUG,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "nonecheck": DEBUG,
}

COMPILE = ["-std=c11", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-Wall"]
# What Cython itself writes and does not always use.
COMPILE += ["-Wno-unused-function", "-Wno-unused-variable"]
COMPILE += ["-O0", "-g3", "-UNDEBUG"] if DEBUG else ["-O3", "-g0", "-DCYTHON_WITHOUT_ASSERTIONS=1"]


def pkg_config(flag: str, package: str) -> list[str]:
    """Flags of a C library, or a clear sentence when Debian's package is missing."""
    try:
        done = subprocess.run(
            ["pkg-config", flag, package], check=True, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise SystemExit(
            "lucid needs pkg-config and libfuse-dev to build: run ./build.sh"
        ) from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"lucid needs libfuse-dev to build: {error.stderr.strip()}") from None
    return shlex.split(done.stdout)


def engine_extensions() -> list[Extension]:
    """One extension a file of the engine."""
    return [
        Extension(f"lucid.engine.{source.stem}", [str(source)], extra_compile_args=COMPILE)
        for source in sorted(Path("lucid/engine").glob("*.pyx"))
    ]


def mount_extensions() -> list[Extension]:
    """The extension that completes llfuse, its workers' turns, and requests about locks. The first
    sees libfuse 2.9; nothing else does."""
    return [
        Extension(
            "lucid.mount._low",
            ["lucid/mount/_low.pyx"],
            define_macros=[("FUSE_USE_VERSION", "29")],
            extra_compile_args=COMPILE + pkg_config("--cflags", "fuse"),
            extra_link_args=pkg_config("--libs", "fuse"),
        ),
        Extension("lucid.mount._locks", ["lucid/mount/_locks.pyx"], extra_compile_args=COMPILE),
        Extension("lucid.mount._turns", ["lucid/mount/_turns.pyx"], extra_compile_args=COMPILE),
    ]


def extensions() -> list[Extension]:
    """All of them, translated to C under build/."""
    if os.environ.get("ENGINE_SKIP", "") not in ("", "0"):
        return []
    found = engine_extensions() + mount_extensions()
    return cythonize(
        found,
        build_dir="build/cython-debug" if DEBUG else "build/cython",
        nthreads=JOBS if len(found) > 1 else 0,
        compiler_directives=DIRECTIVES,
        include_path=["."],
    )


if __name__ == "__main__":
    setup(ext_modules=extensions(), options={"build_ext": {"parallel": JOBS}})
