"""Releases and assignments: a customer back to the pool, or a free one to somebody."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter

from api.http.admission import requires
from api.http.callers import Caller
from api.http.permissions import Permission
from api.http.routes.customers import CustomerId
from api.http.services import InServices
from api.http.shapes import Outcome
from api.http.writing import (
    InWrites,
    asked_for,
)
from ledger import commands
from ledger.commands import Code, Id, Note

router = APIRouter(prefix="/v1/customers/{customer}", tags=["ownership"])


class ReleaseIn(commands.Command):
    """Why a customer is given back: a word for programs, and words for people, which are sealed."""

    reason_code: Code = "released"
    reason: Note | None = None


class AssignmentIn(commands.Command):
    """Who is to own a free customer, and why."""

    assignee: Id
    reason: Note | None = None


@router.post(
    "/release",
    status_code=202,
    responses={201: {"model": Outcome}},
    operation_id="release_customer",
)
async def release(
    customer: CustomerId,
    body: ReleaseIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WORK)],
    writes: InWrites,
) -> Outcome:
    """Give a customer back to the pool, as its owner or a manager over it.

    It may await approval, as the policy says (``awaiting``).
    """
    fields = body.model_dump(exclude_unset=True) | {"customer": customer}
    return await asked_for(services, caller, writes, commands.ReleaseCustomer, fields)


@router.post(
    "/assign", status_code=202, responses={201: {"model": Outcome}}, operation_id="assign_customer"
)
async def assign(
    customer: CustomerId,
    body: AssignmentIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.ASSIGN)],
    writes: InWrites,
) -> Outcome:
    """Give a free customer to somebody, as a manager of its territory."""
    fields = body.model_dump(exclude_unset=True) | {"customer": customer}
    return await asked_for(services, caller, writes, commands.AssignCustomer, fields)
