"""Commands about collaborators: add, end, ask, answer, and list them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import (
    ID,
    As,
    Ids,
    Json,
    RequestId,
    as_json,
    day,
    notes,
    opened,
    print_json,
    print_table,
)
from api.cli.write_commands import submit
from ledger import commands
from ledger.commands import InvalidRequestError
from projections.collaborators import (
    ASKED,
    POSITION_MAX,
    STANDING,
    CollaborationRow,
    collaboration_of,
    list_collaborations,
)

Customer = Annotated[str, typer.Argument(help="Id, identifier, foreign id or name.")]
PersonArgument = Annotated[str, typer.Argument(help="Who collaborates: an id or a name.")]
Role = Annotated[str | None, typer.Option(help="As what, a word for programs.")]
Share = Annotated[str | None, typer.Option(help="Percent of the credit, such as 12.5.")]
FromDay = Annotated[str | None, typer.Option("--from", help="The first day; at once without.")]
UntilDay = Annotated[str | None, typer.Option("--until", help="The first day when it is over.")]
Site = Annotated[str | None, typer.Option(help="The id of one site of the customer.")]
Reason = Annotated[str | None, typer.Option(help="Why, in your words; sealed.")]


def collaborate_app() -> typer.Typer:
    """Return the commands about collaborators."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.callback()(collaborate)
    app.command("add")(add)
    app.command("ask")(ask)
    app.command("answer")(answer)
    app.command("end")(end)
    app.command("list")(list_)
    return app


def collaborate() -> None:
    """Let others work on a customer beside its owner (协作), with dates and a share."""


def add(
    customer: Customer,
    person: PersonArgument,
    as_: As = None,
    role: Role = None,
    share: Share = None,
    from_day: FromDay = None,
    until_day: UntilDay = None,
    site: Site = None,
    reason: Reason = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Add a collaborator, as the owner or a head; from others it is a question."""
    with opened() as ledger:
        fields = {
            "customer": resolve.customer(ledger, customer),
            "person": resolve.person(ledger, person),
            **_terms(role, share, from_day, until_day, site, reason),
        }
        submit(ledger, commands.RequestCollaboration, fields, as_, request_id, json=json)


def ask(
    customer: Customer,
    as_: As = None,
    role: Role = None,
    share: Share = None,
    from_day: FromDay = None,
    until_day: UntilDay = None,
    site: Site = None,
    reason: Reason = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Ask to collaborate yourself; the owner or the head answers."""
    with opened() as ledger:
        fields = {
            "customer": resolve.customer(ledger, customer),
            "person": resolve.actor(ledger, as_),
            **_terms(role, share, from_day, until_day, site, reason),
        }
        submit(ledger, commands.RequestCollaboration, fields, as_, request_id, json=json)


def answer(
    customer: Customer,
    person: Annotated[str, typer.Argument(help="Who has asked, or the collaboration's id.")],
    agree: Annotated[bool, typer.Option("--agree/--refuse", help="Your answer.")],
    as_: As = None,
    comment: Annotated[str | None, typer.Option(help="In your words; sealed.")] = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Answer somebody who has asked to collaborate; guishu approve and refuse do the same."""
    with opened() as ledger:
        found = _named(ledger, customer, person, ASKED)
        fields = {"customer": found.customer, "approval": found.collaboration, "comment": comment}
        kind = commands.Approve if agree else commands.Refuse
        submit(ledger, kind, fields, as_, request_id, json=json)


def end(
    customer: Customer,
    person: Annotated[str, typer.Argument(help="Who collaborates, or the collaboration's id.")],
    as_: As = None,
    reason: Reason = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """End a collaboration, as the owner, a head or whoever collaborates."""
    with opened() as ledger:
        found = _named(ledger, customer, person, STANDING)
        fields = {
            "customer": found.customer,
            "collaboration": found.collaboration,
            "reason": reason,
        }
        submit(ledger, commands.EndCollaboration, fields, as_, request_id, json=json)


def _terms(
    role: str | None,
    share: str | None,
    from_day: str | None,
    until_day: str | None,
    site: str | None,
    reason: str | None,
) -> dict[str, Any]:
    return {
        "role": role,
        "share": share,
        "from_day": day(from_day, "from"),
        "until_day": day(until_day, "until"),
        "site": site,
        "reason": reason,
    }


def _named(ledger: Ledger, customer: str, person: str, status: str) -> CollaborationRow:
    """Return the one that is meant; raises NotFoundError, InvalidRequestError where several are."""
    customer_id = resolve.customer(ledger, customer)
    with ledger.pool.connection() as connection:
        by_id = collaboration_of(connection, person)
        if by_id is not None and by_id.customer == customer_id:
            return by_id
        person_id = resolve.person(ledger, person)
        found = list_collaborations(
            connection,
            customer=customer_id,
            person=person_id,
            status=status,
            current_at=datetime.now(UTC),
        )
    if not found:
        verb = "has asked to collaborate" if status == ASKED else "collaborates"
        raise resolve.NotFoundError(
            f"{person} is nobody who {verb} at {customer}.",
            way_out="guishu collaborate list --ids shows who does.",
        )
    if len(found) > 1:
        several = ", ".join(each.collaboration for each in found)
        raise InvalidRequestError("person", f"several are meant; name one of {several}")
    return found[0]


def list_(
    customer: Annotated[str | None, typer.Option(help="Only those at this customer.")] = None,
    person: Annotated[str | None, typer.Option(help="Only those of this person.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    before: Annotated[int | None, typer.Option(help="Only what was opened before it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The last so many.")] = 50,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """List who collaborates where, and who has asked to."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        filters = {
            "customer": resolve.customer(ledger, customer) if customer else None,
            "person": resolve.person(ledger, person) if person else None,
        }
        with ledger.pool.connection() as connection:
            rows = list_collaborations(
                connection,
                **filters,
                current_at=None if all_ else datetime.now(UTC),
                before=before or POSITION_MAX,
                limit=limit,
            )
        now = datetime.now(UTC)
        if json:
            print_json([{**as_json(row), "status_now": row.status_at(now)} for row in rows])
            return
        columns = ("customer", "person", "as", "share", "site", "since", "until", "status")
        print_table(
            "collaborators",
            (ID, *columns) if ids else columns,
            [((row.collaboration,) if ids else ()) + _columns(row, names, now) for row in rows],
        )
        if len(rows) == limit:
            notes().print(f"older ones: --before {rows[-1].opened_position}", markup=False)


def _columns(row: CollaborationRow, names: resolve.Names, now: datetime) -> tuple[str, ...]:
    return (
        names.customer(row.customer),
        names.person(row.person),
        row.role,
        "" if row.share is None else f"{row.share:f} %",
        row.site or "",
        names.moment(row.since),
        names.moment(row.until),
        row.status_at(now),
    )
