"""What a route declares about its caller: ``requires(permission)``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.http.callers import Caller
from api.http.permissions import Permission
from api.http.services import InServices

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A token of guishu (gs_…), or a JWT of the issuer that the settings name.",
)
OnBehalfOf = Annotated[
    str | None,
    Header(
        alias="On-Behalf-Of",
        description="The person for whom an integration acts; rights are those that both have.",
        max_length=80,
    ),
]


class Requires:
    """A dependency that admits callers with a permission; a test reads it off every route."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(
        self,
        services: InServices,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
        on_behalf_of: OnBehalfOf = None,
    ) -> Caller:
        """Return the caller; raises UnauthorizedError and ForbiddenError."""
        authorization = f"{bearer.scheme} {bearer.credentials}" if bearer else None
        gate = services.gate
        if gate.is_at_hand(authorization):
            caller = gate.admit(authorization, on_behalf_of)
        else:
            caller = await run_in_threadpool(gate.admit, authorization, on_behalf_of)
        caller.require(self.permission)
        return caller


def requires(permission: Permission) -> Any:
    """Return what stands in the annotation of a route's caller, who must have ``permission``."""
    return Depends(Requires(permission))
