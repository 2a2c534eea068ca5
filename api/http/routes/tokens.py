"""Tokens: made, listed and revoked by administrators; the secret is shown just once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field, model_validator

from api.http import tokens
from api.http.admission import requires
from api.http.callers import Caller, roles_of
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.permissions import Permission, rights_of
from api.http.problems import ForbiddenError, NotFoundError
from api.http.services import InServices, Services
from api.http.shapes import Page, Shape
from api.http.writing import (
    InKeyed,
)
from ledger import commands
from ledger.canonical import canonical_bytes
from ledger.commands import Id, UnknownIdError
from ledger.organisation_commands import Role

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])
DAYS, DAYS_MAX = 90, 366
TokenId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{32}$", description="The token's id, without its secret.")
]


class TokenIn(commands.Command):
    """A token to make: of a ``person`` or of an ``integration``, which is no person.

    ``roles`` are by default those that the person has, and never more. ``territories``: it is only
    for what lies in one of them or below. ``grants`` are permissions of an integration that no role
    of one has by itself.
    """

    person: Id | None = None
    integration: Id | None = None
    roles: Annotated[tuple[Role, ...], Field(max_length=5)] | None = None
    territories: Annotated[tuple[Id, ...], Field(min_length=1, max_length=100)] | None = None
    grants: Annotated[tuple[Permission, ...], Field(max_length=10)] = ()
    days: Annotated[int, Field(ge=1, le=DAYS_MAX, strict=True)] = DAYS

    @model_validator(mode="after")
    def _is_somebodys(self) -> TokenIn:
        if (self.person is None) == (self.integration is None):
            raise ValueError("a token is either a person's or an integration's")
        return self


class Token(Shape):
    """A token without its secret; times are UTC. ``last_used`` is to the minute."""

    token: str
    kind: Literal["person", "integration"]
    principal: str
    roles: list[str]
    territories: list[str] | None
    grants: list[str]
    made: datetime
    made_by: str
    expires: datetime
    revoked: datetime | None
    last_used: datetime | None


class MadeToken(Token):
    """A token that was just made. ``secret`` is the whole of it, to be sent as a bearer token.

    Nobody can ask for it again: with the same Idempotency-Key it comes without the secret.
    """

    secret: str | None = Field(examples=["gs_01997d2e5ca17c3a9e0b1f2a3b4c5d6e_…"])
    repeated: bool = False


@router.post("", status_code=201)
def make_token(
    asked: TokenIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.TOKENS)],
    writes: InKeyed,
) -> MadeToken:
    """Make a token; nobody makes one that has more than its person, or than who makes it."""
    fields = _fields(services, caller, asked)
    digest = services.ledger.vault.request_digest(
        canonical_bytes({"token": asked.model_dump(mode="json", exclude_unset=True)})
    )
    expires = datetime.now(UTC) + timedelta(days=asked.days)
    with services.ledger.pool.connection() as connection:
        made, secret = tokens.make_once(
            connection,
            **fields,
            made_by=caller.name,
            expires=expires,
            key=None if writes.key is None else tokens.Key(writes.key, digest),
        )
    headers = writes.response.headers
    headers["Location"] = f"/v1/tokens/{made.token}"
    # What stands between here and the caller keeps no secret.
    headers["Cache-Control"] = "no-store"
    if secret is None:
        headers["Idempotency-Replayed"] = "true"
    return MadeToken(**_shape(made).model_dump(), secret=secret, repeated=secret is None)


def _fields(services: Services, caller: Caller, asked: TokenIn) -> Mapping[str, Any]:
    """Return what a token is to have; raises UnknownIdError, ForbiddenError."""
    organisation = services.directory.organisation(now=True)
    for territory in asked.territories or ():
        if organisation.territory(territory) is None:
            raise UnknownIdError("territory", territory)
    if caller.territories is not None:
        if asked.territories is None:
            caller.must_be_unbound()
        caller.must_be_within(*(asked.territories or ()))
    if asked.person is not None:
        has = roles_of(asked.person, organisation, organisation.day(datetime.now(UTC)))
        if has is None:
            raise UnknownIdError("person", asked.person)
        roles = sorted(has) if asked.roles is None else list(asked.roles)
        more = sorted(set(roles) - has)
        if more:
            raise ForbiddenError(more[0], f"The person has not the role {more[0]}.")
    else:
        roles = ["integration"] if asked.roles is None else list(asked.roles)
        for permission, reach in rights_of(roles, asked.grants).items():
            if caller.rights.get(permission, 0) < reach:
                raise ForbiddenError(permission, "Nobody gives what they do not have.")
    return {
        "kind": "integration" if asked.person is None else "person",
        "principal": asked.person or asked.integration,
        "roles": roles,
        "territories": asked.territories,
        "grants": list(asked.grants),
    }


@router.get("")
def list_tokens(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.TOKENS)],
    principal: Annotated[
        Id | None, Query(description="Only those of this person or integration.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Token]:
    """List tokens in the order of their making, revoked ones too; secrets are nowhere kept."""
    after = read_cursor(cursor, "tokens", str)
    with services.ledger.pool.connection() as connection:
        found = tokens.list_tokens(
            connection, principal, after=after[0] if after else "", limit=limit + 1
        )
    shown, following = page_of(found, limit, lambda each: make_cursor("tokens", each.token))
    return Page(items=[_shape(each) for each in shown], next=following)


@router.get("/{token}")
def get_token(
    token: TokenId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.TOKENS)],
) -> Token:
    """Return a token without its secret."""
    return _shape(_found(services, token))


@router.delete("/{token}", status_code=204)
def revoke_token(
    token: TokenId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.TOKENS)],
) -> Response:
    """Revoke a token; it is refused within some seconds. One that is revoked stays so."""
    found = _found(services, token)
    if caller.territories is not None:
        if found.territories is None:
            caller.must_be_unbound()
        caller.must_be_within(*(found.territories or ()))
    with services.ledger.pool.connection() as connection:
        tokens.revoke_token(connection, token)
    return Response(status_code=204)


def _found(services: Services, token: str) -> tokens.Token:
    with services.ledger.pool.connection() as connection:
        found = tokens.token_of(connection, token)
    if found is None:
        raise NotFoundError("token", token)
    return found


def _shape(token: tokens.Token) -> Token:
    return Token.model_validate(token)
