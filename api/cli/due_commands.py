"""What falls due next, and what goes back to the pool: what the clock is going to raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, timedelta
from typing import Annotated

import typer

from api.awaiting import deadline_words
from api.cli import calendar_commands, resolve
from api.cli.context import ID, As, Ids, Json, RequestId, notes, opened, print_json, print_table
from api.cli.context import day as parsed_day
from api.cli.policy_words import which_words
from api.cli.write_commands import submit
from api.falling_due import beside, every_fall
from consumers.clock import database_now
from ledger import commands, recycling
from ledger.recycling import Kept
from projections import deadlines
from projections.approvals import approvals_named
from projections.deadlines import DueRow, KeptRow
from projections.ownership import owners_of


def due(
    days: Annotated[int, typer.Option(min=0, max=3_650, help="Within so many days.")] = 7,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """List what falls due soon, and what then happens unless somebody acts (到期)."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        with ledger.pool.connection() as connection:
            now = database_now(connection)
            rows = deadlines.due(connection, now + timedelta(days=days), limit=limit)
            said = beside(connection, rows, names.organisation, now)
            kept = deadlines.kept_of(connection, said.owners, names.organisation, now)
            if any(row.falls is not None for row in rows):
                calendar_commands.tell_what_is_provisional(connection, names.organisation, now)
        if json:
            print_json(
                [
                    {
                        **_as_json(row, said.owners.get(row.customer)),
                        "overdue": row.due <= now,
                        "last_follow_up_is_token": row.customer in said.tokens,
                        "kept": kept.get(row.customer, ()),
                    }
                    for row in rows
                ]
            )
            return
        columns = ("due", "customer", "then", "of", "awaits")
        told = [
            (
                row.subject,
                names.moment(row.due),
                names.customer(row.customer),
                deadline_words(row.kind),
                names.person(said.owners.get(row.customer)),
                " or ".join(map(names.person, said.awaited.get(row.subject, ())))
                or _pause_words(kept.get(row.customer, ()), names)
                or (REAL_FOLLOW_UP if row.customer in said.tokens else ""),
            )
            for row in rows
        ]
        print_table(
            f"due within {days} days",
            (ID, *columns) if ids else columns,
            told if ids else [row[1:] for row in told],
        )
        if len(rows) == limit:
            notes().print(f"there may be more: --limit {2 * limit}", markup=False)


REAL_FOLLOW_UP = "a follow-up that does not only repeat another"


# --- recycling ---------------------------------------------------------------------------------

FORECAST_MAX = 100_000
KEPT_BESIDE = "owned customers do not go, as things are: guishu recycle kept says why"


def recycle_app() -> typer.Typer:
    """Return the commands about recycling."""
    app = typer.Typer(
        help="What goes back to the pool because nobody works it (回收).", no_args_is_help=False
    )
    app.callback(invoke_without_command=True)(recycle)
    app.command("hold")(hold)
    app.command("kept")(kept)
    return app


def recycle(
    context: typer.Context,
    forecast: Annotated[int, typer.Option(min=0, max=3_650, help="Within so many days.")] = 30,
    owner: Annotated[str | None, typer.Option(help="Only those of this person.")] = None,
    customers: Annotated[
        bool, typer.Option("--customers", help="Name them, instead of counting them.")
    ] = False,
    json: Json = False,
) -> None:
    """List what goes back to the pool by day and owner, if nobody does anything."""
    if context.invoked_subcommand is not None:
        return
    with opened() as ledger:
        names = resolve.Names(ledger)
        owner_id = resolve.person(ledger, owner) if owner else None
        with ledger.pool.connection() as connection:
            now = database_now(connection)
            until = now + timedelta(days=forecast)
            rows = every_fall(connection, until, owner=owner_id, limit=FORECAST_MAX)
            stay = deadlines.never_falling_count(connection)
            if rows:
                calendar_commands.tell_what_is_provisional(connection, names.organisation, now)
        if json:
            print_json([_falls_json(row, names) for row in rows])
            return
        if names.organisation.policy.policy.recycling.rules and stay:
            notes().print(f"{stay:,} {KEPT_BESIDE}", markup=False, soft_wrap=True)
        title = f"back to the pool within {forecast} days"
        if customers:
            print_table(
                title,
                ("when", "customer", "owner", "because"),
                [
                    (
                        names.moment(row.falls),
                        names.customer(row.customer),
                        names.person(row.owner),
                        (row.because or "").replace("_", " "),
                    )
                    for row in rows
                ],
            )
            return
        counts = Counter((_day(row, names), row.owner) for row in rows)
        print_table(
            title,
            ("day", "owner", "customers"),
            [(day, names.person(person), number) for (day, person), number in counts.items()],
        )
        if len(rows) == FORECAST_MAX:
            notes().print(f"these are the first {FORECAST_MAX}", markup=False)


