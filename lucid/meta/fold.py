"""The fold: what an op does to a state, for every op on every state (SEMANTICS.md, 9 and 10).

Total and pure: it raises for no op that was decoded, and reads only state and op: no clock, no
locale, no object but the log. So all who fold one log hold one state. The same code folds own
pending ops. A change of any result, be it the fix of a bug, needs a new number of the rules; these
are rules 1 to 4 (see `fold_rules`).

It knows no threads: one at a time per state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lucid.format.ops import (
    Clone,
    Content,
    Create,
    Drop,
    Floor,
    Genesis,
    Give,
    Link,
    Mkdir,
    Mknod,
    Op,
    Rename,
    Repack,
    Rmdir,
    Rules,
    SessionOp,
    Setattr,
    Setxattr,
    Stage,
    Symlink,
    Take,
    Takeover,
    UnknownOp,
    Unlink,
)
from lucid.meta.fold_attributes import fold_setattr, fold_setxattr
from lucid.meta.fold_clone import fold_clone
from lucid.meta.fold_content import fold_content, fold_drop, fold_stage
from lucid.meta.fold_effect import NOTHING, Author, Effect, Status
from lucid.meta.fold_floor import fold_floor
from lucid.meta.fold_founding import fold_genesis, fold_session
from lucid.meta.fold_lease import fold_give, fold_take, fold_takeover
from lucid.meta.fold_moves import fold_rename, fold_rmdir, fold_unlink
from lucid.meta.fold_names import fold_create, fold_link, fold_mkdir, fold_mknod, fold_symlink
from lucid.meta.fold_repack import fold_repack
from lucid.meta.fold_rules import fold_rules
from lucid.meta.state import State

__all__ = ["NOTHING", "Author", "Effect", "Status", "fold"]


def fold(state: State, op: Op, author: Author) -> Effect:
    """Folds one op that was decoded, at `state.stamp`; says what became of it.

    The caller has checked the entry (a void one is never folded), admitted its segments, and set
    the stamp. An entry is no transaction: its ops are folded one by one.
    """
    return _RULE_OF[type(op)](state, op, author)


def _fold_unknown(state: State, op: UnknownOp, author: Author) -> Effect:
    """Never reached through the log, where such an entry is void."""
    return NOTHING


_RULE_OF: dict[type, Callable[[State, Any, Author], Effect]] = {
    Genesis: fold_genesis,
    SessionOp: fold_session,
    Create: fold_create,
    Mkdir: fold_mkdir,
    Symlink: fold_symlink,
    Mknod: fold_mknod,
    Content: fold_content,
    Stage: fold_stage,
    Drop: fold_drop,
    Link: fold_link,
    Unlink: fold_unlink,
    Rmdir: fold_rmdir,
    Rename: fold_rename,
    Setattr: fold_setattr,
    Setxattr: fold_setxattr,
    Rules: fold_rules,
    Floor: fold_floor,
    Clone: fold_clone,
    Repack: fold_repack,
    Take: fold_take,
    Give: fold_give,
    Takeover: fold_takeover,
    UnknownOp: _fold_unknown,
}
