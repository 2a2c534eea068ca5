"""Requests: whatever was asked for, and what came of it."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path

from api.http.admission import requires
from api.http.callers import Caller
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InServices
from api.http.shapes import MISSING, Outcome, outcome
from ledger.deciding import named_by
from ledger.recording import Recorded
from ledger.store.reading import read_at

router = APIRouter(prefix="/v1/requests", tags=["requests"])
Position = Annotated[int, Path(ge=1, le=2**63 - 1, description="The request's position.")]


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
