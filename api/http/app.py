"""The application: routers, errors and what goes around them."""

from __future__ import annotations

import threading
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse

from api.http import document, problems
from api.http.around import BodiesInTime, Measured, ProblemsOfLimits
from api.http.metrics import registry_of
from api.http.routes import (
    approvals,
    claims,
    collaborations,
    conflicts,
    customers,
    deals,
    deciders,
    due,
    events,
    follow_ups,
    hand_overs,
    health,
    history,
    imports,
    inbox,
    jobs,
    orphans,
    ownership,
    ownership_acts,
    people,
    policies,
    requests,
    territories,
    tokens,
    transfers,
    what_if,
)
from api.http.services import Services
from api.http.shapes import Problem

BODY_BYTES_MAX = 1_048_576
DOCUMENT = "/v1/openapi.json"
_DESCRIPTION = """
Who owns which customer, who asked for it, and what was decided, and why.

A write is recorded first, and decided by the ledger: what is refused is a recorded outcome, and no
error. Errors are problems (RFC 9457) with stable types. Reads say in `Ledger-Position` which
position of the log they reflect, and take `min_position` to read one's own writes.
"""
_RESOURCES = (
    customers,
    ownership,
    ownership_acts,
    claims,
    collaborations,
    follow_ups,
    deals,
    history,
    transfers,
    approvals,
    inbox,
    conflicts,
    hand_overs,
    orphans,
    due,
    people,
    territories,
    policies,
    deciders,
    what_if,
    imports,
    jobs,
    tokens,
    events,
    requests,
    health,
)


class _Application(FastAPI):
    """Describes itself once, and while others are answered."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(openapi_url=None, docs_url=None, redoc_url=None, **settings)
        self._describing = threading.Lock()
        # No coroutine, as FastAPI's own: to make the document takes seconds, of a thread's then.
        self.add_route(DOCUMENT, lambda _: JSONResponse(self.openapi()), include_in_schema=False)

    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        with self._describing:
            if self.openapi_schema is None:
                self.openapi_schema = document.complete(super().openapi(), Problem)
            return self.openapi_schema


def _operation_id(route: APIRoute) -> str:
    # Programs that make clients call their functions by it.
    return route.name


def create_app(services: Services) -> FastAPI:
    """Return the application around parts that somebody else opens and closes.

    It finds them in ``app.state.services`` at each request. Its routes are made at the first ones.
    """
    app = _Application(
        title="guishu",
        version=version("guishu"),
        summary="An event-sourced ledger of customer ownership",
        description=_DESCRIPTION,
        redirect_slashes=False,
        openapi_tags=document.TAGS,
        servers=document.SERVERS,
        generate_unique_id_function=_operation_id,
        # Its logs would hold what was sent, and whether anybody listens it asks at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    app.state.registry = registry_of(
        lambda: app.state.services.ledger.pool.connection(),
        {
            "intake": lambda: app.state.services.intake.waiting,
            "decisions_awaited": lambda: app.state.services.decisions.awaited,
            "log_subscribers": lambda: app.state.services.tail.subscribers,
        },
        lambda: app.state.services.ledger.settings.kafka_topic_prefix,
    )
    app.add_middleware(BodiesInTime)
    app.add_middleware(ProblemsOfLimits)
    app.add_middleware(Measured, registry=app.state.registry)
    problems.register(app)
    for module in _RESOURCES:
        # Of the application itself it would answer without a problem.
        app.include_router(module.router, max_body_size=BODY_BYTES_MAX)
    return app
