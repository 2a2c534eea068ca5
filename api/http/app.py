"""The application: routers, errors and what goes around them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

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
    def openapi(self) -> dict[str, Any]:
        """Return the document, which is completed once."""
        if self.openapi_schema is None:
            self.openapi_schema = document.complete(super().openapi())
        return self.openapi_schema


def _operation_id(route: APIRoute) -> str:
    # Programs that make clients call their functions by it.
    return route.name


def create_app(services: Services) -> FastAPI:
    """Return the application around parts that somebody else opens and closes."""
    app = _Application(
        title="guishu",
        version=version("guishu"),
        summary="An event-sourced ledger of customer ownership",
        description=_DESCRIPTION,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=document.shared_problems(Problem),
        openapi_tags=document.TAGS,
        servers=document.SERVERS,
        generate_unique_id_function=_operation_id,
    )
    app.state.services = services
    app.state.registry = registry_of(
        services.ledger.pool.connection,
        {
            "intake": lambda: services.intake.waiting,
            "decisions_awaited": lambda: services.decisions.awaited,
            "log_subscribers": lambda: services.tail.subscribers,
        },
    )
    app.add_middleware(BodiesInTime)
    app.add_middleware(ProblemsOfLimits)
    app.add_middleware(Measured, registry=app.state.registry)
    problems.register(app)
    for module in _RESOURCES:
        # Of the application itself it would answer without a problem.
        app.include_router(module.router, max_body_size=BODY_BYTES_MAX)
    return app
