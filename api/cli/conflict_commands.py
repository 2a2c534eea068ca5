"""Commands about conflicts 撞单: see them with what proves them, and rule on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from itertools import groupby, islice
from typing import Annotated, Any

import typer

from api.awaiting import asked_to_rule, every_conflict
from api.bootstrap import Ledger
from api.cli import resolve, several
from api.cli.conflict_words import KINDS, parties_words
from api.cli.context import (
    ID,
    As,
    Ids,
    Json,
    RequestId,
    console,
    notes,
    opened,
    print_json,
    print_table,
)
from api.cli.write_commands import submit
from ledger import commands
from ledger import conflicts as ruling
from ledger.commands import InvalidRequestError
from projections import telling, timeline
from projections.conflicts import (
    POSITION_MAX,
    ConflictRow,
    conflict_of,
    list_conflicts,
)
from projections.groups import owned_members, split_unseen

# Of the members of a group so many of each owner are named.
MEMBERS_TOLD = 5
# So many open conflicts are looked through for somebody's inbox at most.
INBOX_MAX = 100_000


def rule(
    conflict: Annotated[str, typer.Argument(help="The conflict's id, or its customer.")],
    what: Annotated[
        str,
        typer.Argument(help="keep, award, split, allow or dismiss; of a group no award or split."),
    ],
    as_: As = None,
    to: Annotated[str | None, typer.Option(help="To whom it is awarded: a party.")] = None,
    part: Annotated[
        list[str],
        typer.Option(help="Who shares it: PERSON, or PERSON=PERCENT of the credit; repeatable."),
    ] = [],  # noqa: B006 - typer copies it
    reason_code: Annotated[str | None, typer.Option(help="A word for programs.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, in your words; sealed.")] = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Rule on a conflict (裁决): as the head above its parties, or who stands in for that head."""
    with opened() as ledger:
        found = _named(ledger, conflict)
        fields: dict[str, Any] = {
            "customer": found.customer,
            "conflict": found.conflict,
            "ruling": what,
            "receiver": resolve.person(ledger, to) if to else None,
            "parts": [_part(ledger, each) for each in part] or None,
            "reason_code": reason_code,
            "reason": reason,
        }
        submit(ledger, commands.Rule, fields, as_, request_id, json=json)


def _part(ledger: Ledger, text: str) -> dict[str, str]:
    person, _, share = text.partition("=")
    found = {"person": resolve.person(ledger, person)}
    return {**found, "share": share.removesuffix("%").strip()} if share else found


def _named(ledger: Ledger, text: str) -> ConflictRow:
    """Return the conflict that is meant; raises NotFoundError, InvalidRequestError for several."""
    with ledger.pool.connection() as connection:
        found = conflict_of(connection, text)
        if found is not None:
            return found
        customer = resolve.customer(ledger, text)
        waiting = list_conflicts(connection, customer=customer, is_open=True)
    if not waiting:
        raise resolve.NotFoundError(
            f"No conflict at {text} awaits a ruling.", way_out="guishu conflicts lists them."
        )
    if len(waiting) > 1:
        several = ", ".join(f"{each.conflict} ({each.kind})" for each in waiting)
        raise InvalidRequestError("conflict", f"several are open; name one of {several}")
    return waiting[0]


