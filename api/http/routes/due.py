"""What falls due, whom to follow up, what goes back to the pool, and holding that back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from psycopg import Connection
from pydantic import Field

from api.awaiting import deadline_words
from api.falling_due import Beside, beside, every_fall, unstated_years
from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, CursorError, Limit, make_cursor, page_of, read_cursor
from api.http.permissions import Permission
from api.http.services import InReads, InServices
from api.http.shapes import Outcome, Page, Shape
from api.http.sight import note_access, sight_of
from api.http.writing import (
    InWrites,
    asked_for,
)
from consumers.clock import database_now
from ledger import commands
from ledger.commands import Code, Day, Id, Note
from projections import deadlines, follow_ups
from projections.deadlines import DueRow
from projections.follow_ups import FollowUp

router = APIRouter(prefix="/v1", tags=["due"])
DAYS_MAX = 3_650
Days = Annotated[int, Query(ge=0, le=DAYS_MAX, description="Within so many days.")]


class FallsDue(Shape):
    """What falls due at a customer: ``then`` (a code, and in ``words``) happens about ``subject``.

    ``awaits`` is who may answer or rule today. ``goes`` is when the customer goes back to the pool
    if nobody does anything, for ``because``; ``last_follow_up_is_token`` says that the last
    follow-up only repeats another, and holds nothing back.
    """

    due: datetime
    overdue: bool
    customer: str
    then: str = Field(examples=["recycle_warning"])
    words: str = Field(examples=["the owner is warned"])
    subject: str
    owner: str | None
    awaits: list[str]
    goes: datetime | None
    because: str | None
    last_follow_up_is_token: bool


class ToFollowUp(Shape):
    """A customer whose last follow-up said when the next one is to be: ``next_on``, a day.

    ``note`` and ``agreed`` are seen within one's scope, and by who wrote them.
    """

    customer: str
    follow_up: str
    person: str
    next_on: date
    overdue: bool
    at: datetime
    channel: str
    note: str | None
    agreed: str | None
    masked: bool


class Goes(Shape):
    """A customer that goes back to the pool if nobody does anything, on which day and why."""

    day: date
    falls: datetime
    customer: str
    owner: str | None
    because: str | None
    next: datetime = Field(description="When something happens about it next.")
    then: str = Field(examples=["recycle_warning"])


class Count(Shape):
    """So many customers of somebody go back to the pool on a day."""

    day: date
    owner: str | None
    customers: int


class Forecast(Page[Goes]):
    """A page of what goes back to the pool.

    Of ``provisional_years`` no holidays are stated: Monday to Friday count as working days there.
    """

    provisional_years: list[int]


class Counts(Page[Count]):
    """A page of how much goes back to the pool; ``provisional_years`` as of the forecast."""

    provisional_years: list[int]


class Hindrance(Shape):
    """What keeps a customer from the pool, though nobody works it.

    ``subject`` is the approval, conflict or import that is open; ``until`` the moment at which an
    absence or a hold is over; ``rule`` the number of the policy's rule that exempts it, from 0.
    """

    by: str = Field(examples=["on_hold"])
    subject: str | None
    until: datetime | None
    rule: int | None


class KeptCustomer(Shape):
    """A customer that is kept from the pool, whose it is, and by what."""

    customer: str
    owner: str
    kept: list[Hindrance]


class HoldIn(commands.Command):
    """Until the day before ``until`` nothing is counted towards the recycling of the customer."""

    until: Day
    reason_code: Code = "held"
    reason: Note | None = None


@router.get("/due")
def list_due(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    days: Days = 7,
    owner: Annotated[Id | None, Query(description="Only at customers of this person.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[FallsDue]:
    """List what falls due soon, and what then happens unless somebody acts; the first one first."""
    after = _moment_and_customer(cursor, "due")
    with services.reading(reads) as connection:
        now = database_now(connection)
        found = deadlines.due(
            connection, now + timedelta(days=days), owner=owner, after=after, limit=limit + 1
        )
        rows, following = page_of(
            found, limit, lambda row: make_cursor("due", _text(row.due), row.customer)
        )
        said = beside(connection, rows, caller.organisation, now)
    return Page(items=[_falls_due(row, said, now) for row in rows], next=following)


def _falls_due(row: DueRow, said: Beside, now: datetime) -> FallsDue:
    return FallsDue(
        due=row.due,
        overdue=row.due <= now,
        customer=row.customer,
        then=row.kind,
        words=deadline_words(row.kind),
        subject=row.subject,
        owner=said.owners.get(row.customer),
        awaits=list(said.awaited.get(row.subject, ())),
        goes=row.falls,
        because=row.because,
        last_follow_up_is_token=row.customer in said.tokens,
    )


@router.get("/due/follow-ups")
def list_follow_ups_due(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    days: Days = 0,
    person: Annotated[Id | None, Query(description="Only those of this person.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ToFollowUp]:
    """List whom to follow up until today, or within some days; the most overdue first."""
    after = read_cursor(cursor, "follow_ups_due", str, int)
    behind = (_day(after[0]), after[1]) if after else (date.min, 0)
    with services.reading(reads) as connection:
        found = follow_ups.due(
            connection,
            caller.day + timedelta(days=days),
            person=person,
            after=behind,
            limit=limit + 1,
        )
        rows, following = page_of(
            found,
            limit,
            lambda row: make_cursor("follow_ups_due", str(row.next_on), row.position),
        )
        items = _to_follow_up(connection, caller, request.scope["route"].path, rows)
    return Page(items=items, next=following)


def _to_follow_up(
    connection: Connection[Any], caller: Caller, route: str, rows: Sequence[FollowUp]
) -> list[ToFollowUp]:
    """Return follow-ups as the caller may see them; that their words are seen is noted."""
    sight = sight_of(connection, caller, {row.customer for row in rows})
    visible = {row.follow_up for row in rows if sight.shows(row.customer, row.person, row.actor)}
    worded = [row for row in rows if row.follow_up in visible and (row.note or row.agreed)]
    fields = {name for row in worded for name in ("note", "agreed") if getattr(row, name)}
    note_access(connection, caller, route, {row.customer for row in worded}, fields)
    return [_to_be_followed_up(caller, row, row.follow_up in visible) for row in rows]


def _to_be_followed_up(caller: Caller, row: FollowUp, is_seen: bool) -> ToFollowUp:
    if row.next_on is None:
        raise AssertionError("what is due has a day")
    return ToFollowUp(
        customer=row.customer,
        follow_up=row.follow_up,
        person=row.person,
        next_on=row.next_on,
        overdue=row.next_on < caller.day,
        at=row.at,
        channel=row.channel,
        note=row.note if is_seen else None,
        agreed=row.agreed if is_seen else None,
        masked=not is_seen,
    )


# --- recycling -----------------------------------------------------------------------------------


@router.get("/recycling/forecast", operation_id="forecast_recycling")
def forecast(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    days: Days = 30,
    owner: Annotated[Id | None, Query(description="Only those of this person.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Forecast:
    """List which customers go back to the pool if nobody does anything; the first one first."""
    after = _moment_and_customer(cursor, "forecast")
    organisation = caller.organisation
    with services.reading(reads) as connection:
        now = database_now(connection)
        until = now + timedelta(days=days)
        found = every_fall(connection, until, owner=owner, after=after, limit=limit + 1)
        years = unstated_years(connection, organisation, now)
    rows, following = page_of(
        found, limit, lambda row: make_cursor("forecast", _text(row.falls), row.customer)
    )
    items = [_goes(caller, row) for row in rows]
    return Forecast(items=items, next=following, provisional_years=years)


def _goes(caller: Caller, row: DueRow) -> Goes:
    if row.falls is None:
        raise AssertionError("what falls has a moment")
    return Goes(
        day=caller.organisation.day(row.falls),
        falls=row.falls,
        customer=row.customer,
        owner=row.owner,
        because=row.because,
        next=row.due,
        then=row.kind,
    )


@router.get("/recycling/forecast/counts", operation_id="count_recycling")
def forecast_counts(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    days: Days = 30,
    owner: Annotated[Id | None, Query(description="Only those of this person.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Counts:
    """Count what goes back to the pool by day and owner, if nobody does anything."""
    after = read_cursor(cursor, "counts", str, str)
    behind = (_day(after[0]), after[1]) if after else (date.min, "")
    organisation = caller.organisation
    with services.reading(reads) as connection:
        now = database_now(connection)
        found = deadlines.falling_by_day(
            connection,
            now + timedelta(days=days),
            organisation.time_zone.key,
            owner=owner,
            after=behind,
            limit=limit + 1,
        )
        years = unstated_years(connection, organisation, now)
    rows, following = page_of(found, limit, lambda row: make_cursor("counts", str(row[0]), row[1]))
    items = [Count(day=day, owner=person or None, customers=many) for day, person, many in rows]
    return Counts(items=items, next=following, provisional_years=years)


@router.get("/recycling/kept")
def list_kept(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    owner: Annotated[Id | None, Query(description="Only those of this person.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[KeptCustomer]:
    """List what is kept from the pool, and by what: an absence, a hold, what is open, a rule.

    A page may hold less than its limit, and even nothing, while ``next`` names a further one.
    """
    after = read_cursor(cursor, "kept", str)
    with services.reading(reads) as connection:
        rows, behind = deadlines.kept(
            connection,
            caller.organisation,
            database_now(connection),
            owner=owner,
            after=after[0] if after else "",
            limit=limit,
        )
    following = make_cursor("kept", behind) if behind else None
    return Page(items=[KeptCustomer.model_validate(row) for row in rows], next=following)


@router.post(
    "/customers/{customer}/holds",
    status_code=202,
    responses={201: {"model": Outcome}},
    operation_id="hold_recycling",
)
async def hold(
    customer: Annotated[Id, Path(description="The customer's id.")],
    held: HoldIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.HOLD)],
    writes: InWrites,
) -> Outcome:
    """Have a customer not recycled until a day, as a head over it."""
    fields = held.model_dump(exclude_unset=True) | {"customer": customer}
    return await asked_for(services, caller, writes, commands.HoldRecycling, fields)


# --- cursors -------------------------------------------------------------------------------------


def _text(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).isoformat()


def _moment_and_customer(cursor: str | None, kind: str) -> tuple[datetime, str]:
    after = read_cursor(cursor, kind, str, str)
    if after is None:
        return deadlines.BEGINNING
    try:
        moment = datetime.fromisoformat(after[0])
    except ValueError:
        raise CursorError from None
    if moment.utcoffset() is None:
        raise CursorError
    return moment, after[1]


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CursorError from None
