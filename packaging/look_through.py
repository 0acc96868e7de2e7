"""Looks through the sdist and the wheel in dist/: all that must be in is in, and nothing else.

Called by `./build.sh wheel` with their paths. Says what is wrong and exits with 1.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEVER = (".pyc", ".c", ".html", ".log")


def package_files() -> set[str]:
    """Paths below `lucid/` that every install needs, as they stand in the checkout."""
    suffixes = {".py", ".pyi", ".pxd", ".h", ".service"}
    return {
        str(path.relative_to(ROOT))
        for folder in (ROOT / "lucid", *(ROOT / "lucid").iterdir())
        if folder.is_dir()
        for path in folder.iterdir()
        if path.suffix in suffixes or path.name == "py.typed"
    }


def extension_sources() -> list[Path]:
    """Every `.pyx`, by its path below `lucid/`."""
    return sorted((ROOT / "lucid").glob("*/*.pyx"))


def faults_of_wheel(wheel: Path) -> list[str]:
    """What is wrong with the wheel."""
    names = set(zipfile.ZipFile(wheel).namelist())
    faults = [f"missing: {name}" for name in sorted(package_files() - names)]
    for source in extension_sources():
        stem = str(source.relative_to(ROOT).with_suffix(""))
        if not any(name.startswith(f"{stem}.cpython-") for name in names):
            faults.append(f"not built: {stem}")
    tops = {name.split("/")[0] for name in names}
    tops = {top for top in tops if top != "lucid" and not top.endswith(".dist-info")}
    faults += [f"would be installed beside lucid: {top}" for top in sorted(tops)]
    return faults + [f"does not belong in: {name}" for name in names if name.endswith(NEVER)]


def faults_of_sdist(sdist: Path) -> list[str]:
    """What is wrong with the sdist."""
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members}
    sources = {str(path.relative_to(ROOT)) for path in extension_sources()}
    wanted = package_files() | sources | {"setup.py", "pyproject.toml", "README.md"}
    faults = [f"missing: {name}" for name in sorted(wanted - names)]
    faults += [f"is a link: {member.name}" for member in members if member.issym()]
    unwanted = (*NEVER, ".so")
    return faults + [f"does not belong in: {name}" for name in names if name.endswith(unwanted)]


def main(paths: list[str]) -> int:
    """Looks through all of them; the exit code."""
    faults = []
    for path in map(Path, paths):
        look = faults_of_wheel if path.suffix == ".whl" else faults_of_sdist
        faults += [f"{path.name}: {fault}" for fault in look(path)]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
