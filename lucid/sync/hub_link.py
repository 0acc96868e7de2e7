"""The thread lucid-hub: sits in the filespace's room at a hub, tells what was committed here, and
looks at the log when others say that they did.

Nothing that comes from a hub is believed but this: now may be a good moment to read the log. If it
is silent, lies, repeats or floods, polling goes on as without it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from lucid.crypto.member import MemberKeys
from lucid.crypto.room import Room
from lucid.errors import DataError, LucidError
from lucid.format.hub import (
    HUB_VERSION,
    KIND_HINT,
    KIND_PRESENCE,
    PATH_MAX,
    PATHS_MAX,
    Challenge,
    Hint,
    Look,
    Presence,
    Sealed,
    Welcome,
    decode_frame,
    decode_hint,
    decode_presence,
    encode_frame,
    encode_hint,
    encode_presence,
)
from lucid.sync.hub_wire import HubGone, Wake, Wire, parse_hub
from lucid.sync.looking import Looking
from lucid.sync.presence import Devices
from lucid.types import Clock, Entropy

__all__ = ["HubLink", "Identity", "Log"]

log = logging.getLogger(__name__)

CLOSE_S = 3.0
OPEN_S = 10.0
"""From the first byte to being in the room."""
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 60.0
WELL_S = 10.0
"""A connection that lasted so long was a good one: the next pause is a short one again."""
TICK_S = 1.0
COMPARE_MAX = 64
"""Hints whose entry is still to be compared with the one that is folded here."""
TELL_GAP_S = 0.05
"""Between two hints of ours, if there are many; `TELL_BURST` may go at once."""
TELL_BURST = 10
PRESENCE_S = 10.0
QUIET_S = 15.0
"""Nothing heard for so long: the hub is asked for a sign of life, and has as long again."""
MESSAGES_PER_S = 100.0
MESSAGES_BURST = 500.0
"""What a hub may send, over time and at once. Each costs some 150 us."""
UNTOLD_S = 5.0
"""An entry of others without a hint for so long was made by a device that is not at the hub."""
UNTOLD_FOR_S = 600.0
"""After that polling is as frequent as without a hub, for so long."""


class Identity(NamedTuple):
    """Who this device is in the room. `device` is random, new at each opening."""

    keys: MemberKeys
    device: bytes
    session: int
    label: bytes


class Log(NamedTuple):
    """What the link asks of the rest: the folded head, a look at the log, a member's key, the hash
    of an entry that was folded. It tells `forked` of an entry that others know as another one."""

    head: Callable[[], int]
    look: Callable[[], None]
    sign_key: Callable[[bytes], bytes | None]
    entry_hash: Callable[[int], bytes | None]
    forked: Callable[[int], None]


class HubLink:
    """See the module. `start`, then `close`. Public fields are for status; the thread writes them.

    Guarded by _lock: _own (the newest entry of ours that is not told yet) and _foreign (the newest
    of others that was folded, and when).
    """

    def __init__(
        self,
        url: str,
        *,
        room: Room,
        identity: Identity,
        log: Log,
        devices: Devices,
        writing: Callable[[], tuple[tuple[bytes, ...], int]],
        clock: Clock,
        entropy: Entropy,
        pause: random.Random,
    ) -> None:
        """writing: paths of what is open for writing here, and how many more there are.

        Raises ConfigError for the URL.
        """
        parse_hub(url)
        self.url = url
        self.room = room
        self.devices = devices
        self._identity, self._log, self._writing = identity, log, writing
        self._clock, self._entropy, self._pause = clock, entropy, pause
        self._lock = threading.Lock()
        self._own: tuple[int, bytes] | None = None
        self._foreign = (0, 0.0)
        self._stop = threading.Event()
        self._wake = Wake()
        self._looking = Looking()
        self._heard = 0.0
        self._asked = False
        self._left = MESSAGES_BURST
        self._number = 0
        self._tell_at = 0.0
        self._since = 0.0
        self._check_at = 0.0
        self._said: tuple[tuple[bytes, ...], int] = ((), 0)
        self._say_at = 0.0
        self._reply_at = float("inf")
        self._hinted = 0
        self._to_compare: dict[int, bytes] = {}
        self._untold_until = float("-inf")
        self.connected = False
        self.problem = ""
        self.connections = 0
        self.hints = 0
        self.refused = 0
        """Messages that no member has said, or that came again."""
        self._thread = threading.Thread(target=self._run, name="lucid-hub", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, which says good-bye. Idempotent.

        Only a search for the hub's address, in the system's resolver, cannot be ended: then the
        thread is left to end by itself.
        """
        if self._stop.is_set():
            return
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            log.warning("The address of the hub is still being looked for; nobody waits for that.")
            return
        self._wake.close()
        self.room.close()

    # -- asked by the sync thread; nothing here waits

    @property
    def covers(self) -> bool:
        """Whether the hub is well, and all who write seem to be at it: polling may be slow."""
        return self.connected and self._clock.monotonic() >= self._untold_until

    def won(self, sequence: int, digest: bytes) -> None:
        """An entry of ours is in the store."""
        with self._lock:
            self._own = sequence, digest
        if not self._stop.is_set():
            self._wake.set()

    def folded(self, sequence: int) -> None:
        """An entry of another session was folded."""
        with self._lock:
            self._foreign = sequence, self._clock.monotonic()

    # -- the thread

    def _run(self) -> None:
        pause_s = PAUSE_FIRST_S
        while not self._stop.is_set():
            began, code = self._clock.monotonic(), 0
            try:
                self._sit()
            except HubGone as gone:
                self.problem, code = f"{str(gone).rstrip('.')}.", gone.code
            except LucidError as error:
                self.problem = str(error)
            except Exception as error:
                log.exception("The thread at the hub failed; this is a bug in lucid")
                self.problem = f"It failed here: {error}."
            was_well = self.connected and self._clock.monotonic() - began > WELL_S
            if self.connected:
                self.connected = False
                self._log.look()  # and from then on as often as without a hub
            if self._stop.is_set():
                return
            log.info("Not at the hub: %s", self.problem)
            pause_s = PAUSE_FIRST_S if was_well or code == 1012 else min(2 * pause_s, PAUSE_MAX_S)
            # All clients of a hub that was restarted come back: not all at once.
            self._stop.wait(pause_s * self._pause.uniform(0.3, 1.0))

    def _sit(self) -> None:
        """One connection, from its beginning to HubGone."""
        wire = Wire(self.url, self._wake, self._stop.is_set, self._clock.monotonic)
        last = None
        try:
            wire.open(OPEN_S)
            early = self._enter(wire)
            if self.problem:
                log.info("At the hub again")
            self.connected, self.problem = True, ""
            self.connections += 1
            self._since = self._heard = self._clock.monotonic()
            self._asked, self._left = False, MESSAGES_BURST
            # What was committed before this moment was told to nobody here.
            self._log.look()
            self._say(wire, asks=True)
            for message in early:
                self._take(message, self._since)
            while True:
                self._turn(wire)
        finally:
            if self.connected:
                self._tell_at = 0.0
                last = self._presence(leaves=True)
                with suppress(HubGone):
                    self._tell_own(wire, self._clock.monotonic())
            wire.close(last)

    def _enter(self, wire: Wire) -> list[bytes]:
        """Challenge, answer, welcome; what came together with the last. Raises HubGone."""
        until = self._clock.monotonic() + OPEN_S
        answered = False
        while True:
            messages, _ = wire.receive(until - self._clock.monotonic())
            for number, message in enumerate(messages, 1):
                frame = decode_frame(message)
                if isinstance(frame, Challenge) and not answered:
                    if frame.version != HUB_VERSION:
                        raise HubGone(f"It is of version {frame.version}, which is not known here.")
                    wire.send(encode_frame(self.room.answer(frame.nonce)))
                    answered = True
                elif isinstance(frame, Welcome) and answered:
                    return messages[number:]
                else:
                    raise HubGone("It speaks another language.")
            if self._clock.monotonic() >= until:
                raise HubGone("It does not let this device in.")

    def _turn(self, wire: Wire) -> None:
        """Wait for something to do, and do it."""
        now = self._clock.monotonic()
        due = min(self._looking.due(self._log.head()), self._reply_at, now + TICK_S)
        if self._own is not None:
            due = min(due, self._tell_at)
        before = now
        messages, heard = wire.receive(due - now)
        now = self._clock.monotonic()
        self._left = min(MESSAGES_BURST, self._left + (now - before) * MESSAGES_PER_S)
        if heard:
            self._heard, self._asked = now, False
        for message in messages:
            self._left -= 1
            if self._left < 0:
                raise HubGone("It floods.")
            self._take(message, now)
        self._tell_own(wire, now)
        if now >= self._looking.due(self._log.head()):
            self._looking.looked(now)
            self._log.look()
        if now >= self._say_at or now >= self._reply_at or self._has_changed(now):
            self._say(wire)
        self._ask_for_life(wire, now)
        self._find_untold(now)
        self._compare()

    def _ask_for_life(self, wire: Wire, now: float) -> None:
        if now - self._heard > 2 * QUIET_S:
            raise HubGone("It has fallen silent.")
        if now - self._heard > QUIET_S and not self._asked:
            self._asked = True
            wire.ping()

    # -- what others say

    def _take(self, message: bytes, now: float) -> None:
        try:
            frame = decode_frame(message)
            if isinstance(frame, Look):
                self._looking.look(now)
            elif isinstance(frame, Sealed):
                self._take_sealed(frame, now)
            else:
                self.refused += 1
        except DataError:
            self.refused += 1

    def _take_sealed(self, sealed: Sealed, now: float) -> None:
        opened = self.room.open(sealed, self._log.sign_key)
        if opened.kind == KIND_HINT:
            hint = decode_hint(opened.payload)
            self.hints += 1
            self._hinted = max(self._hinted, hint.sequence)
            self._looking.hint(hint.sequence, self._log.head(), now)
            self._to_compare[hint.sequence] = hint.hash
            while len(self._to_compare) > COMPARE_MAX:
                del self._to_compare[min(self._to_compare)]
        elif opened.kind == KIND_PRESENCE:
            presence = decode_presence(opened.payload)
            if not self.devices.heard(opened.member, presence):
                self.refused += 1
            elif presence.asks:
                # Not all in the same moment.
                self._reply_at = min(self._reply_at, now + self._pause.uniform(0.0, TICK_S))

    def _compare(self) -> None:
        """What a member put as an entry must be what the store shows here as that entry."""
        head = self._log.head()
        for sequence in [each for each in self._to_compare if each <= head]:
            digest, known = self._to_compare.pop(sequence), self._log.entry_hash(sequence)
            if known is not None and known != digest:
                self._log.forked(sequence)

    def _find_untold(self, now: float) -> None:
        with self._lock:
            sequence, at = self._foreign
        if sequence <= self._hinted or now - at <= UNTOLD_S:
            return
        self._hinted = sequence
        if at - self._since > UNTOLD_S:  # else it may have been told before we were there
            self._untold_until = now + UNTOLD_FOR_S
            self._log.look()

    # -- what this device says

    def _tell_own(self, wire: Wire, now: float) -> None:
        """The newest one is enough: it stands for those before it."""
        if now < self._tell_at:
            return
        with self._lock:
            own, self._own = self._own, None
        if own is not None:
            # Some in a row go at once: what follows one another closely is awaited elsewhere.
            self._tell_at = max(self._tell_at, now - TELL_BURST * TELL_GAP_S) + TELL_GAP_S
            payload = encode_hint(Hint(self._clock.time_ns(), *own))
            wire.send(self._sealed(KIND_HINT, payload))

    def _has_changed(self, now: float) -> bool:
        """What is open for writing is another than was said; looked at about once a second."""
        if now < self._check_at:
            return False
        self._check_at = now + TICK_S
        return self._writing() != self._said

    def _say(self, wire: Wire, asks: bool = False) -> None:
        self._said = self._writing()
        self._say_at = self._clock.monotonic() + PRESENCE_S
        self._reply_at = float("inf")
        wire.send(self._presence(asks=asks))

    def _presence(self, asks: bool = False, leaves: bool = False) -> bytes:
        self._number += 1
        identity, (paths, more) = self._identity, self._said
        presence = Presence(
            time_ns=self._clock.time_ns(),
            device=identity.device,
            number=self._number,
            session=identity.session,
            label=identity.label,
            asks=int(asks),
            leaves=int(leaves),
            paths=tuple(path[-PATH_MAX:] for path in paths[:PATHS_MAX]),
            more=more,
        )
        return self._sealed(KIND_PRESENCE, encode_presence(presence))

    def _sealed(self, kind: int, payload: bytes) -> bytes:
        return encode_frame(self.room.seal(self._identity.keys, kind, payload, self._entropy))
