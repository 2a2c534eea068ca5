"""What an import has brought, counted from the decisions that the log holds of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from ledger import reasons
from ledger.events import decisions, requests
from ledger.events.catalogue import Catalogue
from ledger.organisation import OrganisationAt
from ledger.store.reading import replay


@dataclass(slots=True)
class Outcome:
    """Counts of one territory (that of whoever acted), or of all together."""

    claims: int = 0
    granted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    deals: int = 0
    deals_by_non_owners: int = 0
    follow_ups: int = 0
    out_of_order: int = 0
    # Grants that today's policy would have refused, by reason.
    limits_waived: Counter[str] = field(default_factory=Counter)
    grants_with_limits_waived: int = 0


@dataclass(slots=True)
class Report:
    """An import's outcome as a whole and by territory id ("" for people without one)."""

    customers: int = 0
    customers_refused: Counter[str] = field(default_factory=Counter)
    total: Outcome = field(default_factory=Outcome)
    by_territory: dict[str, Outcome] = field(default_factory=dict)


def report(
    connection: Connection[Any],
    catalogue: Catalogue,
    organisation: OrganisationAt,
    import_ids: Iterable[str],
) -> Report:
    """Read the log from the first of these imports on, and count their decisions."""
    wanted = set(import_ids)
    first = min(
        (each.opened_position for each in organisation.imports() if each.import_id in wanted),
        default=None,
    )
    counted = Report()
    if first is None:
        return counted
    counting = _Counting(counted, organisation)
    for event in replay(connection, catalogue, first):
        if event.envelope.get("import") in wanted:
            counting.count(event)
    return counted


@dataclass(slots=True)
class _Counting:
    report: Report
    organisation: OrganisationAt
    # Requests that wait for their decision: whose act, by position; bounded by what is undecided.
    open_acts: dict[int, tuple[str, Any]] = field(default_factory=dict)

    def count(self, event: Any) -> None:
        data = event.data
        if event.causation is None:
            self.open_acts[event.position] = (event.actor, type(data))
            return
        actor, kind = self.open_acts.pop(event.causation, ("", None))
        match data:
            case decisions.CustomerAdmitted():
                self.report.customers += 1
                return
            case decisions.RegistrationRefused():
                self.report.customers_refused[data.reason] += 1
                return
            case _:
                pass
        person = self.organisation.person(actor)
        territory = (person and person.territory) or ""
        for outcome in (
            self.report.total,
            self.report.by_territory.setdefault(territory, Outcome()),
        ):
            _add(outcome, data, kind)


def _add(outcome: Outcome, data: Any, kind: Any) -> None:
    match data:
        case decisions.OwnershipGranted():
            outcome.claims += 1
            outcome.granted += 1
            outcome.limits_waived.update(data.limits_waived)
            outcome.grants_with_limits_waived += bool(data.limits_waived)
        case decisions.ClaimRefused():
            outcome.claims += 1
            outcome.refused[data.reason] += 1
        case decisions.OwnershipReleased():
            outcome.ended += 1
        case decisions.Noted():
            is_deal = kind is requests.DealRecorded
            outcome.deals += is_deal
            outcome.follow_ups += kind is requests.FollowUpLogged
            outcome.deals_by_non_owners += is_deal and data.remark == reasons.DEAL_BY_NON_OWNER
            outcome.out_of_order += data.remark == reasons.HISTORY_OUT_OF_ORDER
        case _:
            pass
