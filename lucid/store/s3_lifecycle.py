"""Which lifecycle rules of a bucket would take objects away from a filespace. Pure."""

from __future__ import annotations

from typing import Any

__all__ = ["harm_of"]


def harm_of(rule: dict[str, Any], prefix: str) -> str:
    """What a lifecycle rule would do to objects below `prefix`, or nothing."""
    where = rule.get("Filter", {})
    rule_prefix = str(
        where.get("And", {}).get("Prefix") or where.get("Prefix") or rule.get("Prefix") or ""
    )
    overlaps = rule_prefix.startswith(prefix) or prefix.startswith(rule_prefix)
    if rule.get("Status") != "Enabled" or not overlaps:
        return ""
    expiration = rule.get("Expiration", {})
    if "Days" in expiration or "Date" in expiration:
        return "deletes"
    classes = {str(step.get("StorageClass")) for step in rule.get("Transitions", ())}
    return "archives" if classes & {"GLACIER", "DEEP_ARCHIVE"} else ""
