"""`lucid status`: the drives of this user, what is not in the store yet, and any problem."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from lucid.cli.terminal import count, examples, printable, rows, show_json, size
from lucid.cli.uploads import what_is_left
from lucid.errors import LucidError, NotMounted
from lucid.mount import mountpoint, registry
from lucid.mount.control import ask
from lucid.mount.wire import Message, error_message

__all__ = ["command"]

CONFLICTS_SHOWN = 5


@click.command(
    "status",
    epilog=examples(
        "lucid status",
        "lucid status ~/team/reports",
        "lucid status --json | jq '.[].pending_ops'",
        "lucid status ~/team --json | jq .pending_ops",
    ),
)
@click.argument("path", required=False)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="As JSON: a list with one object a drive; with PATH that one object alone.",
)
def command(path: str | None, as_json: bool) -> None:
    """Show mounted drives: what is not in the store yet, the cache, and any problem.

    With PATH only the drive that it lies on. A drive whose process was killed is shown as dead.
    """
    if path is None:
        found = [_status_or_error(record) for record in registry.records()]
        found = sorted(found + [_dead(record) for record in registry.dead()], key=_place)
        if as_json:
            show_json(found)
        elif not found:
            click.echo("No drive is mounted.")
        for status in found if not as_json else []:
            _show(status)
        return
    status = ask(Path(_record(path).state_directory), "status")
    if as_json:
        show_json(status)
    else:
        _show(status)


def _record(path: str) -> registry.Record:
    """The drive at a path, or that it lies on; one that hangs is found without touching it, if the
    path says plainly where it is. Raises NotMounted."""
    plain = Path(path).absolute()
    if ".." not in plain.parts:
        if (record := registry.find(plain)) is not None:
            return record
        with suppress(NotMounted):
            return registry.containing(plain)
    at_point = registry.find(mountpoint.absolute(path))
    return at_point or registry.containing(Path(path).resolve())


def _place(status: Message) -> str:
    return str(status["mountpoint"])


def _status_or_error(record: registry.Record) -> Message:
    """One drive that does not answer must not hide the others."""
    try:
        return ask(Path(record.state_directory), "status")
    except LucidError as error:
        return {"mountpoint": record.point, "pid": record.pid} | error_message(error)


def _dead(record: registry.Record) -> Message:
    what = {"mountpoint": record.point, "pid": record.pid, "store": record.store, "phase": "dead"}
    return what | error_message(registry.death(record))


def _show(status: Message) -> None:
    title = f"{status['mountpoint']}"
    if status.get("phase") == "dead":
        text = f"dead: its process was killed; mount it again, or lucid umount {title}"
        rows(f"{title}  {status['store']}", [("state", text, "red")])
        return
    if "error" in status:
        rows(title, [("problem", str(status["message"]), "red")])
        return
    rows(f"{title}  {status['name']}  {status['store']}", list(_lines(status)))


def _lines(status: Message) -> list[tuple[str, str, str]]:
    lines = [("state", *_state(status)), ("not in the store", *_pending(status))]
    if status["problem"]:
        lines.append(("problem", str(status["problem"]), "red"))
    lines += [("failed", str(name), "red") for name in status["failed"]]
    lines += _conflicts(status)
    if status["void_entries"]:
        lines.append(("void entries", f"{status['void_entries']:,}", "yellow"))
    if not status["freshness"].startswith("proven"):
        lines.append(("freshness", str(status["freshness"]), "yellow"))
    lines += [
        ("content", f"{count(status['inodes'], 'inode')}, {size(status['data_bytes'])}", ""),
        ("head", _head(status), ""),
        *_checkpoint(status),
        *_collection(status),
        *_together(status),
        ("cache", _cache(status), ""),
        ("transferred", _transferred(status), ""),
        ("memory", size(status["memory_bytes"]), ""),
        ("member", _member(status), ""),
        ("state directory", str(status["state_directory"]), ""),
        ("locks", str(status["locks"]), ""),
        ("process", str(status["pid"]), ""),
    ]
    return lines


def _state(status: Message) -> tuple[str, str]:
    words = ["unmounted, uploading" if status["phase"] == "closing" else "mounted"]
    words += ["read-only"] if status["read_only"] else []
    words += ["online" if status["online"] else _silence(status)]
    return ", ".join(words), "green" if status["online"] else "yellow"


def _member(status: Message) -> str:
    if not status["session"]:
        return f"{status['member']} (read-only)"
    return f"{status['member']} on {status['device']}, session {status['session']}"


def _silence(status: Message) -> str:
    age = status["last_answer_age_s"]
    since = "none since the mount" if age is None else f"the last answer came {_ago(float(age))}"
    return f"the store does not answer ({since})"


def _pending(status: Message) -> tuple[str, str]:
    left = what_is_left(status)
    if not left:
        return "nothing", "green"
    files = f" in {count(status['staged_files'], 'file')}" if status["staged_files"] else ""
    return left + files, "yellow"


def _head(status: Message) -> str:
    age = status["newest_entry_age_s"]
    when = "" if age is None else f", {_ago(float(age))}"
    return f"entry {status['head']:,}{when}, {str(status['head_hash'])[:16]}"


def _conflicts(status: Message) -> list[tuple[str, str, str]]:
    """The newest copies that keep the loser of a conflict, and how many more there are."""
    found = list(map(printable, status.get("conflicts", ())))
    lines = [("conflict", name, "yellow") for name in found[-CONFLICTS_SHOWN:]]
    if len(found) > CONFLICTS_SHOWN:
        more = f"and {len(found) - CONFLICTS_SHOWN} older ones; see --json"
        lines.append(("conflict", more, "yellow"))
    return lines


def _checkpoint(status: Message) -> list[tuple[str, str, str]]:
    """The newest checkpoint, and what is to say of those that were tried."""
    lines = [("checkpoint", str(note), "") for note in status.get("checkpoint_notes", ())]
    age = status.get("checkpoint_age_s")
    if age is not None:
        made = f"entry {status['checkpoint']:,}, {_ago(float(age))}"
        lines.insert(0, ("checkpoint", made, ""))
    return lines


def _collection(status: Message) -> list[tuple[str, str, str]]:
    """When the drive freed what the store does not need any more, or why it could not."""
    found = status.get("collection")
    if found is None:
        return []
    age, problem = found["age_s"], str(found["problem"])
    text = "nothing freed yet"
    if age is not None:
        freed = f"{size(found['freed_bytes'])} in {count(found['freed_objects'], 'object')}"
        text = f"{freed} freed {_ago(float(age))}"
    note = problem or str(found["note"])
    return [("collected", f"{text}. {note}" if note else text, "yellow" if problem else "")]


def _together(status: Message) -> list[tuple[str, str, str]]:
    """The hub, and the devices that are there, with what they have open for writing."""
    hub = status.get("hub")
    if hub is None:
        return []
    if hub["connected"]:
        lines = [("hub", f"connected to {hub['url']}", "green")]
    else:
        why = hub["problem"] or "Not there yet."
        lines = [("hub", f"not connected to {hub['url']}; looking goes on. {why}", "yellow")]
    for device in status.get("devices", ()):
        text = f"{device['member']} on {device['device']}"
        if device["writing"]:
            more = f" and {device['more']} more" if device["more"] else ""
            text += f", writing {', '.join(map(printable, device['writing']))}{more}"
        lines.append(("online", text, ""))
    return lines


def _ago(seconds: float) -> str:
    for length, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            return f"{count(int(seconds // length), unit)} ago"
    return f"{count(int(seconds), 'second')} ago"


def _cache(status: Message) -> str:
    asked = status["cache_hits"] + status["cache_misses"]
    rate = f", {100 * status['cache_hits'] // asked} % of {asked:,} reads hit" if asked else ""
    return f"{size(status['cache_bytes'])} of {size(status['cache_limit'])}{rate}"


def _transferred(status: Message) -> str:
    requests = sum(status["requests"].values())
    return (
        f"{size(status['bytes_fetched'])} fetched, {size(status['bytes_sent'])} sent, "
        f"{count(requests, 'request')}"
    )
