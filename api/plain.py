"""Values as JSON can hold them, for the command line and for the results of jobs."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any


def as_json(value: Any) -> Any:
    """Return what JSON can hold: instants in UTC, decimals as text, sets as sorted lists."""
    if is_dataclass(value) and not isinstance(value, type):
        # Not asdict: of a Counter it makes one of the pairs of what was counted and how often.
        return {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(as_json(inner) for inner in value)
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value
