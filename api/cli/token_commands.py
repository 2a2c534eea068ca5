"""Tokens for HTTP: making, listing, revoking them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from api.cli import resolve
from api.cli.context import Json, caller, console, opened, print_json, print_table, shown
from api.http import demo_tokens, tokens
from api.http.permissions import GRANTABLE, TABLE
from ledger.commands import Id, UnknownIdError

DAYS = 90


def token_app() -> typer.Typer:
    """Return the commands of tokens."""
    app = typer.Typer(help="Tokens for the HTTP interface.", no_args_is_help=True)
    app.command("create")(create)
    app.command("list")(list_)
    app.command("revoke")(revoke)
    return app


def create(
    person: Annotated[
        str | None, typer.Argument(help="Whose token it is: an id or a name.")
    ] = None,
    integration: Annotated[
        str | None, typer.Option(help="Or the name of an integration, such as crm.")
    ] = None,
    role: Annotated[
        list[str], typer.Option(help=f"Roles ({', '.join(TABLE)}); by default the person's.")
    ] = [],  # noqa: B006 - typer copies it
    territory: Annotated[
        list[str], typer.Option(help="Only for what lies in these territories or below.")
    ] = [],  # noqa: B006 - typer copies it
    grant: Annotated[
        list[str],
        typer.Option(help=f"For integrations: {', '.join(sorted(GRANTABLE))}."),
    ] = [],  # noqa: B006 - typer copies it
    days: Annotated[int, typer.Option(min=1, max=3_650, help="When it expires.")] = DAYS,
) -> None:
    """Make a token and print it, which happens just this once."""
    with opened() as ledger:
        bound = [resolve.territory(ledger, each) for each in territory] or None
        organisation = ledger.recording.organisation()
        if (person is None) == (integration is None):
            raise tokens.TokenError(
                "A token is either a person's or an integration's.",
                way_out="Name a person, or --integration NAME.",
            )
        kind: tokens.Kind = "person" if integration is None else "integration"
        if integration is None:
            principal = resolve.person(ledger, person or "")
            known = organisation.person(principal)
            if known is None:
                raise UnknownIdError("person", principal)
            roles = role or sorted(known.roles)
        else:
            principal, roles = _named(integration), role or ["integration"]
        with ledger.pool.connection() as connection:
            made = tokens.make_token(
                connection,
                kind=kind,
                principal=principal,
                roles=roles,
                made_by=caller(),
                expires=datetime.now(UTC) + timedelta(days=days),
                territories=bound,
                grants=grant,
            )
    console().print(made, markup=False, soft_wrap=True)


def list_(
    person: Annotated[str | None, typer.Argument(help="Only of this person.")] = None,
    json: Json = False,
) -> None:
    """List tokens, without their secrets."""
    with opened() as ledger:
        zone = ledger.recording.organisation().time_zone
        principal = resolve.person(ledger, person) if person else None
        with ledger.pool.connection() as connection:
            found = tokens.list_tokens(connection, principal)
    if json:
        print_json(found)
        return
    print_table(
        "tokens",
        ("id", "of", "roles", "expires", "last used"),
        [
            (
                each.token,
                each.principal,
                ", ".join(each.roles),
                "revoked" if each.revoked else shown(each.expires, zone),
                shown(each.last_used, zone),
            )
            for each in found
        ],
    )


def revoke(
    token: Annotated[str | None, typer.Argument(help="The id of the token.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="All tokens of the demo.")] = False,
) -> None:
    """Revoke a token; it is refused within some seconds."""
    with opened() as ledger, ledger.pool.connection() as connection:
        if demo:
            count = demo_tokens.revoke_all(connection)
            console().print(f"{count} demo tokens revoked")
            return
        if token is None or not tokens.revoke_token(connection, token):
            raise UnknownIdError("token in force", token or "")
    console().print(f"{token} is revoked", markup=False)


def _named(integration: str) -> str:
    try:
        TypeAdapter(Id).validate_python(integration)
    except ValidationError:
        raise tokens.TokenError(
            "The name of an integration has 1 to 80 printable ASCII characters and no space.",
            way_out="Choose another name, such as crm.",
        ) from None
    return integration
