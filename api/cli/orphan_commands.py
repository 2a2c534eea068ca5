"""Commands about orphaned customers: whose owner has left, in whose care they are, stand-ins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

import typer

from api.bootstrap import Ledger
from api.cli import resolve, several
from api.cli.context import (
    ID,
    As,
    Ids,
    Json,
    RequestId,
    day,
    notes,
    opened,
    print_json,
    print_table,
)
from api.cli.write_commands import submit
from api.orphaned import carers, every_orphan, is_in_care_of
from ledger import commands
from ledger.commands import InvalidRequestError, parse
from projections.orphans import Orphan
from projections.stand_ins import standing_at

# So many get a stand-in by one command.
STAND_INS_MAX = 1_000
# So many in somebody's care are counted beside the inbox, at most.
COUNTED_MAX = 10_000
Customer = Annotated[str, typer.Argument(help="Id, identifier, foreign id or name.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not show the list and ask before.")]
Reason = Annotated[str | None, typer.Option(help="Why, in your words; sealed.")]


def orphans_app() -> typer.Typer:
    """Return the commands about orphaned customers."""
    app = typer.Typer(no_args_is_help=False, rich_markup_mode=None)
    app.callback(invoke_without_command=True)(list_)
    app.command("stand-in")(stand_in)
    app.command("end-stand-in")(end_stand_in)
    return app


def list_(
    context: typer.Context,
    as_: As = None,
    territory: Annotated[
        str | None, typer.Option(help="Only what the heads of this and those below look after.")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Only those of this person, who left.")] = None,
    after: Annotated[str, typer.Option(help="The last id of the page before.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """List customers whose owner has left, and in whose care they are (无主); with --as, yours.

    The head acts as their owner, and may name a `stand-in`.
    """
    if context.invoked_subcommand is not None:
        return
    with opened() as ledger:
        names = resolve.Names(ledger)
        found = _listed(
            ledger,
            names,
            carer=resolve.actor(ledger, as_) if as_ else None,
            territory=resolve.territory(ledger, territory) if territory else None,
            owner=resolve.person(ledger, owner) if owner else None,
            after=after,
            limit=limit,
        )
        if json:
            print_json([{"orphan": row, "looked_after_by": carers} for row, carers in found])
            return
        columns = ("customer", "owner", "left on", "looked after by", "stand-in", "until")
        print_table(
            "orphaned",
            (ID, *columns) if ids else columns,
            [(*(row.customer,) * ids, *_columns(row, carers, names)) for row, carers in found],
        )
        if len(found) == limit:
            notes().print(f"there may be more: --after {found[-1][0].customer}", markup=False)


def _columns(row: Orphan, carers: Sequence[str], names: resolve.Names) -> tuple[str, ...]:
    return (
        names.customer(row.customer),
        names.person(row.owner),
        str(row.since),
        " or ".join(names.person(each) for each in carers) or "nobody",
        names.person(row.stand_in),
        names.moment(row.stand_in_until),
    )


def _listed(
    ledger: Ledger,
    names: resolve.Names,
    *,
    carer: str | None = None,
    territory: str | None = None,
    owner: str | None = None,
    after: str = "",
    limit: int,
) -> list[tuple[Orphan, tuple[str, ...]]]:
    """Return a page of orphaned customers, each with who looks after it.

    Of ``carer`` those at which that person acts as the owner.
    """
    organisation, now = names.organisation, datetime.now(UTC)
    with ledger.pool.connection() as connection:
        every = every_orphan(
            connection, organisation, now, territory=territory, owner=owner, after=after
        )
        mine = (
            (row, carers(row, organisation, now))
            for row in every
            if carer is None or is_in_care_of(carer, row, organisation, now)
        )
        return list(islice(mine, limit))


def count_in_care(ledger: Ledger, carer: str, names: resolve.Names) -> int:
    """Return at how many orphaned customers somebody acts as the owner; counted up to a bound."""
    return len(_listed(ledger, names, carer=carer, limit=COUNTED_MAX))


# --- stand-ins ---------------------------------------------------------------------------------


def stand_in(
    customers: Annotated[
        list[str] | None, typer.Argument(help="Ids, identifiers, foreign ids or names.")
    ] = None,
    person: Annotated[str, typer.Option(help="Who stands in: an id or a name.")] = "",
    until: Annotated[str, typer.Option(help="The first day when it is over.")] = "",
    of: Annotated[
        str | None, typer.Option("--of", help="At all in your care of this person, who left.")
    ] = None,
    as_: As = None,
    reason: Reason = None,
    yes: Yes = False,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Have somebody work orphaned customers for the owner who left, until a day (代管)."""
    with opened() as ledger:
        if not person or not until:
            raise InvalidRequestError("person", "say --person and --until")
        if bool(customers) == bool(of):
            raise InvalidRequestError("of", "name customers, or say --of whom, and not both")
        fields = {
            "person": resolve.person(ledger, person),
            "until": day(until, "until"),
            "reason": reason,
        }
        named = _named(ledger, customers or [], of, as_)
        if len(named) == 1 and not of:
            given = {"customer": named[0], **fields}
            submit(ledger, commands.NameStandIn, given, as_, request_id, json=json)
            return
        names, actor = resolve.Names(ledger), resolve.actor(ledger, as_)
        said = {name: value for name, value in fields.items() if value is not None}
        about = f"{names.person(str(fields['person']))} stands in until {until}"
        wanted = [
            several.Wanted(
                parse(commands.NameStandIn, {"customer": each, **said}), each, each, about
            )
            for each in named
        ]
        if wanted:
            several.confirm(
                "stand-ins",
                ("customer", "what"),
                [(names.customer(each), about) for each in named],
                f"Are these {len(named)} to be named?",
                yes=yes,
                json=json,
            )
        outcomes = several.record_each(ledger, wanted, actor, request_id)
        several.tell(ledger, "stand-ins", "named", outcomes, json=json)


def _named(ledger: Ledger, customers: Sequence[str], of: str | None, as_: str | None) -> list[str]:
    if of is None:
        named = list(dict.fromkeys(resolve.customer(ledger, each) for each in customers))
    else:
        found = _listed(
            ledger,
            resolve.Names(ledger),
            carer=resolve.actor(ledger, as_),
            owner=resolve.person(ledger, of),
            limit=STAND_INS_MAX + 1,
        )
        named = [row.customer for row, _ in found]
    if len(named) > STAND_INS_MAX:
        raise InvalidRequestError(
            "customers", f"more than {STAND_INS_MAX} at once; name some of them"
        )
    return named


def end_stand_in(
    customer: Customer,
    as_: As = None,
    reason: Reason = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """End a stand-in before its day, as the head, or as whoever stands in."""
    with opened() as ledger:
        customer_id = resolve.customer(ledger, customer)
        with ledger.pool.connection() as connection:
            found = standing_at(connection, customer_id, datetime.now(UTC))
        if found is None:
            raise resolve.NotFoundError(
                f"Nobody stands in at {customer}.", way_out="guishu orphans lists who does where."
            )
        fields = {"customer": customer_id, "stand_in": found.stand_in, "reason": reason}
        submit(ledger, commands.EndStandIn, fields, as_, request_id, json=json)
