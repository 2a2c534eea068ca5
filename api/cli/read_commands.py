"""Commands that look things up."""

from __future__ import annotations

import heapq
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.bootstrap import Ledger
from api.cli import resolve, summary
from api.cli.context import (
    As,
    Json,
    console,
    moment,
    opened,
    origin,
    print_json,
    print_table,
)
from api.running import settle
from ledger import organisation_commands as facts
from ledger.commands import InvalidRequestError, parse
from ledger.envelope import Event, decode
from ledger.errors import LedgerError
from ledger.store.reading import read_stream
from projections import customers as customer_views
from projections import holdings, intervals
from projections import people as people_views
from projections.ownership import OwnershipNow, list_ownership, owner_of

Customer = Annotated[str, typer.Argument(help="Id, identifier, foreign id or name.")]


def customers(
    text: Annotated[str, typer.Argument(help="A part of the name, a number or a phone.")] = "",
    owner: Annotated[str | None, typer.Option(help="Only those of this person.")] = None,
    territory: Annotated[str | None, typer.Option(help="Only those of this territory.")] = None,
    free: Annotated[bool | None, typer.Option("--free/--owned", help="The pool, or not.")] = None,
    after: Annotated[str, typer.Option(help="The last id of the page before.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    json: Json = False,
) -> None:
    """Search customers, and say whose they are."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        owner_id = resolve.person(ledger, owner) if owner else None
        territory_id = resolve.territory(ledger, territory) if territory else None
        with ledger.pool.connection() as connection:
            if text:
                found = customer_views.search(
                    connection, text, territory=territory_id, limit=limit, after=after or None
                )
                owned = {each.customer: owner_of(connection, each.customer) for each in found}
                rows = [
                    (each, owned[each.customer])
                    for each in found
                    if _wanted(owned[each.customer], owner_id, free)
                ]
            else:
                listed = list_ownership(
                    connection,
                    owner=owner_id,
                    territory=territory_id,
                    free=free,
                    after=after,
                    limit=limit,
                )
                known = customer_views.summaries(connection, [each.customer for each in listed])
                rows = [(known[each.customer], each) for each in listed if each.customer in known]
        if json:
            print_json([{"customer": each, "ownership": owned} for each, owned in rows])
            return
        print_table(
            "customers",
            ("id", "name", "state", "territory", "owner", "since"),
            [
                (
                    each.customer,
                    each.name,
                    each.state,
                    names.territory(each.territory),
                    names.person(owned.owner) if owned else "",
                    names.moment(owned.since) if owned else "",
                )
                for each, owned in rows
            ],
        )


def _wanted(owned: OwnershipNow | None, owner: str | None, free: bool | None) -> bool:
    if owner is not None and (owned is None or owned.owner != owner):
        return False
    return free is None or (owned is not None and (owned.owner is None) == free)


def whois(
    customer: Customer,
    as_of: Annotated[str | None, typer.Option(help="Who owned it then (2026-03-01).")] = None,
    known_at: Annotated[
        str | None, typer.Option(help="As the ledger knew it then (2026-03-01T09:30).")
    ] = None,
    json: Json = False,
) -> None:
    """Say who owns a customer, or who owned it at a past moment."""
    with opened() as ledger:
        customer_id = resolve.customer(ledger, customer)
        names = resolve.Names(ledger)
        if as_of is None and known_at is None:
            _whois_now(ledger, customer_id, names, json=json)
            return
        known = moment(known_at, names.zone, "known-at")
        at = moment(as_of, names.zone, "as-of") or known
        if at is None:
            raise InvalidRequestError("as-of", "a moment is needed")
        with ledger.pool.connection() as connection:
            found = intervals.owner_at(connection, customer_id, at, known)
        if json:
            state = type(found).__name__.lower()
            print_json(
                {"customer": customer_id, "as_of": at, "known_at": known, "state": state}
                | (resolve_owned(found) if isinstance(found, intervals.Owned) else {})
            )
            return
        name = names.customer(customer_id)
        match found:
            case intervals.Owned():
                until = f" until {names.moment(found.until)}" if found.until else ""
                words = (
                    f"belonged to {names.person(found.owner)},"
                    f" from {names.moment(found.since)}{until}"
                )
            case intervals.Free():
                words = "was free"
            case _:
                words = "is unknown to the ledger at that time"
        console().print(f"On {names.moment(at)} {name} {words}.", markup=False, soft_wrap=True)


def resolve_owned(found: intervals.Owned) -> dict[str, Any]:
    """Return what JSON says of an ownership at a past moment."""
    return {"owner": found.owner, "since": found.since, "until": found.until}


def _whois_now(ledger: Ledger, customer: str, names: resolve.Names, *, json: bool) -> None:
    with ledger.pool.connection() as connection:
        owned = owner_of(connection, customer)
        details = customer_views.customer(connection, customer)
    owner = names.organisation.person(owned.owner) if owned and owned.owner else None
    orphaned = bool(owner and owner.left_on and owner.left_on <= _today(names))
    if json:
        print_json({"customer": details, "ownership": owned, "orphaned": orphaned})
        return
    name = names.customer(customer)
    out = console()
    if owned is None:
        state = details.customer.state if details else "unknown"
        out.print(f"{name} is {state}; nobody can own it.", markup=False)
        return
    territory = names.territory(owned.customer_territory) or "no territory"
    if owned.owner is None:
        out.print(f"{name} is free since {names.moment(owned.since)}, {territory}.", markup=False)
        return
    protected = names.moment(owned.protected_until)
    until = f", protected until {protected}" if protected else ""
    left = "; its owner has left, so it is orphaned" if orphaned else ""
    out.print(
        f"{name} belongs to {names.person(owned.owner)}"
        f" since {names.moment(owned.since)}{until}, {territory}{left}.",
        markup=False,
        soft_wrap=True,
    )


def _today(names: resolve.Names) -> date:

    return names.organisation.day(datetime.now(UTC))


def history(
    customer: Customer,
    json: Json = False,
    limit: Annotated[int, typer.Option(min=1, help="The last so many.")] = 200,
) -> None:
    """Tell a customer's history: what was asked and what was decided."""
    with opened() as ledger:
        customer_id = resolve.customer(ledger, customer)
        names = resolve.Names(ledger)
        events = _history(ledger, customer_id)[-limit:]
        if json:
            print_json(
                [
                    {
                        "position": event.position,
                        "recorded": event.recorded,
                        "effective": event.effective,
                        "name": event.name,
                        "actor": event.actor,
                        "sentence": summary.sentence(event, names).strip(),
                        "data": ledger.catalogue.dump(event.data),
                    }
                    for event in events
                ]
            )
            return
        console().print(names.customer(customer_id), markup=False)
        for event in events:
            console().print(summary.line(event, names), markup=False, soft_wrap=True)


def _history(ledger: Ledger, customer: str) -> list[Event]:
    with ledger.pool.connection() as connection:
        asked = read_stream(connection, f"customer-{customer}")
        decided = read_stream(connection, f"ownership-{customer}")
    merged = heapq.merge(asked, decided, key=lambda stored: stored.position)
    return [decode(ledger.catalogue, stored) for stored in merged]


# --- people, territories, policies ------------------------------------------------------------


def _group() -> typer.Typer:
    return typer.Typer(no_args_is_help=False, rich_markup_mode=None)


def people_app() -> typer.Typer:
    """Return the commands about people."""
    app = _group()
    app.callback(invoke_without_command=True)(people)
    app.command("add")(add_person)
    app.command("left")(person_left)
    return app


def people(context: typer.Context, json: Json = False) -> None:
    """List everybody, with what they hold; or `add` somebody, or say who `left`."""
    if context.invoked_subcommand is not None:
        return
    with opened() as ledger:
        names = resolve.Names(ledger)
        with ledger.pool.connection() as connection:
            listed = people_views.list_people(connection, limit=100_000)
            held = {each.person: each for each in holdings.workloads(connection)}
        if json:
            print_json([{"person": each, "workload": held.get(each.person)} for each in listed])
            return
        print_table(
            "people",
            ("id", "name", "territory", "roles", "left", "holds", "follow-ups"),
            [
                (
                    each.person,
                    each.name,
                    names.territory(each.territory),
                    " ".join(each.roles),
                    each.left_on,
                    held[each.person].held if each.person in held else 0,
                    held[each.person].follow_ups if each.person in held else 0,
                )
                for each in listed
            ],
        )


def add_person(
    name: Annotated[str, typer.Argument()],
    as_: As = None,
    territory: Annotated[str | None, typer.Option(help="The home territory.")] = None,
    role: Annotated[list[str], typer.Option(help="rep, manager, auditor, admin.")] = ["rep"],  # noqa: B006 - typer copies it
    json: Json = False,
) -> None:
    """Add somebody."""
    with opened() as ledger:
        fields = {
            "name": name,
            "territory": resolve.territory(ledger, territory) if territory else None,
            "roles": role,
        }
        _state(ledger, parse(facts.AddPerson, fields), as_, json=json)


def person_left(
    person: Annotated[str, typer.Argument(help="An id or a name.")],
    on: Annotated[str, typer.Argument(help="The first day on which the person is not there.")],
    as_: As = None,
    json: Json = False,
) -> None:
    """Say that somebody left; the customers stay, orphaned, until they are handed over."""
    with opened() as ledger:
        fields = {"person": resolve.person(ledger, person), "left_on": on}
        _state(ledger, parse(facts.MarkLeft, fields), as_, json=json)


def _state(ledger: Ledger, fact: facts.FactCommand, as_: str | None, *, json: bool) -> None:
    actor = resolve.actor(ledger, as_)
    recorded = ledger.recording.record_fact(fact, origin(actor))
    settle(ledger)
    if json:
        print_json(recorded)
    else:
        about = f": {recorded.about}" if recorded.about else ""
        console().print(f"recorded at {recorded.position}{about}", markup=False)


def territories_app() -> typer.Typer:
    """Return the commands about territories."""
    app = _group()
    app.callback(invoke_without_command=True)(territories)
    app.command("define")(define_territory)
    return app


def territories(context: typer.Context, json: Json = False) -> None:
    """List the territories as a tree; or `define` one."""
    if context.invoked_subcommand is not None:
        return
    with opened() as ledger:
        names = resolve.Names(ledger)
        with ledger.pool.connection() as connection:
            tree = people_views.territory_tree(connection)
        if json:
            print_json(tree)
            return
        print_table(
            "territories",
            ("id", "name", "head", "managers"),
            [
                (
                    each.territory.territory,
                    "  " * each.depth + each.territory.name,
                    names.person(each.territory.head),
                    ", ".join(names.person(person) for person in each.territory.managers),
                )
                for each in tree
            ],
        )


def define_territory(
    name: Annotated[str, typer.Argument()],
    as_: As = None,
    territory: Annotated[str | None, typer.Option(help="The one to change.")] = None,
    parent: Annotated[str | None, typer.Option()] = None,
    head: Annotated[str | None, typer.Option(help="A person.")] = None,
    manager: Annotated[list[str], typer.Option(help="A person; may be repeated.")] = [],  # noqa: B006 - typer copies it
    json: Json = False,
) -> None:
    """Make a territory, or say how one is from now on."""
    with opened() as ledger:
        fields = {
            "name": name,
            "territory": resolve.territory(ledger, territory) if territory else None,
            "parent": resolve.territory(ledger, parent) if parent else None,
            "head": resolve.person(ledger, head) if head else None,
            "managers": [resolve.person(ledger, each) for each in manager],
        }
        _state(ledger, parse(facts.DefineTerritory, fields), as_, json=json)


def policy_app() -> typer.Typer:
    """Return the commands about policies."""
    app = _group()
    app.callback(invoke_without_command=True)(policy)
    app.command("adopt")(adopt_policy)
    return app


def policy(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--history", help="All that ever were.")] = False,
    json: Json = False,
) -> None:
    """Print the policy in force; or `adopt` another from a TOML file."""
    if context.invoked_subcommand is not None:
        return
    with opened() as ledger:
        if every:
            with ledger.pool.connection() as connection:
                adopted = people_views.policies(connection)
            if json:
                print_json(adopted)
                return
            zone = ledger.recording.organisation().time_zone
            print_table(
                "policies",
                ("number", "position", "recorded", "comment"),
                [
                    (each.number, each.position, each.recorded.astimezone(zone), each.comment)
                    for each in adopted
                ],
            )
            return
        in_force = ledger.recording.organisation().policy
        rules = in_force.policy.as_rules()
        if json:
            print_json({"number": in_force.number, "rules": rules})
            return
        title = f"policy {in_force.number}" if in_force.number else "policy: the defaults"
        print_table(title, ("rule", "value"), list(rules.items()))


def adopt_policy(
    file: Annotated[Path, typer.Argument(help="A TOML file with what differs from the defaults.")],
    as_: As = None,
    comment: Annotated[str | None, typer.Option()] = None,
    json: Json = False,
) -> None:
    """Put a policy in force."""
    with opened() as ledger:
        command = parse(facts.AdoptPolicy, {"policy": _toml(file), "comment": comment})
        _state(ledger, command, as_, json=json)


class PolicyFileError(LedgerError):
    """The file of a policy cannot be read."""

    code = "policy_file"


def _toml(file: Path) -> dict[str, Any]:

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyFileError(
            f"{file} cannot be read: {error}", way_out="Make it a readable TOML file in UTF-8."
        ) from None
