"""Given / when / then for the deciders: a story in memory, without a database."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from ledger.deciders import LATEST, decider
from ledger.deciders.drafts import Draft
from ledger.envelope import Event
from ledger.events.catalogue import Catalogue, catalogue
from ledger.events.decisions import Decision
from ledger.events.organisation import OrganisationFact
from ledger.events.requests import Request
from ledger.organisation import Organisation
from ledger.settled import Settled

START = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)  # nine in the morning in Shanghai, a Monday


@dataclass
class Story:
    """What was recorded and decided so far; ``now`` is the recorded time of what comes next."""

    now: datetime = START
    version: int = LATEST
    events: Catalogue = field(default_factory=catalogue)
    organisation: Organisation = field(default_factory=Organisation)
    settled: Settled = field(default_factory=lambda: Settled(complete=True))
    position: int = 0
    draft: Draft | None = None

    def _event(self, stream: str, data: Any, **envelope: Any) -> Event:
        self.position += 1
        name = self.events.name_of(data)
        written = {"actor": "per_admin", "caller": "test", **envelope}
        return Event(self.position, self.now, stream, self.position, name, written, data)

    def given(self, *facts: OrganisationFact) -> Self:
        """State facts of the organisation."""
        for fact in facts:
            self.organisation.apply(self._event("organisation", fact))
        return self

    def when(
        self,
        request: Request,
        *,
        by: str = "per_admin",
        on: datetime | None = None,
        under: str | None = None,
    ) -> Self:
        """Record a request, decide it, and fold the decision."""
        envelope: dict[str, Any] = {"actor": by}
        if on is not None:
            envelope["occurred"] = on.isoformat()
        if under is not None:
            envelope["import"] = under
        event = self._event(f"customer-{request.customer}", request, **envelope)
        organisation = self.organisation.at(event.position)
        decided: list[Decision] = []
        is_last = False
        while not is_last:  # a hand-over is decided in parts
            draft = decider(self.version)(self.settled, event, organisation)
            assert draft.ordinal == len(decided)
            for data in draft.all:
                self.settled.apply(event, data, draft.effective, organisation)
                self.position += 1
            decided += draft.all
            is_last = draft.is_last
            self.draft = replace(draft, data=decided[0], more=tuple(decided[1:]), ordinal=0)
        return self

    def then(self, *expected: Decision) -> Self:
        """Say what the last request must have brought, all of it and in this order."""
        assert self.draft is not None
        assert self.draft.all == expected
        return self

    @property
    def decided(self) -> Decision:
        """The first decision on the last request."""
        assert self.draft is not None
        return self.draft.data

    @property
    def effective(self) -> datetime:
        """When the last decision holds."""
        assert self.draft is not None
        return self.draft.effective

    def later(self, **by: float) -> Self:
        """Let time pass."""
        self.now += timedelta(**by)
        return self
