"""A customer's past: what was asked and decided, whose it was, and the claims of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from psycopg import Connection
from pydantic import AwareDatetime

from api.http.admission import requires
from api.http.callers import Caller
from api.http.claiming import Claim
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.lookup import must_exist
from api.http.permissions import Permission
from api.http.routes.claims import page_of_claims
from api.http.routes.customers import CustomerId
from api.http.services import InReads, InServices
from api.http.shapes import MISSING, Money, Page, Shape
from api.http.sight import Sight, note_access, sight_of
from ledger import reasons
from ledger.store.reading import recorded_at
from projections import claims, intervals, timeline
from projections.timeline import TimelineEntry

router = APIRouter(prefix="/v1/customers/{customer}", tags=["history"])
# What somebody did, whoever entered it.
_DONE = frozenset({"FollowUpLogged", "DealRecorded"})


class Entry(Shape):
    """One event of a customer's history.

    ``actor`` is whose act it was (``enforcer`` for decisions), ``request`` the position of a
    decision's request, ``person`` whom it concerns, ``code`` a reason or remark, and ``sentence``
    says it in words. ``value`` and ``words`` (free texts by field; None where erased) are left out
    where they are ``masked`` for this caller.
    """

    position: int
    event: str
    actor: str
    effective: datetime
    recorded: datetime
    request: int | None
    person: str | None
    code: str | None
    sentence: str | None
    value: Money | None
    details: dict[str, Any]
    words: dict[str, str | None]
    masked: bool = False


class Interval(Shape):
    """One ownership on both axes of time.

    It held from ``from_effective`` until before ``to_effective`` (None: it holds); the ledger knew
    of its beginning from ``from_recorded`` on, and of its end from ``to_recorded`` on, by the
    events at these positions. ``begun_by`` and ``ended_by`` say how; ``end_reason`` why it was
    released; ``next_owner`` whose the customer was then.
    """

    owner: str
    from_effective: datetime
    to_effective: datetime | None
    from_position: int
    from_recorded: datetime
    to_position: int | None
    to_recorded: datetime | None
    begun_by: str
    assigned_by: str | None
    ended_by: str | None
    end_reason: str | None
    next_owner: str | None


@router.get("/history", responses=MISSING, operation_id="get_history")
def history(
    customer: CustomerId,
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Entry]:
    """Tell a customer's history from the newest back: every request and decision about it.

    Free texts and values are seen within one's scope, and in one's own acts.
    """
    after = read_cursor(cursor, "history", int)
    with services.reading(reads) as connection:
        must_exist(connection, customer)
        found = timeline.latest(
            connection,
            customer,
            before=after[0] if after else timeline.POSITION_MAX,
            limit=limit + 1,
        )
        page, following = page_of(found, limit, lambda each: make_cursor("history", each.position))
        sight = sight_of(connection, caller, [customer])
        _note(connection, caller, request, [each for each in page if _is_seen(sight, each)])
    items = [_entry(each, masked=not _is_seen(sight, each)) for each in page]
    return Page(items=items, next=following)


@router.get("/intervals", responses=MISSING, operation_id="list_ownerships")
def ownerships(
    customer: CustomerId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    known_at: Annotated[
        AwareDatetime | None, Query(description="As the ledger knew it at a moment.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Interval]:
    """List whose a customer was, in order, on both axes of time."""
    after = read_cursor(cursor, "intervals", int)
    with services.reading(reads) as connection:
        must_exist(connection, customer)
        known = intervals.POSITION_MAX
        if known_at is not None:
            known = intervals.position_at(connection, known_at)
        found = intervals.of_customer(
            connection, customer, after=after[0] if after else 0, limit=limit + 1
        )
        there = [each for each in found if each.from_position <= known]
        page, following = page_of(
            there, limit, lambda each: make_cursor("intervals", each.from_position)
        )
        positions = [at for each in page for at in (each.from_position, each.to_position) if at]
        recorded = recorded_at(connection, positions)
    return Page(items=[_interval(each, known, recorded) for each in page], next=following)


@router.get("/claims", responses=MISSING, operation_id="list_claims_of_customer")
def claims_of(
    customer: CustomerId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    status: claims.Status | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Claim]:
    """List a customer's claims from the newest back, those filed for it as a duplicate too."""
    with services.reading(reads) as connection:
        must_exist(connection, customer)
        return page_of_claims(services, connection, customer, None, status, limit, cursor)


def _has_personal(entry: TimelineEntry) -> bool:
    return bool(entry.words) or entry.value is not None


def _is_seen(sight: Sight, entry: TimelineEntry) -> bool:
    """Say whether all of an entry is seen: it has nothing personal, or that is for the caller."""
    people = (entry.actor, entry.person if entry.event in _DONE else None)
    return not _has_personal(entry) or sight.shows(entry.customer, *people)


def _note(
    connection: Connection[Any], caller: Caller, request: Request, seen: Sequence[TimelineEntry]
) -> None:
    fields = {name for each in seen for name, text in each.words.items() if text is not None}
    fields |= {"value" for each in seen if each.value is not None}
    subjects = {each.customer for each in seen if _has_personal(each)}
    note_access(connection, caller, request.scope["route"].path, subjects, fields)


def _entry(entry: TimelineEntry, *, masked: bool) -> Entry:
    return Entry(
        position=entry.position,
        event=entry.event,
        actor=entry.actor,
        effective=entry.effective,
        recorded=entry.recorded,
        request=entry.request,
        person=entry.person,
        code=entry.code,
        sentence=reasons.SENTENCES.get(entry.code) if entry.code else None,
        value=None if masked or entry.value is None else Money.model_validate(entry.value),
        details=dict(entry.details),
        words={} if masked else dict(entry.words),
        masked=masked,
    )


def _interval(each: intervals.Interval, known: int, recorded: dict[int, datetime]) -> Interval:
    """Return an ownership as it was known up to a position: an end behind it was not."""
    to_position = each.to_position
    has_ended = to_position is not None and to_position <= known
    return Interval(
        owner=each.owner,
        from_effective=each.from_effective,
        from_position=each.from_position,
        from_recorded=recorded[each.from_position],
        begun_by=each.begun_by,
        assigned_by=each.assigned_by,
        to_position=to_position if has_ended else None,
        to_recorded=recorded[to_position] if has_ended and to_position is not None else None,
        to_effective=each.to_effective if has_ended else None,
        ended_by=each.ended_by if has_ended else None,
        end_reason=each.end_reason if has_ended else None,
        next_owner=each.next_owner if has_ended else None,
    )
