"""Commands about people: who is there, comes, changes, is away, leaves."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer

from api.cli import holdings_commands, resolve
from api.cli.context import ID, As, Ids, Json, day, numbers, opened, print_json, print_table
from api.cli.stating import group, state
from ledger import organisation_commands as facts
from ledger.commands import InvalidRequestError, parse
from ledger.organisation import Territory
from projections import holdings
from projections import people as people_views

PEOPLE_MAX = 100_000

PersonArgument = Annotated[str, typer.Argument(help="An id, a name or a foreign id.")]
FromDay = Annotated[str, typer.Argument(help="The first day, such as 2026-03-01.")]
UntilDay = Annotated[str, typer.Argument(help="The first day on which it is over.")]
Roles = Annotated[
    list[str],
    typer.Option(help="rep, manager, auditor, admin or integration; may be repeated."),
]


def people_app() -> typer.Typer:
    """Return the commands about people."""
    app = group()
    app.callback(invoke_without_command=True)(people)
    app.command("show")(show_person)
    app.command("holdings")(holdings_commands.holdings)
    app.command("add")(add_person)
    app.command("change")(change_person)
    app.command("left")(person_left)
    app.command("returned")(person_returned)
    app.command("away")(person_away)
    app.command("back")(person_back)
    app.command("delegate")(name_delegate)
    app.command("end-delegate")(end_delegate)
    return app


def people(
    context: typer.Context,
    territory: Annotated[str | None, typer.Option(help="Only those at home there.")] = None,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """List everybody, with what they hold; or record who comes, changes, is away or leaves."""
    if context.invoked_subcommand is not None:
        return
    with opened() as ledger:
        names = resolve.Names(ledger)
        home = resolve.territory(ledger, territory) if territory else None
        with ledger.pool.connection() as connection:
            listed = people_views.list_people(connection, territory=home, limit=PEOPLE_MAX)
            held = {each.person: each for each in holdings.workloads(connection)}
        if json:
            print_json([{"person": each, "workload": held.get(each.person)} for each in listed])
            return
        if ids:
            rows = [(_name(each), names.territory(each.territory), each.person) for each in listed]
            print_table("people", ("name", "territory", ID), rows)
            return
        today = names.organisation.day(datetime.now(UTC))
        print_table(
            "people",
            ("name", "territory", "roles", "holds", "follow-ups, 30 days", "state"),
            [
                (
                    _name(each),
                    names.territory(each.territory),
                    " ".join(each.roles),
                    held[each.person].held if each.person in held else 0,
                    held[each.person].follow_ups if each.person in held else 0,
                    "; ".join(_state_of(each, today, names)),
                )
                for each in listed
            ],
        )


def _name(person: people_views.Person) -> str:
    return person.name or "(erased)"


def _state_of(person: people_views.Person, today: date, names: resolve.Names) -> Iterable[str]:
    """Yield what is particular about somebody now, or will be."""
    if person.left_on is not None:
        yield f"left on {person.left_on}" if person.left_on <= today else f"leaves {person.left_on}"
    for absence in person.absences:
        if absence.until_day > today:
            begun = absence.from_day <= today
            yield ("away" if begun else f"away from {absence.from_day}") + (
                f" until {absence.until_day}"
            )
    for each in person.delegations:
        if each.until_day > today:
            since = "" if each.from_day <= today else f" from {each.from_day}"
            yield f"{names.person(each.delegate)} acts{since} until {each.until_day}"


def show_person(person: PersonArgument, json: Json = False) -> None:
    """Show all that is known of somebody: home, roles, absences, delegates, what they hold."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        person_id = resolve.person(ledger, person)
        with ledger.pool.connection() as connection:
            found = people_views.person(connection, person_id)
            held = {each.person: each for each in holdings.workloads(connection)}.get(person_id)
        if found is None:
            raise resolve.NotFoundError(
                f"{person} is in the log, and not in the read models yet.",
                way_out="Try again in a moment; guishu doctor says what holds them up.",
            )
        organisation = names.organisation
        runs = [each for each in organisation.territories() if person_id in each.managers]
        if json:
            print_json(
                {
                    "person": found,
                    "workload": held,
                    "manages": [each.territory for each in runs],
                    "heads": [each.territory for each in runs if each.head == person_id],
                }
            )
            return
        print_table("person", ("what", "is"), list(_about(found, held, runs, names)))