def _day(row: DueRow, names: resolve.Names) -> date | None:
    return None if row.falls is None else names.organisation.day(row.falls)


def _falls_json(row: DueRow, names: resolve.Names) -> dict[str, object]:
    return {
        "day": _day(row, names),
        "falls": row.falls and row.falls.astimezone(UTC),
        "customer": row.customer,
        "owner": row.owner,
        "because": row.because,
        "next": _as_json(row, row.owner),
    }


def hold(
    customer: Annotated[str, typer.Argument(help="Id, identifier, foreign id or name.")],
    until: Annotated[str, typer.Argument(help="The first day on which it counts again.")],
    as_: As = None,
    reason: Annotated[str | None, typer.Option(help="Why, in your words; sealed.")] = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Have a customer not recycled for some days, as a head over it or its owner (暂缓回收)."""
    with opened() as ledger:
        fields = {
            "customer": resolve.customer(ledger, customer),
            "until": parsed_day(until, "until"),
            "reason": reason,
        }
        submit(ledger, commands.HoldRecycling, fields, as_, request_id, json=json)


def kept(
    owner: Annotated[str | None, typer.Option(help="Only those of this person.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    after: Annotated[str, typer.Option(help="The last id of the page before.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """List what is kept from the pool, and by what: an absence, a hold, what is open, a rule."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        owner_id = resolve.person(ledger, owner) if owner else None
        customer_id = resolve.customer(ledger, customer) if customer else None
        organisation = names.organisation
        with ledger.pool.connection() as connection:
            now = database_now(connection)
            if customer_id is None:
                rows, behind = deadlines.kept(
                    connection, organisation, now, owner=owner_id, after=after, limit=limit
                )
            else:
                found = deadlines.kept_of(connection, [customer_id], organisation, now)
                owners = owners_of(connection, list(found))
                rows = [KeptRow(each, owners[each], what) for each, what in found.items()]
                behind = ""
            about = [each.subject for row in rows for each in row.kept if each.subject is not None]
            approvals = approvals_named(connection, about)
            purposes = {name: each.purpose for name, each in approvals.items()}
        if json:
            print_json(rows)
            return
        columns = ("customer", "owner", "kept by", "until")
        print_table(
            "kept from the pool",
            (ID, *columns) if ids else columns,
            [
                (
                    *(row.customer,) * ids,
                    names.customer(row.customer),
                    names.person(row.owner),
                    kept_words(each, names, purposes),
                    names.moment(each.until),
                )
                for row in rows
                for each in row.kept
            ],
        )
        if not organisation.policy.policy.recycling.rules:
            notes().print("By the policy in force nothing is recycled.", markup=False)
        if behind:
            notes().print(f"there may be more: --after {behind}", markup=False)


# --- words -------------------------------------------------------------------------------------


def _as_json(row: DueRow, owner: str | None) -> dict[str, object]:
    return {
        "due": row.due.astimezone(UTC),
        "customer": row.customer,
        "kind": row.kind,
        "subject": row.subject,
        "owner": owner,
    }


def _pause_words(kept: Sequence[Kept], names: resolve.Names) -> str:
    """Return what puts off that a customer goes, which is over by a date."""
    return ", ".join(
        f"{kept_words(each, names, {})} until {names.moment(each.until)}"
        for each in kept
        if each.until is not None
    )


def kept_words(kept: Kept, names: resolve.Names, purposes: Mapping[str, str]) -> str:
    """Return what keeps a customer from the pool; ``purposes`` are those of approvals, by id."""
    match kept.by:
        case recycling.APPROVAL_OPEN:
            return f"a {purposes.get(kept.subject or '', 'transfer')} is open"
        case recycling.EXEMPT:
            rules = names.organisation.policy.policy.recycling.rules
            return f"exempt: {which_words(rules[kept.rule or 0], names) or 'every customer'}"
        case recycling.IMPORT_OPEN:
            opened = names.organisation.import_(kept.subject or "")
            return f"the import {opened.name if opened else kept.subject} is open"
        case _:
            return _KEPT[kept.by]


_KEPT = {
    recycling.CLOSED: "the customer is closed",
    recycling.CONFLICT_OPEN: "a conflict is open",
    recycling.ORPHANED: "the owner has left (guishu orphans)",
    recycling.OWNER_LEAVING: "the owner leaves before it would go",
    recycling.NO_RULE: "no rule is for it",
    recycling.OWNER_AWAY: "the owner is away",
    recycling.ON_HOLD: "on hold",
}
