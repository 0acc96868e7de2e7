"""Which rules are in force, and the rule of the op that changes them.

Rules 2 know more ops than rules 1 and remember removals; what rules 1 say of an op, rules 2 say
too. Rules 3 end rows of segments with a floor (`fold_segments`), and are rules 2 until there is
one, but for the repacks that they know besides. So one fold serves all, and asks here only where
they part. Part of the fold: total and pure.
"""

from __future__ import annotations

from lucid.format.ops import RULES_FIRST, Rules
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.state import STAMP_SHIFT, RemovedRow, State

__all__ = [
    "VALUE_RULES",
    "VALUE_SINCE",
    "fold_rules",
    "number_of",
    "remember_removal",
    "rules_in_force",
]

VALUE_RULES = "rules"
"""Value of the state: the number of the fold rules in force, in decimal digits."""
VALUE_SINCE = "rules since"
"""Value of the state: the sequence of the newest `rules` op that counted, in decimal digits."""


def number_of(state: State, name: str) -> int:
    """A named value that is a number; 0 where there is none."""
    value = state.get_value(name)
    return 0 if value is None else int(value)


def rules_in_force(state: State) -> int:
    """The number of the rules that the op at hand is folded under."""
    return number_of(state, VALUE_RULES) or RULES_FIRST


def fold_rules(state: State, op: Rules, author: Author) -> Effect:
    """Alone in its entry: so they hold from the next entry on."""
    if op.number <= rules_in_force(state):
        return NOTHING
    state.put_value(VALUE_RULES, b"%d" % op.number)
    state.put_value(VALUE_SINCE, b"%d" % (state.stamp >> STAMP_SHIFT))
    return Effect(Status.APPLIED, (), (), 0)


def remember_removal(state: State, ino: int, op_id: int, time_ns: int) -> None:
    """`ino` has just lost its last name. Rules 1 do not remember that."""
    if rules_in_force(state) > RULES_FIRST:
        state.put_removed(ino, RemovedRow(ino, op_id, time_ns, state.stamp))