def _about(
    person: people_views.Person,
    held: holdings.Workload | None,
    runs: list[Territory],
    names: resolve.Names,
) -> Iterable[tuple[str, str]]:
    yield "name", _name(person)
    yield "id", person.person
    yield "territory", names.territory(person.territory) or "none"
    yield "roles", " ".join(person.roles)
    for each in runs:
        yield "head of" if each.head == person.person else "manages", each.name
    for field in ("joined_on", "left_on", "phone", "email"):
        value = getattr(person, field)
        if value is not None:
            yield field.replace("_", " "), str(value)
    for number in person.foreign_ids:
        yield f"in {number.system}", number.value
    for absence in person.absences:
        yield "away", f"from {absence.from_day} until {absence.until_day}"
    for delegation in person.delegations:
        acting = names.person(delegation.delegate)
        yield "delegate", f"{acting} from {delegation.from_day} until {delegation.until_day}"
    if held is not None:
        yield "holds", f"{held.held} customers, {held.held_won} of them won"
        yield "granted", f"{held.grants_today} today, {held.grants_7_days} in 7 days"
        yield "follow-ups", f"{held.follow_ups_7_days} in 7 days, {held.follow_ups_30_days} in 30"
        if held.last_activity is not None:
            yield "last active", names.moment(held.last_activity)


def add_person(
    name: Annotated[str, typer.Argument(help="The person's name; sealed.")],
    as_: As = None,
    territory: Annotated[str | None, typer.Option(help="The home territory.")] = None,
    role: Roles = ["rep"],  # noqa: B006 - typer copies it
    joined: Annotated[str | None, typer.Option(help="The first day.")] = None,
    phone: Annotated[str | None, typer.Option(help="Sealed.")] = None,
    email: Annotated[str | None, typer.Option(help="Sealed.")] = None,
    foreign_id: Annotated[
        list[str], typer.Option(help="SYSTEM=VALUE: what another system calls the person.")
    ] = [],  # noqa: B006 - typer copies it
    json: Json = False,
) -> None:
    """Add somebody."""
    with opened() as ledger:
        fields = {
            "name": name,
            "territory": resolve.territory(ledger, territory) if territory else None,
            "roles": role,
            "joined_on": day(joined, "joined"),
            "phone": phone,
            "email": email,
            "foreign_ids": numbers(foreign_id, "foreign-id"),
        }
        state(ledger, parse(facts.AddPerson, fields), as_, f"{name} is there", json=json)


