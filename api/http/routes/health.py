"""Whether the process lives and is ready, for whoever looks after it; and what Prometheus asks."""

from __future__ import annotations

from typing import Annotated

import psycopg
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from psycopg_pool import PoolTimeout

from api.http.admission import anybody, requires
from api.http.callers import Caller
from api.http.permissions import Permission
from api.http.services import InServices
from api.http.shapes import Shape
from api.running import reflected
from ledger.errors import LedgerError
from ledger.store.migrations import pending

router = APIRouter(tags=["health"], dependencies=[])
# A consumer so far behind is no longer one that follows.
LAG_POSITIONS_MAX = 100_000


class Ready(Shape):
    """How far everything has come; ``trouble`` says what is in the way of being ready."""

    head: int | None = None
    decided: int | None = None
    projected: int | None = None
    trouble: list[str]


@router.get("/livez", dependencies=[anybody()], operation_id="get_liveness")
async def live() -> dict[str, str]:
    """Say that the process lives."""
    return {"status": "live"}


@router.get(
    "/readyz",
    dependencies=[anybody()],
    responses={503: {"model": Ready}},
    operation_id="get_readiness",
)
def ready(services: InServices, response: Response) -> Ready:
    """Say whether the database answers, has all migrations, and is followed (503 where not)."""
    trouble: list[str] = []
    at: tuple[int, int, int] | None = None
    try:
        lacking = pending(services.ledger.database.service_url)
        if lacking:
            trouble.append(f"{len(lacking)} migrations are missing: run guishu migrate")
        with services.ledger.pool.connection(timeout=2) as connection:
            at = reflected(connection)
    except (psycopg.OperationalError, PoolTimeout):
        trouble.append("the database does not answer")
    except LedgerError as error:
        trouble.append(str(error))
    if at is not None:
        head, decided, projected = at
        for name, reached in (("the enforcer", decided), ("the projector", projected)):
            if head - reached > LAG_POSITIONS_MAX:
                trouble.append(f"{name} is {head - reached} positions behind")
    response.status_code = 503 if trouble else 200
    if at is None:
        return Ready(trouble=trouble)
    return Ready(head=at[0], decided=at[1], projected=at[2], trouble=trouble)


@router.get(
    "/metrics",
    response_class=Response,
    operation_id="get_metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.METRICS)],
) -> Response:
    """Return what Prometheus asks for."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
