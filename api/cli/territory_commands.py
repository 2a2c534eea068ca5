"""Commands about territories: the tree of them, their heads and managers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from api.cli import figure_commands, resolve
from api.cli.context import ID, As, Ids, Json, as_json, opened, print_json, print_table
from api.cli.stating import group, state
from ledger import organisation_commands as facts
from ledger.commands import InvalidRequestError, parse
from ledger.organisation import Territory
from projections import orphans as orphan_views
from projections import people as people_views

TerritoryArgument = Annotated[str, typer.Argument(help="An id or a name.")]


def territories_app() -> typer.Typer:
    """Return the commands about territories."""
    app = group()
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
            today = names.organisation.day(datetime.now(UTC))
            orphaned = orphan_views.counts(connection, today)
        if json:
            print_json(
                [
                    {**as_json(each), "orphaned": orphaned.get(each.territory.territory, 0)}
                    for each in tree
                ]
            )
            return
        print_table(
            "territories",
            ("name", "head", "other managers", "orphaned", *[ID] * ids),
            [
                (
                    "  " * each.depth + each.territory.name,
                    names.person(each.territory.head),
                    ", ".join(
                        names.person(person)
                        for person in sorted(each.territory.managers)
                        if person != each.territory.head
                    ),
                    orphaned.get(each.territory.territory, 0),
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
        state(ledger, parse(facts.DefineTerritory, fields), as_, words, json=json)


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
        state(ledger, parse(facts.DefineTerritory, fields), as_, words, json=json)


def _must_manage(people: set[str], territory: Territory, names: resolve.Names) -> None:
    strangers = sorted(names.person(each) for each in people - territory.managers)
    if strangers:
        raise InvalidRequestError(
            "remove-manager", f"{', '.join(strangers)} does not manage {territory.name}"
        )