def change_person(
    person: PersonArgument,
    as_: As = None,
    name: Annotated[str | None, typer.Option(help="The new name; sealed.")] = None,
    territory: Annotated[str | None, typer.Option(help="The new home territory.")] = None,
    no_territory: Annotated[
        bool, typer.Option("--no-territory", help="At home in no territory any more.")
    ] = False,
    role: Annotated[
        list[str], typer.Option(help="All roles from now on; repeat it for several.")
    ] = [],  # noqa: B006 - typer copies it
    json: Json = False,
) -> None:
    """Change somebody's name, territory or roles; what is not given stays."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        person_id = resolve.person(ledger, person)
        found = names.organisation.person(person_id)
        if found is None:
            raise AssertionError(f"{person_id} was just looked up")
        if territory and no_territory:
            raise InvalidRequestError("territory", "it is given, and --no-territory as well")
        if not (name or territory or no_territory or role):
            raise InvalidRequestError("", "the change changes nothing: say --territory or --role")
        home = resolve.territory(ledger, territory) if territory else found.territory
        home = None if no_territory else home
        roles = role or sorted(found.roles)
        fields = {"person": person_id, "territory": home, "roles": roles, "name": name}
        command = parse(facts.ChangePerson, fields)
        where = names.territory(home) or "no territory"
        words = f"{name or names.person(person_id)}: {' '.join(roles)}, at home in {where}"
        state(ledger, command, as_, words, json=json)


def person_left(
    person: PersonArgument,
    on: Annotated[str, typer.Argument(help="The first day on which the person is not there.")],
    as_: As = None,
    json: Json = False,
) -> None:
    """Say that somebody left; the customers stay, orphaned, until they are handed over."""
    with opened() as ledger:
        person_id = resolve.person(ledger, person)
        left_on = day(on, "on")
        with ledger.pool.connection() as connection:
            held = {each.person: each.held for each in holdings.workloads(connection)}
        count = held.get(person_id, 0)
        words = f"{resolve.Names(ledger).person(person_id)} is not there from {left_on} on"
        words += f"; customers then orphaned: {count}" if count else ""
        command = parse(facts.MarkLeft, {"person": person_id, "left_on": left_on})
        state(ledger, command, as_, words, json=json)


def person_returned(
    person: PersonArgument,
    on: Annotated[str, typer.Argument(help="The first day on which the person is there again.")],
    as_: As = None,
    json: Json = False,
) -> None:
    """Say that somebody who had left is there again."""
    with opened() as ledger:
        person_id = resolve.person(ledger, person)
        back = day(on, "on")
        command = parse(facts.MarkReturned, {"person": person_id, "returned_on": back})
        words = f"{resolve.Names(ledger).person(person_id)} is there again from {back} on"
        state(ledger, command, as_, words, json=json)


def person_away(
    person: PersonArgument,
    from_day: FromDay,
    until_day: Annotated[str, typer.Argument(help="The first day on which the person is back.")],
    as_: As = None,
    json: Json = False,
) -> None:
    """Say that somebody is away for a time; the customers stay theirs."""
    with opened() as ledger:
        fields = _period(resolve.person(ledger, person), from_day, until_day)
        words = (
            f"{resolve.Names(ledger).person(fields['person'])} is away from"
            f" {fields['from_day']} and back on {fields['until_day']}"
        )
        state(ledger, parse(facts.MarkAway, fields), as_, words, json=json)


def name_delegate(
    person: PersonArgument,
    delegate: Annotated[str, typer.Argument(help="Who acts in the meantime.")],
    from_day: FromDay,
    until_day: UntilDay,
    as_: As = None,
    json: Json = False,
) -> None:
    """Say who acts for somebody for a time; it ends by itself."""
    with opened() as ledger:
        fields = _period(resolve.person(ledger, person), from_day, until_day)
        fields["delegate"] = resolve.person(ledger, delegate)
        if fields["delegate"] == fields["person"]:
            raise InvalidRequestError("delegate", "nobody is their own delegate")
        names = resolve.Names(ledger)
        words = (
            f"{names.person(fields['delegate'])} acts for {names.person(fields['person'])}"
            f" from {fields['from_day']} until the day before {fields['until_day']}"
        )
        state(ledger, parse(facts.NameDelegate, fields), as_, words, json=json)


def person_back(
    person: PersonArgument,
    on: Annotated[str, typer.Argument(help="The first day on which the person is back.")],
    as_: As = None,
    json: Json = False,
) -> None:
    """Say that somebody is back before the day that was said, or is not away after all."""
    with opened() as ledger:
        person_id, back = resolve.person(ledger, person), day(on, "on")
        command = parse(facts.EndAbsence, {"person": person_id, "back_on": back})
        words = f"{resolve.Names(ledger).person(person_id)} is back from {back} on"
        state(ledger, command, as_, words, json=json)


def end_delegate(
    person: PersonArgument,
    on: Annotated[str, typer.Argument(help="The first day on which nobody acts any more.")],
    as_: As = None,
    json: Json = False,
) -> None:
    """Say that nobody acts for somebody any more, before the day that was said."""
    with opened() as ledger:
        person_id, ended = resolve.person(ledger, person), day(on, "on")
        command = parse(facts.EndDelegation, {"person": person_id, "ended_on": ended})
        name = resolve.Names(ledger).person(person_id)
        state(ledger, command, as_, f"nobody acts for {name} from {ended} on", json=json)


def _period(person: str, from_day: str, until_day: str) -> dict[str, Any]:
    first, end = day(from_day, "from_day"), day(until_day, "until_day")
    if first is not None and end is not None and end <= first:
        raise InvalidRequestError("until_day", f"{end} does not lie behind {first}")
    return {"person": person, "from_day": first, "until_day": end}
