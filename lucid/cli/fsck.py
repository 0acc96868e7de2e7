"""`lucid fsck`: looks through everything in a store; told to, it repairs a state directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lucid.cli import filespaces
from lucid.cli.predecessor import refuse_if_mounted, telling_where
from lucid.cli.secrets import file_option, passphrase
from lucid.cli.terminal import Bar, count, examples, show_json, size
from lucid.cli.uploads import Standstill, show_progress
from lucid.config import Config
from lucid.errors import DataError, UsageError

if TYPE_CHECKING:
    from lucid.filespace import Filespace
    from lucid.filespace.fsck import FsckReport
    from lucid.filespace.lost_found import Found
    from lucid.filespace.repairing import Repair, Repaired
    from lucid.filespace.surface import Progress

__all__ = ["command"]


BELIEVE = """\
This device has seen something that the store does not show, or was shown two histories:
  {alarm}
To believe the store makes this device forget what it has seen: what others wrote, and the store
does not show any more, is then gone for it too. Compare `lucid status` with another device first.
If that one has an alarm as well, the store was put back: bring it back from a newer backup instead.
Believe what the store shows?"""


@dataclass(frozen=True)
class _Asked:
    """What is to be done besides checking."""

    repair: bool
    state_dir: Path | None
    lost_found: bool
    all_orphans: bool
    believe_store: bool
    yes: bool

    def check(self) -> None:
        """Raises UsageError for options that want others."""
        if (self.state_dir or self.lost_found or self.believe_store) and not self.repair:
            raise UsageError(
                "Give --repair too: --state-dir, --lost-found and --believe-store go with it, and"
                " without it fsck changes nothing."
            )
        if self.all_orphans and not self.lost_found:
            raise UsageError("Give --lost-found too: --all-orphans goes with it.")
        if self.yes and not self.believe_store:
            raise UsageError("Give --believe-store too: --yes goes with it.")


@click.command(
    "fsck",
    epilog=examples(
        "lucid fsck s3://bucket/team",
        "lucid fsck s3://bucket/team --read-data",
        "lucid fsck s3://bucket/team --repair",
        "lucid fsck s3://bucket/team --repair --lost-found",
    ),
)
@click.argument("store")
@click.option("--read-data", is_flag=True, help="Fetch and open every block too. Takes long.")
@click.option(
    "--repair",
    is_flag=True,
    help="First build this machine's replica anew from the store, and send what waits here.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With --repair: the state directory, if it was chosen at the mount.",
)
@click.option(
    "--lost-found",
    is_flag=True,
    help="With --repair: put what no entry of the log names into new files below /lost+found.",
)
@click.option(
    "--all-orphans",
    is_flag=True,
    help="With --lost-found: also what is younger than a day, or was removed for good.",
)
@click.option(
    "--believe-store",
    is_flag=True,
    help="With --repair: clear the alarm of a store that shows another history than before.",
)
@click.option("--yes", is_flag=True, help="With --believe-store: do not ask.")
@file_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(
    store: str,
    read_data: bool,
    repair: bool,
    state_dir: Path | None,
    lost_found: bool,
    all_orphans: bool,
    believe_store: bool,
    yes: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> int:
    """Check a filespace in its store: the whole log, and every object that it names.

    Changes nothing without --repair, and may run while the filespace is in use; a repair wants
    the drive of this machine unmounted. Exits with 8 when something is wrong, or is left to do.
    """
    asked = _Asked(repair, state_dir, lost_found, all_orphans, believe_store, yes)
    asked.check()
    store = filespaces.tidy(store)
    filespaces.check_there(store)
    if asked.repair:
        refuse_if_mounted(store, state_dir)
    secret = passphrase(passphrase_file)
    repaired, files = _repair(store, secret, asked) if asked.repair else (None, None)
    found = _check(store, secret, read_data)
    if as_json:
        show_json(_json(found, repaired, files))
    else:
        if repaired is not None:
            _show_repaired(repaired)
        if files is not None:
            _show_files(files)
        _show(found)
    whole = (repaired is None or repaired.whole) and (files is None or not files.problems)
    return 0 if found.clean and whole else DataError.exit_code


def _json(found: FsckReport, repaired: Repaired | None, files: Found | None) -> dict[str, Any]:
    """What was checked, and under names of their own what was repaired and found."""
    shown = found.as_json()
    if repaired is not None:
        shown["repair"] = repaired.as_json()
    if files is not None:
        shown["lost_found"] = files.as_json()
    return shown


def _check(store: str, secret: str, read_data: bool) -> FsckReport:
    with Bar("Checking") as bar:
        return filespaces.check(store, secret, read_data=read_data, report=_reporter(bar))


def _reporter(bar: Bar) -> Callable[[str, int, int | None], None]:
    """Shows a stage and how far it is."""

    def report(stage: str, done: int, total: int | None) -> None:
        bar.show(done, total or 0, f"{stage} {done:,}" + (f" of {total:,}" if total else ""))

    return report


def _repair(store: str, secret: str, asked: _Asked) -> tuple[Repaired, Found | None]:
    # Nothing leaves the store while it is repaired.
    config = Config(state_dir=asked.state_dir and asked.state_dir.absolute(), retention_s=None)
    repair = filespaces.repair(store, secret, config)
    with telling_where():
        fs = repair.run((lambda alarm: _believes(alarm, asked)) if asked.believe_store else None)
    try:
        with Bar("Looking") as bar:
            report = _reporter(bar)
            repair.found.resent = filespaces.resend(fs, report)
            files = None
            if asked.lost_found:
                look = filespaces.lost_found(fs, all_orphans=asked.all_orphans)
                files = look.run(report)
    except BaseException:
        fs.close(wait=False)
        raise
    return _send(repair, fs), files


def _believes(alarm: str, asked: _Asked) -> bool:
    if not asked.yes:
        click.confirm(BELIEVE.format(alarm=alarm), abort=True, err=True)
    return True


def _send(repair: Repair, fs: Filespace) -> Repaired:
    standstill = Standstill("Ctrl-C leaves the rest to the next mount, or to another repair.")
    with Bar("Uploading") as bar:

        def report(progress: Progress) -> None:
            shown = progress._asdict()
            show_progress(bar, shown)
            standstill.look(shown)

        return repair.send(fs, report)


def _show_repaired(repaired: Repaired) -> None:
    if repaired.alarm:
        click.echo(f"The alarm is cleared: {repaired.alarm}")
    if repaired.damage:
        click.echo(f"The old replica could not be read: {repaired.damage}")
    how = "is compared with another device's" if repaired.kept else "is built anew"
    click.echo(
        f"{repaired.state_directory}: its replica {how}, at entry {repaired.entries:,} of the log"
    )
    if repaired.ops:
        click.echo(
            f"{count(repaired.ops, 'change')} ({size(repaired.staged_bytes)}) waited here, "
            f"{repaired.ops - repaired.ops_left:,} of them are in the store now"
        )
    if repaired.resent:
        click.echo(
            f"{count(repaired.resent, 'segment')} that the store had lost "
            "came back from this machine's cache"
        )
    for problem in repaired.problems:
        click.secho(f"left to do: {problem}", fg="red")


def _show_files(found: Found) -> None:
    click.echo(
        f"{count(found.segments, 'segment')} that no entry names: "
        f"{count(len(found.files), 'new file')} below /lost+found"
        + (f", {found.there_before:,} were there already" if found.there_before else "")
    )
    if found.young:
        click.echo(
            f"Left alone: {count(found.young, 'segment')} younger than a day, which may be uploads"
            " that are under way; --all-orphans takes them too"
        )
    if found.ended:
        click.echo(
            f"Left alone: {count(found.ended, 'segment')} older than the floor, which may be what"
            " was removed for good; --all-orphans takes them too"
        )
    for problem in found.problems:
        click.secho(f"wrong: {problem}", fg="red")


def _show(found: FsckReport) -> None:
    click.echo(
        f"{found.name or found.filespace}: log entries {found.entries:,}, "
        f"inodes {found.inodes:,}, segments {found.segments:,} ({size(found.segment_bytes)})"
    )
    if found.blocks_read:
        click.echo(f"{count(found.blocks_read, 'block')} fetched and opened")
    if found.void_entries:
        entries = count(found.void_entries, "void entry", "void entries")
        click.echo(f"{entries} in the log: what breaks a rule changes nothing")
    if found.orphans:
        click.echo(
            f"{count(found.orphans, 'object')} ({size(found.orphan_bytes)}) that no entry names: "
            "uploads that are under way or were given up, or what lucid gc is still to take"
        )
    for warning in found.warnings:
        click.secho(f"warning: {warning}", fg="yellow")
    for problem in found.problems:
        click.secho(f"wrong: {problem}", fg="red")
    click.echo("Everything is as it should be." if found.clean else _verdict(len(found.problems)))


def _verdict(problems: int) -> str:
    return f"{count(problems, 'problem')}. What is named above cannot be read from this store."
