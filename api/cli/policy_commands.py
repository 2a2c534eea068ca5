"""Commands about policies and the version of the decider that is in force."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import As, Json, as_json, opened, print_json, print_table
from api.cli.stating import group, state
from ledger import deciders
from ledger import organisation_commands as facts
from ledger.commands import InvalidRequestError, parse
from ledger.errors import LedgerError
from projections import people as people_views


def policy_app() -> typer.Typer:
    """Return the commands about policies."""
    app = group()
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
    """Put a policy in force; its rules may name territories and people by name."""
    with opened() as ledger:
        command = parse(facts.AdoptPolicy, {"policy": rules_of(ledger, file), "comment": comment})
        number = ledger.recording.organisation().policy.number + 1
        state(ledger, command, as_, f"policy {number} is in force", json=json)


def rules_of(ledger: Ledger, file: Path) -> dict[str, Any]:
    """Return the rules in a policy's file, with the ids of territories and people that it names.

    Raises PolicyFileError; NotFoundError for a territory or person.
    """
    rules = _toml(file)
    for each in _tables(rules.get("territory_rules")):
        if isinstance(each.get("territory"), str):
            each["territory"] = resolve.territory(ledger, each["territory"])
    recycling = rules.get("recycling")
    for each in _tables(recycling.get("rules")) if isinstance(recycling, dict) else ():
        if isinstance(each.get("territories"), list):
            each["territories"] = [
                resolve.territory(ledger, name) if isinstance(name, str) else name
                for name in each["territories"]
            ]
    for rule in _tables(rules.get("approval_rules")):
        for step in _tables(rule.get("steps")):
            for each in _tables(step.get("approvers")):
                if isinstance(each.get("person"), str):
                    each["person"] = resolve.person(ledger, each["person"])
    return rules


def _tables(listed: Any) -> list[dict[str, Any]]:
    """Return the tables of a list; what is none, the policy itself refuses."""
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


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
        state(ledger, command, as_, words, json=json)


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
