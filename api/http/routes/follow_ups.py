"""Follow-ups: logging, correcting and voiding them, and reading them.

What was said and agreed is seen within one's scope: of own follow-ups, and at customers that are
the caller's, that the caller works at, or that lie in the caller's territories.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from psycopg import Connection

from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.lookup import must_exist
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.routes.customers import CustomerId, Number
from api.http.services import InReads, InServices
from api.http.shapes import MISSING, Outcome, Page, Shape
from api.http.sight import note_access, sight_of
from api.http.writing import (
    InWrites,
    asked_for,
    show_version,
)
from ledger import commands, reasons
from ledger.commands import Code, Day, Id, Moment, Note, Numbers
from projections import follow_ups

router = APIRouter(prefix="/v1", tags=["follow-ups"])
FollowUpId = Annotated[Id, Path(description="The follow-up's id.")]
_OF_CUSTOMER = "/customers/{customer}/follow-ups"
_ONE = _OF_CUSTOMER + "/{follow_up}"
_PERSONAL = ("note", "agreed")


class FollowUpIn(commands.Command):
    """A follow-up: how it was done, what was said and agreed, and when the next one is due.

    Without ``person`` it is the caller's. ``occurred`` says when it was, if that was not now.
    """

    person: Id | None = None
    channel: Code = "call"
    note: Note | None = None
    agreed: Note | None = None
    next_on: Day | None = None
    contact: Id | None = None
    site: Id | None = None
    foreign_ids: Numbers = ()
    occurred: Moment | None = None


class FollowUpCorrection(commands.Command):
    """What is corrected (what is not given stays), and why. ``at`` is when it was."""

    channel: Code | None = None
    note: Note | None = None
    agreed: Note | None = None
    next_on: Day | None = None
    at: Moment | None = None
    reason_code: Code = "corrected"
    reason: Note | None = None


class VoidIn(commands.Command):
    """Why it is to count no more: a word for programs, and words for people, which are sealed."""

    reason_code: Code = "voided"
    reason: Note | None = None


class FollowUp(Shape):
    """A follow-up as it stands after its corrections.

    ``person`` made it, ``actor`` entered it. ``remark`` is what was noted at its decision;
    ``by_owner`` says whether the customer's owner made it (None: not known). One that is
    ``voided`` does not count. ``masked`` says that ``note`` and ``agreed`` are left out for this
    caller; ``position`` is that of its request.
    """

    follow_up: str
    position: int
    customer: str
    person: str
    actor: str
    at: datetime
    recorded: datetime
    channel: str
    note: str | None
    agreed: str | None
    next_on: date | None
    contact: str | None
    site: str | None
    foreign_ids: list[Number]
    decided_position: int | None
    remark: str | None
    sentence: str | None
    by_owner: bool | None
    corrections: int
    voided: bool
    void_code: str | None
    masked: bool = False


# --- writing -----------------------------------------------------------------------------------


@router.post(_OF_CUSTOMER, status_code=202, responses={201: {"model": Outcome}})
async def log_follow_up(
    customer: CustomerId,
    body: FollowUpIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WORK)],
    writes: InWrites,
) -> Outcome:
    """Log a follow-up; ``made`` is its id, and ``Location`` names it."""
    fields = body.model_dump(exclude_unset=True, exclude={"occurred"})
    fields |= {"customer": customer, "person": body.person or caller.actor}
    said = await asked_for(
        services, caller, writes, commands.LogFollowUp, fields, occurred=body.occurred
    )
    writes.response.headers["Location"] = f"/v1/customers/{customer}/follow-ups/{said.made}"
    return said


@router.patch(_ONE, status_code=202, responses={201: {"model": Outcome}})
async def correct_follow_up(
    customer: CustomerId,
    follow_up: FollowUpId,
    body: FollowUpCorrection,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WORK)],
    writes: InWrites,
) -> Outcome:
    """Correct a follow-up, as whoever logged it or a manager over the customer."""
    fields = body.model_dump(exclude_unset=True) | {"customer": customer, "follow_up": follow_up}
    return await asked_for(services, caller, writes, commands.CorrectFollowUp, fields)


@router.post(_ONE + "/void", status_code=202, responses={201: {"model": Outcome}})
async def void_follow_up(
    customer: CustomerId,
    follow_up: FollowUpId,
    body: VoidIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WORK)],
    writes: InWrites,
) -> Outcome:
    """Void a follow-up, so that it counts no more; it stays in the history."""
    fields = body.model_dump(exclude_unset=True) | {"customer": customer, "follow_up": follow_up}
    return await asked_for(services, caller, writes, commands.VoidFollowUp, fields)


# --- reading -----------------------------------------------------------------------------------


@router.get(_OF_CUSTOMER, responses=MISSING, operation_id="list_follow_ups_of_customer")
def list_of_customer(
    customer: CustomerId,
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[FollowUp]:
    """List a customer's follow-ups in the order of entry, voided ones too."""
    after = read_cursor(cursor, "follow-ups", int)
    with services.reading(reads) as connection:
        must_exist(connection, customer)
        found = follow_ups.of_customer(
            connection, customer, after=after[0] if after else 0, limit=limit + 1
        )
        return _page(connection, caller, request, found, limit)


