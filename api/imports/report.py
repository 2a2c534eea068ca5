"""What an import has brought, counted from the decisions that the log holds of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from ledger import reasons
from ledger.envelope import Event, StoredEvent, decode
from ledger.events import decisions, requests
from ledger.events.catalogue import Catalogue
from ledger.organisation import OrganisationAt
from ledger.store.reading import read_after, read_requests

PAGE_EVENTS = 5_000


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
    after = first
    while page := read_after(connection, after, PAGE_EVENTS):
        after = page[-1].position
        ruled = _decisions_of(catalogue, page, wanted)
        # Looked up, for an import's requests all stand before the first of their decisions, and to
        # remember them until then takes memory that grows with the rows.
        acts = read_requests(connection, catalogue, [cause for cause, _ in ruled])
        for cause, event in ruled:
            _count(counted, organisation, acts[cause], event.data)
    return counted


def _decisions_of(
    catalogue: Catalogue, page: Iterable[StoredEvent], wanted: set[str]
) -> list[tuple[int, Event]]:
    """Return the decisions of these imports, each after the position of its request."""
    ruled = [
        (each.causation, decode(catalogue, each)) for each in page if each.causation is not None
    ]
    return [(cause, event) for cause, event in ruled if event.import_id in wanted]


def _count(counted: Report, organisation: OrganisationAt, act: Event, data: Any) -> None:
    match data:
        case decisions.CustomerAdmitted():
            counted.customers += 1
        case decisions.RegistrationRefused():
            counted.customers_refused[data.reason] += 1
        case _:
            person = organisation.person(act.actor)
            territory = (person and person.territory) or ""
            for outcome in (
                counted.total,
                counted.by_territory.setdefault(territory, Outcome()),
            ):
                _add(outcome, data, type(act.data))


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
