"""Deals won and lost: recording, correcting and voiding them, and reading them.

Their values are seen within one's scope: of own deals, and at customers that are the caller's,
that the caller works at, or that lie in the caller's territories.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from psycopg import Connection

from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.lookup import must_exist
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.routes.customers import CustomerId, Number
from api.http.routes.follow_ups import VoidIn
from api.http.services import InReads, InServices
from api.http.shapes import MISSING, Money, Outcome, Page, Shape
from api.http.sight import note_access, sight_of
from api.http.writing import (
    InWrites,
    asked_for,
    show_version,
)
from ledger import commands, reasons
from ledger.commands import Code, Id, Moment, MoneyIn, Name, Note, Numbers
from ledger.events import values
from projections import deals

router = APIRouter(prefix="/v1", tags=["deals"])
DealId = Annotated[Id, Path(description="The deal's id.")]
_OF_CUSTOMER = "/customers/{customer}/deals"
_ONE = _OF_CUSTOMER + "/{deal}"
_PERSONAL = ("value",)


class DealIn(commands.Command):
    """A deal won or lost. Without ``person`` it is the caller's; ``occurred`` says when it was."""

    outcome: Literal["won", "lost"]
    person: Id | None = None
    value: MoneyIn | None = None
    product: Name | None = None
    foreign_ids: Numbers = ()
    occurred: Moment | None = None


class DealCorrection(commands.Command):
    """What is corrected (what is not given stays), and why."""

    outcome: Literal["won", "lost"] | None = None
    value: MoneyIn | None = None
    product: Name | None = None
    reason_code: Code = "corrected"
    reason: Note | None = None


class Deal(Shape):
    """A deal as it stands after its corrections.

    ``person`` made it, ``actor`` entered it. ``remark`` is what was noted at its decision;
    ``by_owner`` says whether the customer's owner made it (None: not known). ``counts`` says that
    it is decided, not voided, and at a customer that was admitted. ``masked`` says that ``value``
    is left out for this caller; ``position`` is that of its request.
    """

    deal: str
    position: int
    customer: str
    person: str
    actor: str
    at: datetime
    recorded: datetime
    outcome: Literal["won", "lost"]
    value: Money | None
    product: str | None
    foreign_ids: list[Number]
    decided_position: int | None
    remark: str | None
    sentence: str | None
    by_owner: bool | None
    corrections: int
    counts: bool
    voided: bool
    void_code: str | None
    masked: bool = False


# --- writing -----------------------------------------------------------------------------------


@router.post(_OF_CUSTOMER, status_code=202, responses={201: {"model": Outcome}})
async def record_deal(
    customer: CustomerId,
    body: DealIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WORK)],
    writes: InWrites,
) -> Outcome:
    """Record a deal; ``made`` is its id, and ``Location`` names it."""
    fields = body.model_dump(exclude_unset=True, exclude={"occurred"})
    fields |= {"customer": customer, "person": body.person or caller.actor}
    said = await asked_for(
        services, caller, writes, commands.RecordDeal, fields, occurred=body.occurred
    )
    writes.response.headers["Location"] = f"/v1/customers/{customer}/deals/{said.made}"
    return said


@router.patch(_ONE, status_code=202, responses={201: {"model": Outcome}})
async def correct_deal(
    customer: CustomerId,
    deal: DealId,
    body: DealCorrection,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WORK)],
    writes: InWrites,
) -> Outcome:
    """Correct a deal, as whoever recorded it or a manager over the customer."""
    fields = body.model_dump(exclude_unset=True) | {"customer": customer, "deal": deal}
    return await asked_for(services, caller, writes, commands.CorrectDeal, fields)


@router.post(_ONE + "/void", status_code=202, responses={201: {"model": Outcome}})
async def void_deal(
    customer: CustomerId,
    deal: DealId,
    body: VoidIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WORK)],
    writes: InWrites,
) -> Outcome:
    """Void a deal, so that it counts no more; it stays in the history."""
    fields = body.model_dump(exclude_unset=True) | {"customer": customer, "deal": deal}
    return await asked_for(services, caller, writes, commands.VoidDeal, fields)


# --- reading -----------------------------------------------------------------------------------


@router.get(_OF_CUSTOMER, responses=MISSING, operation_id="list_deals_of_customer")
def list_of_customer(
    customer: CustomerId,
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Deal]:
    """List a customer's deals in the order of entry, voided ones too."""
    after = read_cursor(cursor, "deals", int)
    with services.reading(reads) as connection:
        must_exist(connection, customer)
        found = deals.of_customer(
            connection, customer, after=after[0] if after else 0, limit=limit + 1
        )
        return _page(connection, caller, request, found, limit)


@router.get("/deals", operation_id="list_deals")
def list_of_person(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    person: Annotated[Id, Query(description="Who made them.")],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Deal]:
    """List a person's deals in the order of entry, voided ones too."""
    after = read_cursor(cursor, "deals", int)
    with services.reading(reads) as connection:
        found = deals.of_person(connection, person, after=after[0] if after else 0, limit=limit + 1)
        return _page(connection, caller, request, found, limit)


@router.get(_ONE, responses=MISSING)
def get_deal(
    customer: CustomerId,
    deal: DealId,
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
) -> Deal:
    """Return a deal as it stands after its corrections."""
    with services.reading(reads) as connection:
        found = deals.deal(connection, deal)
        if found is None or found.customer != customer:
            raise NotFoundError("deal", deal)
        show_version(connection, reads, customer)
        return _page(connection, caller, request, [found], 1).items[0]


def _page(
    connection: Connection[Any],
    caller: Caller,
    request: Request,
    found: Sequence[deals.Deal],
    limit: int,
) -> Page[Deal]:
    """Return a page as the caller may see it; what is seen of the personal is noted."""
    page, following = page_of(found, limit, lambda each: make_cursor("deals", each.position))
    sight = sight_of(connection, caller, (each.customer for each in page))
    seen = {each.deal for each in page if sight.shows(each.customer, each.person, each.actor)}
    told = [each for each in page if each.deal in seen and each.value is not None]
    route = request.scope["route"].path
    note_access(connection, caller, route, (each.customer for each in told), _PERSONAL)
    items = [_shown(each, masked=each.deal not in seen) for each in page]
    return Page(items=items, next=following)


def _money(value: values.Money | None) -> Money | None:
    return None if value is None else Money.model_validate(value)


def _shown(each: deals.Deal, *, masked: bool) -> Deal:
    return Deal(
        deal=each.deal,
        position=each.position,
        customer=each.customer,
        person=each.person,
        actor=each.actor,
        at=each.at,
        recorded=each.recorded,
        outcome="won" if each.outcome == "won" else "lost",
        value=_money(None if masked else each.value),
        product=each.product,
        foreign_ids=[Number.model_validate(number) for number in each.foreign_ids],
        decided_position=each.decided_position,
        remark=each.remark,
        sentence=reasons.SENTENCES.get(each.remark) if each.remark else None,
        by_owner=each.by_owner,
        corrections=each.corrections,
        counts=each.counts,
        voided=not each.stands,
        void_code=each.void_code,
        masked=masked,
    )