@router.get("/follow-ups", operation_id="list_follow_ups")
def list_of_person(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    person: Annotated[Id, Query(description="Who made them.")],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[FollowUp]:
    """List a person's follow-ups in the order of entry, voided ones too."""
    after = read_cursor(cursor, "follow-ups", int)
    with services.reading(reads) as connection:
        found = follow_ups.of_person(
            connection, person, after=after[0] if after else 0, limit=limit + 1
        )
        return _page(connection, caller, request, found, limit)


@router.get(_ONE, responses=MISSING)
def get_follow_up(
    customer: CustomerId,
    follow_up: FollowUpId,
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
) -> FollowUp:
    """Return a follow-up as it stands after its corrections."""
    with services.reading(reads) as connection:
        found = follow_ups.follow_up(connection, follow_up)
        if found is None or found.customer != customer:
            raise NotFoundError("follow-up", follow_up)
        show_version(connection, reads, customer)
        return _page(connection, caller, request, [found], 1).items[0]


def _page(
    connection: Connection[Any],
    caller: Caller,
    request: Request,
    found: Sequence[follow_ups.FollowUp],
    limit: int,
) -> Page[FollowUp]:
    """Return a page as the caller may see it; what is seen of the personal is noted."""
    page, following = page_of(found, limit, lambda each: make_cursor("follow-ups", each.position))
    sight = sight_of(connection, caller, (each.customer for each in page))
    seen = {each.follow_up for each in page if sight.shows(each.customer, each.person, each.actor)}
    told = [each for each in page if each.follow_up in seen and (each.note or each.agreed)]
    route = request.scope["route"].path
    note_access(connection, caller, route, (each.customer for each in told), _PERSONAL)
    items = [_shown(each, masked=each.follow_up not in seen) for each in page]
    return Page(items=items, next=following)


def _shown(each: follow_ups.FollowUp, *, masked: bool) -> FollowUp:
    return FollowUp(
        follow_up=each.follow_up,
        position=each.position,
        customer=each.customer,
        person=each.person,
        actor=each.actor,
        at=each.at,
        recorded=each.recorded,
        channel=each.channel,
        note=None if masked else each.note,
        agreed=None if masked else each.agreed,
        next_on=each.next_on,
        contact=each.contact,
        site=each.site,
        foreign_ids=[Number.model_validate(number) for number in each.foreign_ids],
        decided_position=each.decided_position,
        remark=each.remark,
        sentence=reasons.SENTENCES.get(each.remark) if each.remark else None,
        by_owner=each.by_owner,
        corrections=each.corrections,
        voided=not each.stands,
        void_code=each.void_code,
        masked=masked,
    )
