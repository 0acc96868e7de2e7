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
