"""How long a store is waited for. Apart from connections: not every store needs those."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Timeouts"]


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for a connection, and for the next bytes of an answer."""

    connect_s: float = 5.0
    read_s: float = 20.0
