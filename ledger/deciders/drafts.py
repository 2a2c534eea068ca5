"""A draft: a decision before it has its place in the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ledger.events.decisions import Decision


@dataclass(frozen=True, slots=True)
class Draft:
    """One decision, when it holds (UTC), under which policy, and the guard values it saw."""

    data: Decision
    effective: datetime
    policy: int
    guards: dict[str, int] = field(default_factory=dict)
