"""Commands about the organisation itself: people, territories, policies, the decider.

Each records a fact, which is final at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.bootstrap import Ledger
from api.cli import figure_commands, resolve
from api.cli.context import (
    ID,
    As,
    Ids,
    Json,
    as_json,
    console,
    day,
    numbers,
    opened,
    origin,
    print_json,
    print_table,
)
from api.cli.following import follow
from api.cli.four_eyes_commands import is_to_be_proposed, propose
from ledger import deciders
from ledger import organisation_commands as facts
from ledger.commands import InvalidRequestError, parse
from ledger.errors import LedgerError
from ledger.organisation import Territory
from projections import holdings
from projections import people as people_views

PEOPLE_MAX = 100_000

PersonArgument = Annotated[str, typer.Argument(help="An id, a name or a foreign id.")]
TerritoryArgument = Annotated[str, typer.Argument(help="An id or a name.")]
FromDay = Annotated[str, typer.Argument(help="The first day, such as 2026-03-01.")]
UntilDay = Annotated[str, typer.Argument(help="The first day on which it is over.")]
Roles = Annotated[
    list[str],
    typer.Option(help="rep, manager, auditor, admin or integration; may be repeated."),
]


def _group() -> typer.Typer:
    return typer.Typer(no_args_is_help=False, rich_markup_mode=None)


def _state(
    ledger: Ledger, fact: facts.FactCommand, as_: str | None, words: str, *, json: bool
) -> None:
    """Record a fact and say what holds from now on; or propose it, where four eyes are required."""
    actor = resolve.actor(ledger, as_)
    if is_to_be_proposed(ledger, fact):
        propose(ledger, fact, actor, json=json)
        return
    recorded = ledger.recording.record_fact(fact, origin(actor))
    follow(ledger, recorded.position)
    if json:
        print_json(recorded)
        return
    out = console()
    out.print(words, markup=False, soft_wrap=True)
    about = f"; {recorded.about}" if recorded.about else ""
    out.print(f"recorded at {recorded.position}{about}", markup=False, soft_wrap=True)


# --- people -------------------------------------------------------------------------------------


def people_app() -> typer.Typer:
    """Return the commands about people."""
    app = _group()
    app.callback(invoke_without_command=True)(people)
    app.command("show")(show_person)
    app.command("add")(add_person)
    app.command("change")(change_person)
    app.command("left")(person_left)
    app.command("returned")(person_returned)
    app.command("away")(person_away)
    app.command("delegate")(name_delegate)
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
        _state(ledger, parse(facts.AddPerson, fields), as_, f"{name} is there", json=json)


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
        _state(ledger, command, as_, words, json=json)


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
        _state(ledger, command, as_, words, json=json)


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
        _state(ledger, command, as_, words, json=json)


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
        _state(ledger, parse(facts.MarkAway, fields), as_, words, json=json)


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
        _state(ledger, parse(facts.NameDelegate, fields), as_, words, json=json)


def _period(person: str, from_day: str, until_day: str) -> dict[str, Any]:
    first, end = day(from_day, "from_day"), day(until_day, "until_day")
    if first is not None and end is not None and end <= first:
        raise InvalidRequestError("until_day", f"{end} does not lie behind {first}")
    return {"person": person, "from_day": first, "until_day": end}


# --- territories --------------------------------------------------------------------------------


def territories_app() -> typer.Typer:
    """Return the commands about territories."""
    app = _group()
    app.callback(invoke_without_command=True)(territories)
    app.command("figures")(figure_commands.figures)
    app.command("define")(define_territory)
    app.command("change")(change_territory)
    return app


def territories(context: typer.Context, ids: Ids = False, json: Json = False) -> None:
    """List the territories as a tree; or `define` one, or `change` one."""
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
            ("name", "head", "other managers", *[ID] * ids),
            [
                (
                    "  " * each.depth + each.territory.name,
                    names.person(each.territory.head),
                    ", ".join(
                        names.person(person)
                        for person in sorted(each.territory.managers)
                        if person != each.territory.head
                    ),
                    *[each.territory.territory] * ids,
                )
                for each in tree
            ],
        )


def define_territory(
    name: Annotated[str, typer.Argument(help="The territory's name.")],
    as_: As = None,
    parent: Annotated[str | None, typer.Option(help="The territory above.")] = None,
    head: Annotated[str | None, typer.Option(help="A person.")] = None,
    manager: Annotated[list[str], typer.Option(help="A person; may be repeated.")] = [],  # noqa: B006 - typer copies it
    json: Json = False,
) -> None:
    """Make a territory."""
    with opened() as ledger:
        taken = [
            each
            for each in ledger.recording.organisation().territories()
            if each.name == name.strip()
        ]
        if taken:
            raise InvalidRequestError(
                "name",
                f"there is a territory {name.strip()} ({taken[0].territory});"
                " guishu territories change changes it",
            )
        fields = {
            "name": name,
            "parent": resolve.territory(ledger, parent) if parent else None,
            "head": resolve.person(ledger, head) if head else None,
            "managers": [resolve.person(ledger, each) for each in manager],
        }
        words = f"{name} is a territory"
        _state(ledger, parse(facts.DefineTerritory, fields), as_, words, json=json)


def change_territory(
    territory: TerritoryArgument,
    as_: As = None,
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    parent: Annotated[str | None, typer.Option(help="The territory above from now on.")] = None,
    no_parent: Annotated[bool, typer.Option("--no-parent", help="At the top from now on.")] = False,
    head: Annotated[str | None, typer.Option(help="Who is the head from now on.")] = None,
    no_head: Annotated[bool, typer.Option("--no-head", help="Without a head from now on.")] = False,
    add_manager: Annotated[list[str], typer.Option(help="A person; may be repeated.")] = [],  # noqa: B006 - typer copies it
    remove_manager: Annotated[list[str], typer.Option(help="A person; may be repeated.")] = [],  # noqa: B006 - typer copies it
    json: Json = False,
) -> None:
    """Change a territory's name, place, head or managers; what is not given stays.

    A head who is replaced no longer manages the territory, unless --add-manager names them.
    """
    with opened() as ledger:
        names = resolve.Names(ledger)
        found = names.organisation.territory(resolve.territory(ledger, territory))
        if found is None:
            raise AssertionError(f"{territory} was just looked up")
        if (parent and no_parent) or (head and no_head):
            raise InvalidRequestError("", "the same thing is given and taken away")
        changes = (name, parent, no_parent, head, no_head, add_manager, remove_manager)
        if not any(changes):
            raise InvalidRequestError("", "the change changes nothing: see --help")
        removed = {resolve.person(ledger, each) for each in remove_manager}
        _must_manage(removed, found, names)
        now_head = resolve.person(ledger, head) if head else found.head
        now_head = None if no_head or now_head in removed else now_head
        managers = found.managers - removed - ({found.head} if now_head != found.head else set())
        managers |= {resolve.person(ledger, each) for each in add_manager}
        above = resolve.territory(ledger, parent) if parent else found.parent
        above = None if no_parent else above
        fields = {
            "territory": found.territory,
            "name": name or found.name,
            "parent": above,
            "head": now_head,
            "managers": sorted(managers),
            "foreign_ids": [
                {"system": each.system, "value": each.value} for each in found.foreign_ids
            ],
        }
        gone = sorted(names.person(each) for each in found.managers - managers - {now_head})
        words = (
            f"{name or found.name}: head {names.person(now_head) or 'nobody'},"
            f" below {names.territory(above) or 'nothing'}"
            + (f"; no longer its manager: {', '.join(gone)}" if gone else "")
        )
        _state(ledger, parse(facts.DefineTerritory, fields), as_, words, json=json)


def _must_manage(people: set[str], territory: Territory, names: resolve.Names) -> None:
    strangers = sorted(names.person(each) for each in people - territory.managers)
    if strangers:
        raise InvalidRequestError(
            "remove-manager", f"{', '.join(strangers)} does not manage {territory.name}"
        )


# --- policies and the decider -------------------------------------------------------------------


def policy_app() -> typer.Typer:
    """Return the commands about policies."""
    app = _group()
    app.callback(invoke_without_command=True)(policy)
    app.command("adopt")(adopt_policy)
    app.command("decider")(adopt_decider)
    return app


def policy(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--history", help="All that ever were.")] = False,
    json: Json = False,
) -> None:
    """Print the policy in force; or `adopt` another, or a version of the `decider`."""
    if context.invoked_subcommand is not None:
        return
    with opened() as ledger:
        names = resolve.Names(ledger)
        if every:
            with ledger.pool.connection() as connection:
                adopted = people_views.policies(connection)
            if json:
                print_json(adopted)
                return
            print_table(
                "policies",
                ("number", "recorded", "position", "comment"),
                [
                    (each.number, names.moment(each.recorded), each.position, each.comment)
                    for each in adopted
                ],
            )
            return
        in_force = names.organisation.policy
        rules = in_force.policy.as_rules()
        version = names.organisation.decider
        if json:
            print_json({"number": in_force.number, "decider": version, "rules": rules})
            return
        title = f"policy {in_force.number}" if in_force.number else "policy: the defaults"
        print_table(
            f"{title}, decided by version {version} of the decider",
            ("rule", "value"),
            [row for rule, value in rules.items() for row in _rule_rows(rule, value, names)],
        )


def _rule_rows(rule: str, value: Any, names: resolve.Names) -> Iterable[tuple[str, str]]:
    if rule != "territory_rules":
        yield rule, "no limit" if value is None else _words_of(value)
        return
    for each in value:
        conditions = " and ".join(
            f"{one['attribute']} {one['operator'].replace('_', ' ')} {_words_of(one['value'])}"
            for one in each["conditions"]
        )
        yield f"territory {names.territory(each['territory'])}", f"where {conditions}"


def _words_of(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_words_of(each) for each in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words_of(inner)}" for key, inner in value.items()) or "none"
    return str(as_json(value))


def adopt_policy(
    file: Annotated[Path, typer.Argument(help="A TOML file with what differs from the defaults.")],
    as_: As = None,
    comment: Annotated[str | None, typer.Option(help="Why; stands in the log in plain.")] = None,
    json: Json = False,
) -> None:
    """Put a policy in force; its rules may name territories by name."""
    with opened() as ledger:
        command = parse(facts.AdoptPolicy, {"policy": rules_of(ledger, file), "comment": comment})
        number = ledger.recording.organisation().policy.number + 1
        _state(ledger, command, as_, f"policy {number} is in force", json=json)


def rules_of(ledger: Ledger, file: Path) -> dict[str, Any]:
    """Return the rules in a policy's file, with the ids of the territories that it names.

    Raises PolicyFileError; NotFoundError for a territory.
    """
    rules = _toml(file)
    for each in rules.get("territory_rules", ()):
        if isinstance(each, dict) and isinstance(each.get("territory"), str):
            each["territory"] = resolve.territory(ledger, each["territory"])
    recycling = rules.get("recycling")
    for each in recycling.get("rules", ()) if isinstance(recycling, dict) else ():
        if isinstance(each, dict) and isinstance(each.get("territories"), list):
            each["territories"] = [
                resolve.territory(ledger, name) if isinstance(name, str) else name
                for name in each["territories"]
            ]
    return rules


def adopt_decider(
    version: Annotated[int, typer.Argument(help="Its number; it never goes back.")],
    as_: As = None,
    json: Json = False,
) -> None:
    """Have the requests from now on decided by this version of the decider."""
    with opened() as ledger:
        must_be_a_decider(version, "version")
        in_force = ledger.recording.organisation().decider
        if version == in_force:
            raise InvalidRequestError("version", f"version {version} is in force already")
        command = parse(facts.AdoptDecider, {"version": version})
        words = f"version {version} of the decider decides from now on"
        _state(ledger, command, as_, words, json=json)


def must_be_a_decider(version: int, field: str) -> None:
    """Raise InvalidRequestError for a version of the decider that this guishu lacks."""
    known = deciders.deciders()
    if version not in known:
        listed = ", ".join(str(each) for each in sorted(known))
        raise InvalidRequestError(
            field, f"this guishu has no version {version} of the decider; it has {listed}"
        )


class PolicyFileError(LedgerError):
    """The file of a policy cannot be read."""

    code = "policy_file"


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyFileError(
            f"{file} cannot be read: {error}", way_out="Make it a readable TOML file in UTF-8."
        ) from None
