"""What a hub counts, for /metrics. No room and no address is in it. The hub's one thread."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

__all__ = ["Metrics"]


class Metrics:
    """The counters of one hub process."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.connections = Gauge(
            "lucid_hub_connections", "Connections that are open.", registry=registry
        )
        self.rooms = Gauge("lucid_hub_rooms", "Rooms that somebody is in.", registry=registry)
        self.entered = Counter(
            "lucid_hub_entered", "Clients that entered a room.", registry=registry
        )
        self.refused = Counter(
            "lucid_hub_refused", "Connections that were refused or cut, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self.messages = Counter(
            "lucid_hub_messages", "Messages that came from clients.", registry=registry
        )
        self.relayed = Counter(
            "lucid_hub_relayed", "Messages that went to clients.", registry=registry
        )
        self.webhooks = Counter(
            "lucid_hub_webhooks", "Webhooks that came, by result.", ["result"], registry=registry
        )
        self.backplane = Gauge(
            "lucid_hub_backplane_connected", "1 while the backplane answers.", registry=registry
        )

    def text(self) -> bytes:
        """In the text form of Prometheus."""
        return generate_latest(self._registry)
