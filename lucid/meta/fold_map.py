"""Maps of files: a new version's changes laid over what its base had (FORMAT section 8).

Part of the fold: total and pure. An append costs one range query and one row, whatever the file
has; a whole map is read only for a conflict copy. `lucid.format.runs` cuts and slices single runs,
and its results are part of the fold rules: change one and the rules need a new number.
"""

from __future__ import annotations

from collections.abc import Sequence

from lucid.format.change import HOLE, Change
from lucid.format.limits import BLOCKS_MAX
from lucid.format.runs import Geometry, cut_run, run_bytes, slice_run
from lucid.meta.state import State

__all__ = ["first_map", "lay", "next_map", "take_staged"]


def take_staged(state: State, op_id: int, changes: Sequence[Change]) -> Sequence[Change]:
    """All changes of an op, ascending: its own over what was staged for it, which is no longer."""
    staged = state.staged(op_id)
    if not staged:
        return changes
    state.drop_staged(op_id)
    parts = [*_ascending_parts(staged), list(changes)]
    # By pairs, so that a file staged in many parts does not cost their number squared.
    while len(parts) > 1:
        pairs = zip(parts[::2], [*parts[1::2], []], strict=False)
        parts = [lay(below, above, state.geometry) for below, above in pairs]
    return parts[0]


def lay(below: Sequence[Change], above: Sequence[Change], geometry: Geometry) -> list[Change]:
    """One ascending map of two: `above` where it says something (a HOLE too), else `below`."""
    laid: list[Change] = []
    rest = iter(below)
    piece = next(rest, None)
    for run in above:
        end = run.first + run.count
        while piece is not None and piece.first < end:
            piece_end = piece.first + piece.count
            if piece.first < run.first:
                laid.append(slice_run(piece, piece.first, min(piece_end, run.first), geometry))
            if piece_end > end:
                piece = slice_run(piece, end, piece_end, geometry)
                break
            piece = next(rest, None)
        laid.append(run)
    if piece is not None:
        laid.append(piece)
        laid.extend(rest)
    return laid


def first_map(
    state: State, ino: int, below: Sequence[Change], changes: Sequence[Change], size: int
) -> int:
    """Adds the whole map of an inode's first version, whose id is `ino`; returns its data bytes."""
    changes = take_staged(state, ino, changes)
    if below:
        changes = lay(below, changes, state.geometry)
    data_bytes = 0
    for change in changes:
        run = cut_run(change, size, state.geometry)
        if run is None:
            break
        if run.kind != HOLE:
            state.add_extent(ino, run, ino)
            data_bytes += run_bytes(run, state.geometry)
    return data_bytes


def next_map(
    state: State, ino: int, version: int, sizes: tuple[int, int, int], changes: Sequence[Change]
) -> int:
    """Turns the newest map of `ino` into that of `version`; returns the data bytes that it gained.

    `sizes` are the base's size, how much of it is kept, and the new size.
    """
    base_size, keep, size = sizes
    geometry = state.geometry
    changes = take_staged(state, version, changes)
    # Pieces that are cut off their extent wait here until no further change can touch them, so
    # that no row is added and ended by one version.
    loose: list[Change] = []
    gained = 0
    if min(keep, size) < base_size:
        loose, gained = _cut_newest(state, ino, version, min(keep, size))
    for change in changes:
        run = cut_run(change, size, geometry)
        if run is None:
            break
        end = run.first + run.count
        under = loose
        for extent in state.extents(ino, run.first, end):
            state.end_extent(ino, extent, version)
            gained -= run_bytes(extent, geometry)
            under = [*under, extent]
        if under:
            loose, done = _split(under, run.first, end, geometry)
            gained += _add(state, ino, version, done)
        if run.kind != HOLE:
            gained += _add(state, ino, version, (run,))
    return gained + _add(state, ino, version, loose)


def _cut_newest(state: State, ino: int, version: int, limit: int) -> tuple[list[Change], int]:
    """Ends what lies beyond `limit` bytes; returns what is left of a block in the middle of which
    the limit lies, not yet added, and the data bytes gained (below 0)."""
    left: list[Change] = []
    gained = 0
    geometry = state.geometry
    for extent in state.extents(ino, limit // geometry.block_size, BLOCKS_MAX):
        kept = cut_run(extent, limit, geometry)
        if kept == extent:
            continue
        state.end_extent(ino, extent, version)
        gained -= run_bytes(extent, geometry)
        if kept is not None:
            left.append(kept)
    return left, gained


def _split(
    under: Sequence[Change], first: int, end: int, geometry: Geometry
) -> tuple[list[Change], list[Change]]:
    """(what of `under` lies behind block `first` to `end`, what lies before)."""
    behind: list[Change] = []
    before: list[Change] = []
    for run in under:
        run_end = run.first + run.count
        if run.first < first:
            before.append(slice_run(run, run.first, min(run_end, first), geometry))
        if run_end > end:
            behind.append(slice_run(run, max(run.first, end), run_end, geometry))
    return behind, before


def _add(state: State, ino: int, version: int, runs: Sequence[Change]) -> int:
    data_bytes = 0
    for run in runs:
        state.add_extent(ino, run, version)
        data_bytes += run_bytes(run, state.geometry)
    return data_bytes


def _ascending_parts(changes: Sequence[Change]) -> list[list[Change]]:
    """The changes in their order, cut wherever they do not ascend."""
    parts: list[list[Change]] = []
    end = -1
    for change in changes:
        if change.first < end or not parts:
            parts.append([])
        parts[-1].append(change)
        end = change.first + change.count
    return parts
