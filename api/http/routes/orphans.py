"""Orphaned customers: whose owner has left, in whose care they are, and who stands in."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, read_cursor
from api.http.finding import find_soon
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InReads, InServices
from api.http.shapes import MISSING, Outcome, Page, Shape
from api.http.writing import (
    InWrites,
    asked_for,
    stream_version,
)
from api.orphaned import carers, every_orphan, is_in_care_of
from ledger import commands
from ledger.commands import Code, Day, Id, Note
from projections.stand_ins import StandInRow, of_customer, stand_in_of

router = APIRouter(prefix="/v1", tags=["orphans"])
CustomerId = Annotated[Id, Path(description="The customer's id.")]
# So many are looked through for a page of those in the caller's care, at most.
LOOKED_AT_MAX = 5_000


class Orphan(Shape):
    """A customer of ``owner``, who has left: since which day it is nobody's to work.

    ``looked_after_by`` act as its owner; ``stand_in`` works it until a moment.
    """

    customer: str
    owner: str
    owned_since: datetime
    since: date
    customer_territory: str | None
    owner_territory: str | None
    looked_after_by: list[str]
    stand_in: str | None
    stand_in_until: datetime | None


class StandIn(Shape):
    """Who stands in at a customer, or did: until ``until``, or ``ended`` before, for a reason."""

    stand_in: str
    customer: str
    person: str
    owner: str
    named_by: str
    since: datetime
    until: datetime
    ended: datetime | None
    end_reason: str | None
    position: int = Field(validation_alias="opened_position")


class StandInIn(commands.Command):
    """Who stands in, until the day before ``until``."""

    person: Id
    until: Day
    reason_code: Code = "orphaned"
    reason: Note | None = None


class StandInEndIn(commands.Command):
    """What is said with the end of a stand-in."""

    reason_code: Code = "ended"
    reason: Note | None = None


@router.get("/orphans")
def list_orphans(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    owner: Annotated[Id | None, Query(description="Only those of this person, who left.")] = None,
    territory: Annotated[
        Id | None, Query(description="Only what the heads of this and those below look after.")
    ] = None,
    in_care_of: Annotated[
        Id | None, Query(description="Only those at which this person acts as the owner.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Orphan]:
    """List customers whose owner has left, by id.

    With ``in_care_of`` a page may hold less than its limit while ``next`` names a further one.
    """
    after = read_cursor(cursor, "orphans", str)
    # That of the caller may be a second old, and not know yet who has left.
    organisation, now = services.directory.organisation(now=True), datetime.now(UTC)
    last, following = after[0] if after else "", None
    items: list[Orphan] = []
    with services.reading(reads) as connection:
        every = every_orphan(
            connection, organisation, now, territory=territory, owner=owner, after=last
        )
        for number, row in enumerate(every):
            if len(items) == limit or number == LOOKED_AT_MAX:
                following = make_cursor("orphans", last)
                break
            last = row.customer
            if in_care_of is None or is_in_care_of(in_care_of, row, organisation, now):
                fields = {name: getattr(row, name) for name in row.__slots__}
                items.append(Orphan(**fields, looked_after_by=list(carers(row, organisation, now))))
    return Page(items=items, next=following)


@router.get("/customers/{customer}/stand-ins", responses=MISSING)
def list_stand_ins(
    customer: CustomerId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
) -> Page[StandIn]:
    """List who stands in at a customer, or did: the last 200, from the newest back."""
    with services.reading(reads) as connection:
        if not stream_version(connection, f"customer-{customer}"):
            raise NotFoundError("customer", customer)
        found = of_customer(connection, customer)
    return Page(items=[StandIn.model_validate(each) for each in found], next=None)


@router.post(
    "/customers/{customer}/stand-ins", status_code=202, responses={201: {"model": Outcome}}
)
async def name_stand_in(
    customer: CustomerId,
    stand_in: StandInIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.ASSIGN)],
    writes: InWrites,
) -> Outcome:
    """Have somebody work an orphaned customer for the owner who left; ``made`` is its id."""
    fields = stand_in.model_dump(exclude_unset=True) | {"customer": customer}
    return await asked_for(services, caller, writes, commands.NameStandIn, fields)


@router.post(
    "/stand-ins/{stand_in}/end", status_code=202, responses={201: {"model": Outcome}, **MISSING}
)
async def end_stand_in(
    stand_in: Annotated[Id, Path(description="The stand-in's id.")],
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WORK)],
    writes: InWrites,
    said: StandInEndIn | None = None,
) -> Outcome:
    """End a stand-in before its day, as the head, as an owner who is back, or as who stands in."""
    found: StandInRow | None = await find_soon(
        services, lambda connection: stand_in_of(connection, stand_in)
    )
    if found is None:
        raise NotFoundError("stand-in", stand_in)
    fields = said.model_dump(exclude_unset=True) if said else {}
    about = {"customer": found.customer, "stand_in": stand_in}
    return await asked_for(services, caller, writes, commands.EndStandIn, fields | about)