def review(
    customer: Annotated[
        str | None, typer.Argument(help="A customer of the group; else say --all.")
    ] = None,
    as_: As = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All groups under different owners.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not show the list and ask before.")
    ] = False,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Have the conflict opened of a group that came under several owners unseen (核查)."""
    if (customer is None) != everything:
        raise InvalidRequestError("customer", "name one, or say --all")
    with opened() as ledger:
        if customer is not None:
            fields = {"customer": resolve.customer(ledger, customer)}
            submit(ledger, commands.ReviewGroup, fields, as_, request_id, json=json)
            return
        actor, names = resolve.actor(ledger, as_), resolve.Names(ledger)
        with ledger.pool.connection() as connection:
            found = split_unseen(connection)
        title = "to be reviewed"
        if found:
            several.confirm(
                title,
                ("root", "owned", "owners"),
                [(names.customer(e.root), f"{e.owned:,}", f"{e.owners:,}") for e in found],
                f"Are the conflicts of these {len(found):,} groups to be opened?",
                yes=yes,
                json=json,
            )
        wanted = [
            several.Wanted(
                commands.ReviewGroup(customer=each.root), each.root, each.root, f"{each.owners:,}"
            )
            for each in found
        ]
        outcomes = several.record_each(ledger, wanted, actor, request_id)
        several.tell(ledger, title, "root", outcomes, json=json)


def conflicts(
    customer: Annotated[
        str | None, typer.Option(help="Only those at this customer, or about the group it is in.")
    ] = None,
    party: Annotated[str | None, typer.Option(help="Only those with this person.")] = None,
    kind: Annotated[str | None, typer.Option(help=", ".join(KINDS) + ".")] = None,
    open_: Annotated[
        bool | None, typer.Option("--open/--ended", help="Those that await a ruling, or not.")
    ] = None,
    evidence: Annotated[
        bool,
        typer.Option(
            "--evidence", help="Tell the requests that prove each, and a group's members, as well."
        ),
    ] = False,
    before: Annotated[int | None, typer.Option(help="Only what was opened before it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The last so many.")] = 50,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """List conflicts (撞单): between whom, what proves them, who is to rule, or how they ended."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        filters = {
            "customer": resolve.customer(ledger, customer) if customer else None,
            "party": resolve.person(ledger, party) if party else None,
            "kind": kind,
        }
        with ledger.pool.connection() as connection:
            rows = list_conflicts(
                connection,
                **filters,
                is_open=open_,
                before=before or POSITION_MAX,
                limit=limit,
            )
        day = names.organisation.day(datetime.now(UTC))
        if json:
            print_json(
                [
                    {"conflict": row, "asked": asked_to_rule(row, names.organisation, day)}
                    | (_proof(ledger, row) if evidence else {})
                    for row in rows
                ]
            )
            return
        print_conflicts("conflicts", rows, names, day, ids=ids)
        if evidence:
            for row in rows:
                _tell_evidence(ledger, row, names)
        if len(rows) == limit:
            notes().print(f"older ones: --before {rows[-1].opened_position}", markup=False)


def print_conflicts(
    title: str, rows: Sequence[ConflictRow], names: resolve.Names, day: date, *, ids: bool
) -> None:
    """Print conflicts as a table; ``day`` is that on which somebody is asked."""
    columns = ("customer", "what", "parties", "proofs", "opened", "outcome")
    print_table(
        title,
        (ID, *columns) if ids else columns,
        [
            (
                *((row.conflict,) if ids else ()),
                names.customer(row.customer),
                KINDS[row.kind],
                parties_words(row.parties, names),
                str(len(row.evidence)),
                names.moment(row.opened),
                _outcome(row, names, day),
            )
            for row in rows
        ],
    )


def _outcome(row: ConflictRow, names: resolve.Names, day: date) -> str:
    if row.outcome is None:
        asked = " or ".join(
            names.person(each) for each in asked_to_rule(row, names.organisation, day)
        )
        return f"awaits {asked or 'nobody'}"
    to = f" to {names.person(row.receiver)}" if row.receiver else ""
    by = f" by {names.person(row.ruled_by)}" if row.ruled_by else ""
    return f"{row.outcome}{to}{by} ({row.reason_code})"


def _proof(ledger: Ledger, row: ConflictRow) -> dict[str, Any]:
    """Return what proves a conflict: the requests, and of a group whose its members are now."""
    with ledger.pool.connection() as connection:
        proof: dict[str, Any] = {"evidence": timeline.at_positions(connection, row.evidence)}
        if row.kind == ruling.GROUP:
            proof["members"] = owned_members(connection, row.customer)
    return proof


def _tell_evidence(ledger: Ledger, row: ConflictRow, names: resolve.Names) -> None:
    out = console()
    out.print(f"{row.conflict}, {names.customer(row.customer)}:", markup=False, soft_wrap=True)
    proof = _proof(ledger, row)
    entries = proof["evidence"]
    known = names.of(telling.ids_named(entries))
    for each in entries:
        told = telling.sentence(each, known)
        elsewhere = "" if each.customer == row.customer else f"{names.customer(each.customer)}: "
        moment = names.moment(each.recorded)
        line = f"{each.position:>7}  {moment}  {elsewhere}{told}"
        out.print(line, markup=False, soft_wrap=True)
    for owner, theirs in groupby(proof.get("members", ()), lambda member: member.owner):
        owned = [names.customer(member.customer) for member in theirs]
        some = f", and {len(owned) - MEMBERS_TOLD} more" if len(owned) > MEMBERS_TOLD else ""
        line = f"{len(owned):>7}  {names.person(owner)}: {', '.join(owned[:MEMBERS_TOLD])}{some}"
        out.print(line, markup=False, soft_wrap=True)


def awaiting_ruling(
    ledger: Ledger, person: str, names: resolve.Names, day: date
) -> list[ConflictRow]:
    """Return the open conflicts that somebody may rule on, the oldest first."""
    organisation = names.organisation
    with ledger.pool.connection() as connection:
        return [
            row
            for row in islice(every_conflict(connection), INBOX_MAX)
            if person in asked_to_rule(row, organisation, day)
        ]
