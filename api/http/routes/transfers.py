"""Transfers: asking that somebody else becomes the owner, and what came of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.http.admission import requires
from api.http.callers import Caller
from api.http.checks import Foretold, foretell
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InReads, InServices, Reads, Services
from api.http.shapes import MISSING, Outcome, Page
from api.http.waiting import Approval, approvals
from api.http.writing import (
    InWrites,
    asked_for,
    show_version,
)
from ledger import commands
from ledger.approving import TRANSFER
from ledger.commands import Id
from projections.approvals import POSITION_MAX, Status, approval_of, list_approvals

router = APIRouter(prefix="/v1/transfers", tags=["transfers"])
InStatus = Annotated[
    Status | None,
    Query(description="``open``, ``ended``, or how it ended; without it all of them."),
]


@router.post("", status_code=202, responses={201: {"model": Outcome}})
async def request_transfer(
    transfer: commands.RequestTransfer,
    response: Response,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.TRANSFER)],
    writes: InWrites,
) -> Outcome:
    """Ask that somebody else becomes the owner; approvals follow the policy.

    ``made`` is the transfer's id. Once it is decided ``status`` says whether it awaits approval, is
    done, or was refused at the door, and ``Location`` names the transfer.
    """
    fields = transfer.model_dump(exclude_unset=True)
    outcome = await asked_for(services, caller, writes, commands.RequestTransfer, fields)
    if outcome.decisions:
        response.headers["Location"] = f"/v1/transfers/{outcome.made}"
    return outcome


@router.post("/check")
def check_transfer(
    transfer: commands.RequestTransfer,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.TRANSFER)],
) -> Foretold:
    """Say what would be decided now, such as whom it would await; nothing is recorded."""
    fields = transfer.model_dump(exclude_unset=True)
    return foretell(services, caller, commands.RequestTransfer, fields)


@router.get("")
def list_transfers(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    status: InStatus = None,
    customer: Id | None = None,
    requester: Annotated[Id | None, Query(description="Who asked for it.")] = None,
    receiver: Annotated[Id | None, Query(description="Who would own the customer.")] = None,
    owner: Annotated[Id | None, Query(description="Whose the customer was.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Approval]:
    """List transfers, the newest first. What awaits oneself, ``/v1/inbox`` lists."""
    filters = {
        "purpose": TRANSFER,
        "customer": customer,
        "requester": requester,
        "receiver": receiver,
        "owner": owner,
    }
    return listed(services, caller, reads, request, filters, status, limit, cursor, "transfers")


@router.get("/{transfer}", responses=MISSING)
def get_transfer(
    transfer: Annotated[Id, Path(description="The transfer's id.")],
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
) -> Approval:
    """Return a transfer with its steps, and what was answered; it is there once it is decided."""
    return one(services, caller, reads, request, transfer, "transfer")


def listed(
    services: Services,
    caller: Caller,
    reads: Reads,
    request: Request,
    filters: dict[str, str | None],
    status: Status | None,
    limit: int,
    cursor: str | None,
    kind: str,
) -> Page[Approval]:
    """Return a page of what needs, or needed, approval; ``kind`` is that of its cursors."""
    after = read_cursor(cursor, kind, int)
    is_open = {"open": True, "ended": False}.get(status or "")
    with services.reading(reads) as connection:
        found = list_approvals(
            connection,
            is_open=is_open,
            before=after[0] if after else POSITION_MAX,
            limit=limit + 1,
            outcome=status if is_open is None else None,
            **filters,
        )
        rows, following = page_of(found, limit, lambda row: make_cursor(kind, row.opened_position))
        items = approvals(connection, caller, request.scope["route"].path, rows)
    return Page(items=items, next=following)


def one(
    services: Services, caller: Caller, reads: Reads, request: Request, approval: str, what: str
) -> Approval:
    """Return one that needs, or needed, approval; raises NotFoundError where it is none of these.

    ``what`` is the purpose that it must have, or ``approval`` for any.
    """
    with services.reading(reads) as connection:
        found = approval_of(connection, approval)
        if found is None or what not in ("approval", found.purpose):
            raise NotFoundError(what, approval)
        (shown,) = approvals(connection, caller, request.scope["route"].path, [found])
        show_version(connection, reads, found.customer)
    return shown
