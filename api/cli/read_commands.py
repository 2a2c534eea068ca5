"""Commands that look things up."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer
from psycopg import Connection

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import (
    ID,
    Ids,
    Json,
    console,
    moment,
    notes,
    opened,
    print_json,
    print_table,
    typed,
)
from ledger import orphans, reasons
from ledger.commands import InvalidRequestError
from ledger.store.reading import POSITION_MAX, head
from projections import customers as customer_views
from projections import intervals, telling, timeline
from projections.ownership import OwnershipNow, list_ownership, owner_of
from projections.runner import positions
from projections.stand_ins import standing_at

Customer = Annotated[str, typer.Argument(help="Id, identifier, foreign id or name.")]


_Found = tuple[customer_views.Customer, OwnershipNow | None]


def customers(
    text: Annotated[str, typer.Argument(help="A part of the name, a number or a phone.")] = "",
    owner: Annotated[str | None, typer.Option(help="Only those of this person.")] = None,
    territory: Annotated[str | None, typer.Option(help="Only those of this territory.")] = None,
    free: Annotated[bool | None, typer.Option("--free/--owned", help="The pool, or not.")] = None,
    after: Annotated[str, typer.Option(help="The last id of the page before.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """Search customers, and say whose they are."""
    text, after = typed(text, "text"), typed(after, "after")
    with opened() as ledger:
        names = resolve.Names(ledger)
        owner_id = resolve.person(ledger, owner) if owner else None
        territory_id = resolve.territory(ledger, territory) if territory else None
        with ledger.pool.connection() as connection:
            if text:
                found = _searched(connection, text, owner_id, territory_id, free, after, limit)
            else:
                found = _listed(connection, owner_id, territory_id, free, after, limit)
        known = names.of(owned.owner for _, owned in found if owned and owned.owner)
        if json:
            print_json(
                [
                    {
                        "customer": each,
                        "ownership": owned,
                        "owner_name": known.get(owned.owner or "") if owned else None,
                    }
                    for each, owned in found
                ]
            )
            return
        columns = ("name", "owner", ID) if ids else ("name", "territory", "owner", "since")
        rows = []
        for each, owned in found:
            told = {
                "name": each.name or "(erased)",
                "territory": names.territory(each.territory),
                "owner": _owner_words(each, owned, known),
                "since": names.moment(owned.since) if owned else "",
                ID: each.customer,
            }
            rows.append([told[column] for column in columns])
        print_table("customers", columns, rows)
        if len(found) == limit:
            notes().print(f"there may be more: --after {found[-1][0].customer}", markup=False)


def _owner_words(
    customer: customer_views.Customer, owned: OwnershipNow | None, known: dict[str, str]
) -> str:
    if owned is None or customer.state != "admitted":
        reason = f": {customer.reason}" if customer.reason else ""
        return f"({customer.state}{reason})"
    return "free" if owned.owner is None else known.get(owned.owner, owned.owner)


def _listed(
    connection: Connection[Any],
    owner: str | None,
    territory: str | None,
    free: bool | None,
    after: str,
    limit: int,
) -> list[_Found]:
    listed = list_ownership(
        connection, owner=owner, territory=territory, free=free, after=after, limit=limit
    )
    known = customer_views.summaries(connection, [each.customer for each in listed])
    return [(known[each.customer], each) for each in listed if each.customer in known]


def _searched(
    connection: Connection[Any],
    text: str,
    owner: str | None,
    territory: str | None,
    free: bool | None,
    after: str,
    limit: int,
) -> list[_Found]:
    """Return a page of what is found, looking on until it is full of what is wanted."""
    rows: list[_Found] = []
    while len(rows) < limit:
        found = customer_views.search(
            connection, text, territory=territory, limit=limit, after=after or None
        )
        for each in found:
            owned = owner_of(connection, each.customer)
            if _wanted(owned, owner, free):
                rows.append((each, owned))
        if len(found) < limit:
            break
        after = found[-1].customer
    return rows[:limit]


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
            raise AssertionError("one of the two was given")
        must_have_come("as-of", at)
        must_have_come("known-at", known)
        with ledger.pool.connection() as connection:
            found = intervals.owner_at(connection, customer_id, at, known)
        if json:
            said: dict[str, Any] = {"customer": customer_id, "as_of": at, "known_at": known}
            said["state"] = type(found).__name__.lower()
            if isinstance(found, intervals.Owned):
                said |= {"owner": found.owner, "owner_name": names.person(found.owner)}
                said |= {"since": found.since, "until": found.until}
            print_json(said)
            return
        name = names.customer(customer_id)
        belief = f", as the ledger knew it on {names.moment(known)}," if known else ""
        console().print(
            f"On {names.moment(at)}{belief} {name} {_state_at(found, names)}.",
            markup=False,
            soft_wrap=True,
        )


def must_have_come(field: str, at: datetime | None) -> None:
    """Raise InvalidRequestError for a moment that lies ahead."""
    if at is not None and at > datetime.now(UTC):
        raise InvalidRequestError(field, "the moment lies in the future; nobody knows that yet")


def _state_at(found: intervals.State, names: resolve.Names) -> str:
    match found:
        case intervals.Owned():
            until = f" until {names.moment(found.until)}" if found.until else ""
            return (
                f"belonged to {names.person(found.owner)}, from {names.moment(found.since)}{until}"
            )
        case intervals.Free():
            return "was free"
        case _:
            return "was not in the ledger"


def _whois_now(ledger: Ledger, customer: str, names: resolve.Names, *, json: bool) -> None:
    with ledger.pool.connection() as connection:
        owned = owner_of(connection, customer)
        details = customer_views.customer(connection, customer)
    owner = names.organisation.person(owned.owner) if owned and owned.owner else None
    orphaned = bool(owner and owner.left_on and owner.left_on <= _today(names))
    if json:
        owner_name = names.person(owned.owner) if owned and owned.owner else None
        told = {"customer": details, "ownership": owned, "owner_name": owner_name}
        print_json(told | {"orphaned": orphaned})
        return
    name = names.customer(customer)
    out = console()
    if owned is None:
        out.print(_not_owned(details, name, names), markup=False, soft_wrap=True)
        return
    territory = names.territory(owned.customer_territory) or "no territory"
    if owned.owner is None:
        closed = " and closed" if details and details.customer.state == "closed" else ""
        since = names.moment(owned.since)
        out.print(f"{name} is free{closed} since {since}, {territory}.", markup=False)
        return
    protected = names.moment(owned.protected_until)
    until = f", protected until {protected}" if protected else ""
    left = _orphaned_words(ledger, customer, owned, names) if orphaned else ""
    out.print(
        f"{name} belongs to {names.person(owned.owner)}"
        f" since {names.moment(owned.since)}{until}, {territory}{left}.",
        markup=False,
        soft_wrap=True,
    )


def _orphaned_words(
    ledger: Ledger, customer: str, owned: OwnershipNow, names: resolve.Names
) -> str:
    """Say in whose care an orphaned customer is, and who stands in."""
    organisation = names.organisation
    carers = orphans.looked_after_by(
        owned.owner or "", owned.customer_territory, organisation, _today(names)
    )
    with ledger.pool.connection() as connection:
        found = standing_at(connection, customer, datetime.now(UTC), _today(names))
    care = " or ".join(names.person(each) for each in carers) or "nobody"
    stands_in = f", {names.person(found.person)} stands in" if found else ""
    return f"; its owner has left, so it is orphaned: {care} looks after it{stands_in}"


def _not_owned(
    details: customer_views.CustomerDetails | None, name: str, names: resolve.Names
) -> str:
    if details is None or details.customer.state == "pending":
        return f"{name} waits for its decision; guishu doctor says what holds it up."
    customer = details.customer
    if customer.existing is not None:
        return f"{name} was refused as a duplicate of {names.customer(customer.existing)}."
    sentence = reasons.SENTENCES.get(customer.reason or "", customer.reason or customer.state)
    return f"{name} is {customer.state}, so nobody can own it. {sentence}"


def _today(names: resolve.Names) -> date:
    return names.organisation.day(datetime.now(UTC))


def history(
    customer: Customer,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The last so many.")] = 200,
    before: Annotated[
        int | None, typer.Option(help="Only what stands before this position.")
    ] = None,
    ids: Annotated[
        bool, typer.Option("--ids", help="Show the ids by which acts are corrected.")
    ] = False,
    json: Json = False,
) -> None:
    """Tell a customer's history: what was asked, what was decided and why."""
    with opened() as ledger:
        customer_id = resolve.customer(ledger, customer)
        names = resolve.Names(ledger)
        with ledger.pool.connection() as connection, connection.transaction():
            # One snapshot: the entries are those that the position stands for.
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            reflects = positions(connection).get("timeline", 0)
            top = head(connection)
            page = {"before": before or POSITION_MAX, "limit": limit}
            entries = timeline.latest(connection, customer_id, **page)
            entries += timeline.latest_of_groups(connection, customer_id, **page)
            entries = sorted(entries, key=lambda each: each.position)[-limit:]
        known = names.of(telling.ids_named(entries))
        if json:
            told = [
                {**asdict(each), "sentence": telling.sentence(_local(each, names), known)}
                for each in entries
            ]
            print_json({"customer": customer_id, "position": reflects, "entries": told})
            return
        out = console()
        behind = f", {top - reflects:,} behind the log" if top > reflects else ""
        out.print(
            f"{names.customer(customer_id)}, as of position {reflects:,}{behind}",
            markup=False,
            soft_wrap=True,
        )
        for each in entries:
            line = _line(each, names, known, ids=ids)
            if each.customer != customer_id:
                line += f" (in the group of {names.customer(each.customer)})"
            out.print(line, markup=False, soft_wrap=True)
        if len(entries) == limit:
            notes().print(f"older ones: --before {entries[0].position}", markup=False)


def _line(
    entry: timeline.TimelineEntry,
    names: resolve.Names,
    known: dict[str, str],
    *,
    ids: bool,
) -> str:
    act = entry.details.get("follow_up") or entry.details.get("deal")
    indent = "" if entry.request is None else "  "
    sentence = telling.sentence(_local(entry, names), known)
    shown_id = f" [{act}]" if ids and act else ""
    return f"{entry.position:>7}  {names.moment(entry.effective)}  {indent}{sentence}{shown_id}"


def _local(entry: timeline.TimelineEntry, names: resolve.Names) -> timeline.TimelineEntry:
    """Return the entry with the moments of its sentence in the organisation's time zone."""
    moments = {
        key: names.moment(datetime.fromisoformat(entry.details[key]))
        for key in ("retry_at", "at", "since", "until")
        # A day, as a hold and a stand-in name one, is the same in every zone.
        if "T" in (entry.details.get(key) or "")
    }
    return replace(entry, details={**entry.details, **moments}) if moments else entry
