"""A draft: what follows from a request, before it has its place in the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ledger.events.decisions import Decision


@dataclass(frozen=True, slots=True)
class Draft:
    """Decisions on one request, when they hold (UTC), under which policy, and the guards seen.

    ``data`` is the first, and about the customer that the request is about; ``more`` are the
    others, which may be about other customers. All are recorded together, and hold at one moment:
    none before what any of these customers saw last.

    A request that is decided in parts has a draft for each: ``ordinal`` is that of its first
    decision, and ``is_last`` says that nothing is left. Deciding again brings the next part once
    this one is folded.
    """

    data: Decision
    effective: datetime
    policy: int
    guards: dict[str, int] = field(default_factory=dict)
    more: tuple[Decision, ...] = ()
    ordinal: int = 0
    is_last: bool = True

    @property
    def all(self) -> tuple[Decision, ...]:
        """All decisions, in order."""
        return (self.data, *self.more)
