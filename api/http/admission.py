"""What a route declares about its caller: ``requires(permission)``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from api.http.callers import Caller
from api.http.permissions import Permission
from api.http.problems import UnauthorizedError
from api.http.services import services_of

OnBehalfOf = Annotated[
    str | None,
    Header(
        alias="On-Behalf-Of",
        description="The person for whom an integration acts; rights are those that both have.",
        max_length=80,
    ),
]


class Requires(SecurityBase):
    """A dependency that admits callers with a permission; a test reads it off every route.

    It is the security scheme itself, for each dependency of its own costs every request some time.
    """

    def __init__(self, permission: Permission) -> None:
        self.scheme_name = "token"
        self.model = HTTPBearer(
            description="A token of guishu (gs_…), or a JWT of the issuer that the settings name."
        )
        self.permission = permission

    async def __call__(self, request: Request, on_behalf_of: OnBehalfOf = None) -> Caller:
        """Return the caller; raises UnauthorizedError and ForbiddenError."""
        authorization = request.headers.get("authorization")
        services = services_of(request)
        gate = services.gate
        try:
            if gate.is_at_hand(authorization):
                caller = gate.admit(authorization, on_behalf_of)
            else:
                caller = await run_in_threadpool(gate.admit, authorization, on_behalf_of)
        except UnauthorizedError:
            # Whoever guesses is slowed down, too.
            services.throttle.admit(f"address:{request.client.host if request.client else ''}")
            raise
        request.state.caller = caller.name
        services.throttle.admit(caller.name)
        caller.require(self.permission)
        return caller


class Anybody:
    """A dependency of the few routes that ask for no token; a test knows them by it."""

    async def __call__(self) -> None:
        """Let in whoever comes."""


def anybody() -> Any:
    """Return the dependency of a route that needs no token."""
    return Depends(Anybody())


def requires(permission: Permission) -> Any:
    """Return what stands in the annotation of a route's caller, who must have ``permission``."""
    return Depends(Requires(permission))
