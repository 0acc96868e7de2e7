"""Progress and status of an open filespace."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lucid.errors import LocalError
from lucid.filespace.changes import path_of
from lucid.filespace.parts import Parts
from lucid.filespace.surface import Progress, Status
from lucid.format.check import shown
from lucid.sync.checkpointer import known_checkpoint

if TYPE_CHECKING:
    from lucid.filespace.opening import Opened

__all__ = ["progress_of", "status_of"]

DAMAGE_TOLD_S = 3600.0
PATIENCE_S = 5.0
"""A store that says nothing to requests that are under way for so long does not answer."""


def is_online(opened: Opened) -> bool:
    """Whether the store answers. Requests that hang tell so long before they fail."""
    return opened.committer.online and opened.heard.silent_s < PATIENCE_S


def problem_of(opened: Opened) -> str:
    """The one sentence that matters most, or an empty one."""
    parts, committer = opened.parts, opened.committer
    stopped = parts.order.stopped
    sentences = (
        str(stopped) if stopped else "",
        opened.reader.fork,
        _refusal(opened),
        committer.problem,
        _silence(opened),
        parts.uploader.problem,
        parts.publisher.problem,
        _damage(opened),
        parts.cache.problem if parts.cache.bypassed else "",
        opened.problems[0] if opened.problems else "",
        next((draft.failure for draft in parts.table.all() if draft.failure), ""),
    )
    return next((sentence for sentence in sentences if sentence), "")


def _damage(opened: Opened) -> str:
    """What could not be read lately, though the store has answered."""
    found = opened.files.damage
    if found is None or opened.parts.clock.monotonic() > found[0] + DAMAGE_TOLD_S:
        return ""
    path = shown(path_of(opened.parts, found[1]) or b"a file")
    return f"A read of {path} failed: {found[2]} Check the store: lucid fsck STORE --read-data"


def _silence(opened: Opened) -> str:
    """What to say of a store that does not answer, before a request to it has failed."""
    if is_online(opened):
        return ""
    silent_s = opened.heard.silent_s
    return f"The store has not answered for {silent_s:.0f} s." if silent_s >= 1 else opened.away


def _refusal(opened: Opened) -> str:
    """What to say of a local disk that has no room for writing."""
    parts = opened.parts
    if parts.read_only:
        return ""
    try:
        return parts.staging.refusal(parts.cache.used_bytes)
    except LocalError as error:
        return str(error)


def _drafts_to_send(opened: Opened) -> int:
    """Files with changes that no op holds yet: each is one op more, once it is published."""
    drafts = opened.parts.table.all()
    return sum(1 for draft in drafts if draft.unpublished and not draft.unlinked)


def progress_of(opened: Opened) -> Progress:
    parts = opened.parts
    staged, _ = parts.staged.staged_bytes()
    problem = problem_of(opened)
    waiting = parts.clock.monotonic() if problem else None
    pending = parts.order.pending + _drafts_to_send(opened)
    return Progress(pending, staged, parts.uploader.bytes_sent, waiting, problem)


def status_of(opened: Opened) -> Status:
    parts, committer, unlocked = opened.parts, opened.committer, opened.unlocked
    replica = parts.replica
    head = replica.head()
    member = replica.member(unlocked.keys.member)
    session = replica.session(opened.session) if opened.session else None
    totals = replica.totals()
    staged_bytes, staged_files = parts.staged.staged_bytes()
    engine = opened.cachemap.stats()
    counts = parts.store.counters.snapshot()
    age = None
    if opened.reader.newest_ns:
        age = max(0.0, (parts.clock.time_ns() - opened.reader.newest_ns) / 1e9)
    known = known_checkpoint(replica)
    failed = [draft.failure for draft in parts.table.all() if draft.failure]
    return Status(
        name=(replica.value("name") or b"").decode(errors="replace"),
        filespace=unlocked.superblock.filespace.hex(),
        store=parts.store.url,
        state_directory=str(opened.state.path),
        member=member.label.decode(errors="replace") if member else "",
        device=session.device_label.decode(errors="replace") if session else "",
        session=opened.session,
        read_only=parts.read_only,
        online=is_online(opened),
        last_answer_age_s=opened.heard.age_s,
        problem=problem_of(opened),
        head=head.sequence,
        head_hash=head.hash.hex(),
        newest_entry_age_s=age,
        void_entries=replica.void_count(),
        pending_ops=parts.order.pending + _drafts_to_send(opened),
        staged_bytes=staged_bytes,
        staged_files=staged_files,
        failed=(*opened.problems, *parts.undone.sentences(), *failed),
        inodes=totals.inodes,
        data_bytes=totals.data_bytes,
        cache_bytes=parts.cache.used_bytes,
        cache_limit=parts.cache.limit_bytes,
        cache_hits=engine["hits"],
        cache_misses=engine["misses"],
        requests={method: count.requests for method, count in counts.items()},
        bytes_fetched=sum(count.received for count in counts.values()),
        bytes_sent=sum(count.sent for count in counts.values()),
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        freshness=(
            "proven: this device has seen this history before"
            if opened.seen_before or committer.compared
            else "unproven: a first mount has nothing to compare the store's history with"
        ),
        locks=_locks_of(opened),
        checkpoint=known.sequence if known else 0,
        checkpoint_age_s=(
            max(0.0, (parts.clock.time_ns() - known.time_ns) / 1e9) if known else None
        ),
        checkpoint_notes=tuple(filter(None, (*opened.beginning.notes, opened.checkpoints.problem))),
        hub=opened.together.hub_status(),
        devices=opened.together.devices(),
        collection=_collection_of(opened),
        conflicts=tuple(_conflicts(parts)),
    )


def _conflicts(parts: Parts) -> Iterator[str]:
    """Paths of the conflict copies that are still there."""
    for parent, name in parts.conflicts.names():
        above = path_of(parts, parent)
        if above is not None and parts.replica.lookup(parent, name) is not None:
            yield os.fsdecode(above.rstrip(b"/") + b"/" + name)


def _locks_of(opened: Opened) -> str:
    """How far locks of programs reach: "policy: what that means here"."""
    policy = opened.parts.config.lock_policy
    if policy == "none":
        return "none: flock and fcntl locks hold on this machine only"
    if opened.parts.read_only:
        return "none: the drive is read-only, and locks hold on this machine only"
    if not opened.leases.are_carried:
        return (
            "none: locks hold on this machine only, until the filespace is under newer rules. When"
            " every machine has this version, run once: lucid gc STORE --delete"
        )
    also = ", and what is open for writing is locked" if policy == "on-open" else ""
    return f"{policy}: flock and fcntl locks hold on every machine{also}"


def _collection_of(opened: Opened) -> dict[str, Any] | None:
    if opened.collection is None or opened.daily is None:
        return None
    return opened.collection.shown(opened.daily.problem)
