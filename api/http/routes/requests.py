"""Requests: whatever was asked for, what came of it, and what could not be decided."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InServices, Services
from api.http.shapes import MISSING, Outcome, Page, Shape, outcome
from api.http.writing import (
    InKeyed,
    asked_for,
)
from api.parked import customer_of_parked, parked_requests, was_parked
from ledger import commands
from ledger.deciding import named_by
from ledger.recording import Recorded
from ledger.store.reading import read_at

router = APIRouter(prefix="/v1/requests", tags=["requests"])
Position = Annotated[int, Path(ge=1, le=2**63 - 1, description="The request's position.")]


class Parked(Shape):
    """A request that could not be decided, for an error; so many of its customer wait behind it.

    Of a hand-over ``customer`` is its giver.
    """

    request: int
    customer: str
    error: str
    behind: int


class UnparkIn(commands.Command):
    """By which version of the decider it is to be decided."""

    decider: Annotated[int, Field(ge=1, le=2**31 - 1)]


@router.get("/parked")
def list_parked(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_FIGURES)],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Parked]:
    """List the requests that could not be decided, and for which their customers wait, in order."""
    caller.must_be_unbound()
    after = read_cursor(cursor, "parked", int)
    with services.ledger.pool.connection() as connection:
        found = parked_requests(connection, after=after[0] if after else 0, limit=limit + 1)
    shown, following = page_of(found, limit, lambda each: make_cursor("parked", each.request))
    return Page(items=[Parked.model_validate(each) for each in shown], next=following)


@router.post("/{request}/unpark", status_code=202, responses={201: {"model": Outcome}, **MISSING})
async def unpark(
    request: Position,
    body: UnparkIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InKeyed,
) -> Outcome:
    """Have a parked request decided after all, and those of its customer that waited behind it."""
    caller.must_be_unbound()
    customer = await run_in_threadpool(_customer_of, services, request)
    fields = {"customer": customer, "request": request, "decider": body.decider}
    return await asked_for(services, caller, writes, commands.UnparkRequest, fields)


def _customer_of(services: Services, request: int) -> str:
    with services.ledger.pool.connection() as connection:
        customer = customer_of_parked(connection, request)
        if customer is not None:
            return customer
        for stored in read_at(connection, [request]):
            # It is parked no more; whoever repeats the unparking gets the first answer.
            customer = named_by(stored.stream)
            if was_parked(connection, customer, request):
                return customer
    raise NotFoundError("parked request", request)


@router.get("/{request}", responses=MISSING)
def get_request(
    request: Position,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
) -> Outcome:
    """Return what came of a request: by the log itself, so that it is never behind.

    Where it is ``parked``, the ``RequestParked`` for which it waits stands among the decisions.
    """
    with services.ledger.pool.connection() as connection:
        stored = read_at(connection, [request])
    catalogue = services.ledger.catalogue
    if not stored or stored[0].name not in catalogue.request_names:
        raise NotFoundError("request", request)
    # Not by its data: what is parked may be what nobody can read.
    request_id = orjson.loads(stored[0].body)["request_id"]
    recorded = Recorded(request_id, (request,), named_by(stored[0].stream))
    return outcome(catalogue, recorded, services.decisions.now([request]))
