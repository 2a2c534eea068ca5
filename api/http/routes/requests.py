"""Requests: whatever was asked for, and what came of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.http.admission import requires
from api.http.callers import Caller
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InServices
from api.http.shapes import Outcome, outcome
from ledger.envelope import decode
from ledger.recording import Recorded
from ledger.store.reading import read_at

router = APIRouter(prefix="/v1/requests", tags=["requests"])
Position = Annotated[int, Path(ge=1, le=2**63 - 1, description="The request's position.")]


@router.get("/{request}")
def get_request(
    request: Position,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
) -> Outcome:
    """Return what came of a request: by the log itself, so that it is never behind."""
    with services.ledger.pool.connection() as connection:
        stored = read_at(connection, [request])
    catalogue = services.ledger.catalogue
    if not stored or stored[0].name not in catalogue.request_names:
        raise NotFoundError("request", request)
    asked = decode(catalogue, stored[0])
    recorded = Recorded(asked.envelope["request_id"], (request,), asked.data.customer)
    return outcome(catalogue, recorded, services.decisions.now([request]))
