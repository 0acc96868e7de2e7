"""What `lucid status` says of checkpoints."""

from __future__ import annotations

from lucid.cli import status


def test_the_newest_checkpoint_and_what_was_not_used() -> None:
    found = status._checkpoint(
        {
            "checkpoint": 8192,
            "checkpoint_age_s": 7300.0,
            "checkpoint_notes": ("Checkpoint 12288 was not used: A log entry is cut short.",),
        }
    )
    assert [line[1] for line in found] == [
        "entry 8,192, 2 hours ago",
        "Checkpoint 12288 was not used: A log entry is cut short.",
    ]


def test_no_checkpoint_is_not_spoken_of() -> None:
    none = {"checkpoint": 0, "checkpoint_age_s": None, "checkpoint_notes": ()}
    assert status._checkpoint(none) == []
    assert status._checkpoint({}) == [], "a daemon of an older version"


def test_what_was_collected() -> None:
    """S-611."""
    found = {
        "retention_s": 604_800, "age_s": 90_000.0, "freed_bytes": 5 << 20, "freed_objects": 12,
        "problem": "", "note": "",
    }  # fmt: skip
    line = ("collected", "5.0 MiB in 12 objects freed 1 day ago", "")
    assert status._collection({"collection": found}) == [line]
    told = {**found, "age_s": None, "problem": "The store is cut off."}
    line = ("collected", "nothing freed yet. The store is cut off.", "yellow")
    assert status._collection({"collection": told}) == [line]
    assert status._collection({"collection": None}) == []
    assert status._collection({}) == [], "a daemon of an older version"


def test_conflicts_are_named_the_newest_ones() -> None:
    """S-86."""
    names = tuple(f"/f{number} (conflict a b)" for number in range(7))
    lines = status._conflicts({"conflicts": names[:2]})
    assert lines == [("conflict", name, "yellow") for name in names[:2]]
    lines = status._conflicts({"conflicts": names})
    assert [line[1] for line in lines] == [*names[2:], "and 2 older ones; see --json"]
    assert status._conflicts({}) == [], "a daemon of an older version"
