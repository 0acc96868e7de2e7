"""`lucid lock ls`: what is shown of what a drive knows."""

from __future__ import annotations

from lucid.cli.lock import _strongest


def test_of_a_machine_with_both_leases_of_a_file_one_is_shown() -> None:
    both = {"inode": 7, "session": 1, "state": "held"}
    shared, exclusive = both | {"mode": "shared"}, both | {"mode": "exclusive"}
    others = [
        shared | {"session": 2},
        shared | {"inode": 8},
        shared | {"state": "waiting"},
    ]
    assert _strongest([shared, exclusive, *others]) == [exclusive, *others]
