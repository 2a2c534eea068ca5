"""Commands about policies and the version of the decider that is in force."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import As, Json, notes, opened, print_json, print_table
from api.cli.policy_words import policy_lines
from api.cli.stating import group, state
from api.imports.rejects import shown_text
from ledger import deciders, four_eyes
from ledger import organisation_commands as facts
from ledger.commands import InvalidRequestError, parse
from ledger.errors import LedgerError
from ledger.organisation import OrganisationAt
from ledger.policy import Policy
from projections import people as people_views


def policy_app() -> typer.Typer:
    """Return the commands about policies."""
    app = group()
    app.callback(invoke_without_command=True)(policy)
    app.command("show")(show)
    app.command("compare")(compare)
    app.command("adopt")(adopt_policy)
    app.command("decider")(adopt_decider)
    return app


def policy(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--history", help="All that ever were.")] = False,
    json: Json = False,
) -> None:
    """Print the policy in force in words; or `show` or `compare` others, `adopt` one, or a version
    of the `decider`.
    """
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
        version = names.organisation.decider
        if json:
            rules = in_force.policy.as_rules()
            print_json({"number": in_force.number, "decider": version, "rules": rules})
            return
        _tell(_title(in_force.number), in_force.policy, names)
        notes().print(f"Decided by version {version} of the decider.", markup=False)


Which = Annotated[str, typer.Argument(help="Its number, 0 for the defaults; or a proposal's id.")]


def show(which: Which, json: Json = False) -> None:
    """Print a policy that was in force, or one that is proposed."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        found = _policy(which, names.organisation)
        if json:
            print_json({"policy": which, "rules": found.as_rules()})
            return
        _tell(_title(which), found, names)


def compare(
    first: Which,
    second: Annotated[
        str | None, typer.Argument(help="Likewise; without it the one in force.")
    ] = None,
    json: Json = False,
) -> None:
    """Print in what two policies differ, such as a proposed one from that in force."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        other = str(names.organisation.policy.number) if second is None else second
        before, after = (_policy(each, names.organisation) for each in (first, other))
        had, has = policy_lines(before, names), policy_lines(after, names)
        gone = [("was", *each) for each in had if each not in has]
        new = [("is", *each) for each in has if each not in had]
        if json:
            print_json(
                {
                    "first": {"policy": first, "rules": before.as_rules()},
                    "second": {"policy": other, "rules": after.as_rules()},
                }
            )
            return
        title = f"from {_title(first)} to {_title(other)}"
        # Beside what a rule said stands what it says now.
        rows = sorted(gone + new, key=lambda row: [each for each, _ in had + has].index(row[1]))
        print_table(title, ("", "rule", "what holds"), rows)


def _policy(which: str, organisation: OrganisationAt) -> Policy:
    """Return the policy of a number that was in force, or of a proposal; raises NotFoundError."""
    proposal = organisation.proposal(which)
    if proposal is not None and proposal.kind == "policy":
        proposed: Policy = four_eyes.command_of(proposal).policy
        return proposed
    last = organisation.policy.number
    if which.isascii() and which.isdecimal() and int(which) <= last:
        return organisation.policy_numbered(int(which))
    raise resolve.NotFoundError(
        f"There is no policy {shown_text(which)}.",
        way_out=f"Name a number up to {last} (guishu policy --history), or a policy's proposal"
        " (guishu proposals).",
    )


def _title(which: object) -> str:
    return "policy: the defaults" if str(which) == "0" else f"policy {which}"


def _tell(title: str, policy: Policy, names: resolve.Names) -> None:
    lines: list[tuple[str, str]] = []
    for about, words in policy_lines(policy, names):
        # What a line is about is said once.
        lines.append(("" if about == _about(lines) else about, words))
    print_table(title, ("rule", "what holds"), lines)


def _about(lines: Sequence[tuple[str, str]]) -> str:
    return next((about for about, _ in reversed(lines) if about), "")


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
