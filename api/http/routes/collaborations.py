"""Collaborations: who works on a customer beside its owner, and who has asked to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.lookup import must_exist
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.routes.customers import CustomerId
from api.http.services import InReads, InServices
from api.http.shapes import MISSING, Outcome, Page, Shape
from api.http.writing import (
    InWrites,
    asked_for,
    show_version,
)
from ledger import commands
from ledger.commands import Code, Day, Id, Note
from projections import collaborators
from projections.collaborators import CollaborationRow, Status

router = APIRouter(prefix="/v1", tags=["collaborations"])
CollaborationId = Annotated[Id, Path(description="The collaboration's id.")]
Current = Annotated[
    bool, Query(description="Leave out what is over, and what was not answered well.")
]
_OF_CUSTOMER = "/customers/{customer}/collaborations"


class CollaborationIn(commands.Command):
    """Who is to work on a customer beside its owner. Without ``person`` the caller asks to.

    ``share`` is a percentage of the credit. It holds from ``from_day`` (by default at once) until
    the day before ``until_day``.
    """

    person: Id | None = None
    role: Code = "collaborator"
    share: Annotated[Decimal, Field(gt=0, le=100, max_digits=5, decimal_places=2)] | None = None
    from_day: Day | None = None
    until_day: Day | None = None
    site: Id | None = None
    reason_code: Code = "collaboration"
    reason: Note | None = None


class EndIn(commands.Command):
    """Why a collaboration ends: a word for programs, and words for people, which are sealed."""

    reason_code: Code = "ended"
    reason: Note | None = None


class Collaboration(Shape):
    """Somebody who collaborates, did, or asked to.

    ``status`` is ``asked`` (an answer is awaited), ``standing``, ``ended``, or how what was asked
    for was answered; ``is_current`` says whether it awaits an answer, stands, or is to stand later:
    one that stands until a day is over after it. ``share`` is a percentage of the credit. While it
    is only asked for, ``since`` and ``until`` are not known yet.
    """

    collaboration: str
    customer: str
    person: str
    role: str
    share: Decimal | None
    site: str | None
    requester: str
    status: Status
    is_current: bool
    since: datetime | None
    until: datetime | None
    reason_code: str | None
    opened_position: int
    changed_position: int


# --- writing -----------------------------------------------------------------------------------


@router.post(_OF_CUSTOMER, status_code=202, responses={201: {"model": Outcome}})
async def request_collaboration(
    customer: CustomerId,
    body: CollaborationIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.COLLABORATE)],
    writes: InWrites,
) -> Outcome:
    """Add a collaborator, as the owner or a head; what others ask for awaits an answer.

    ``made`` is the collaboration's id, which is that of the approval as well, and ``Location``
    names it.
    """
    fields = body.model_dump(exclude_unset=True)
    fields |= {"customer": customer, "person": body.person or caller.actor}
    said = await asked_for(services, caller, writes, commands.RequestCollaboration, fields)
    writes.response.headers["Location"] = f"/v1/collaborations/{said.made}"
    return said


@router.post(
    _OF_CUSTOMER + "/{collaboration}/end", status_code=202, responses={201: {"model": Outcome}}
)
async def end_collaboration(
    customer: CustomerId,
    collaboration: CollaborationId,
    body: EndIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.COLLABORATE)],
    writes: InWrites,
) -> Outcome:
    """End a collaboration, as the owner, a head, or whoever collaborates."""
    fields = body.model_dump(exclude_unset=True)
    fields |= {"customer": customer, "collaboration": collaboration}
    return await asked_for(services, caller, writes, commands.EndCollaboration, fields)


# --- reading -----------------------------------------------------------------------------------


@router.get(_OF_CUSTOMER, responses=MISSING, operation_id="list_collaborations_of_customer")
def list_of_customer(
    customer: CustomerId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    current: Current = True,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Collaboration]:
    """List who works on a customer beside its owner, and who has asked to, from the newest back."""
    now, before = datetime.now(UTC), _before(cursor)
    with services.reading(reads) as connection:
        must_exist(connection, customer)
        found = collaborators.list_collaborations(
            connection,
            customer=customer,
            current_at=now if current else None,
            before=before,
            limit=limit + 1,
        )
    return _page(found, limit, now)


@router.get("/collaborations")
def list_collaborations(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    person: Annotated[Id | None, Query(description="Of whom.")] = None,
    status: Status | None = None,
    current: Current = True,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Collaboration]:
    """List collaborations from the newest back: those that are as all of the filters say."""
    now, before = datetime.now(UTC), _before(cursor)
    with services.reading(reads) as connection:
        found = collaborators.list_collaborations(
            connection,
            person=person,
            status=status,
            current_at=now if current else None,
            before=before,
            limit=limit + 1,
        )
    return _page(found, limit, now)


@router.get("/collaborations/{collaboration}", responses=MISSING)
def get_collaboration(
    collaboration: CollaborationId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
) -> Collaboration:
    """Return a collaboration, or what was asked for."""
    with services.reading(reads) as connection:
        found = collaborators.collaboration_of(connection, collaboration)
        if found is None:
            raise NotFoundError("collaboration", collaboration)
        show_version(connection, reads, found.customer)
    return _shown(found, datetime.now(UTC))


def _before(cursor: str | None) -> int:
    after = read_cursor(cursor, "collaborations", int)
    return after[0] if after else collaborators.POSITION_MAX


def _page(found: Sequence[CollaborationRow], limit: int, now: datetime) -> Page[Collaboration]:
    page, following = page_of(
        found, limit, lambda each: make_cursor("collaborations", each.opened_position)
    )
    return Page(items=[_shown(each, now) for each in page], next=following)


def _shown(row: CollaborationRow, now: datetime) -> Collaboration:
    known = {name: getattr(row, name) for name in Collaboration.model_fields if hasattr(row, name)}
    return Collaboration(**known | {"is_current": row.is_current(now)})
