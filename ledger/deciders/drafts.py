"""A draft: what follows from a request, before it has its place in the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ledger.events.decisions import Decision


@dataclass(frozen=True, slots=True)
class Draft:
    """Decisions on one request, when they hold (UTC), under which policy, and the guards seen.

    ``data`` is the first, ``more`` are the others: all are about one customer, and recorded
    together.
    """

    data: Decision
    effective: datetime
    policy: int
    guards: dict[str, int] = field(default_factory=dict)
    more: tuple[Decision, ...] = ()

    @property
    def all(self) -> tuple[Decision, ...]:
        """All decisions, in order."""
        return (self.data, *self.more)
