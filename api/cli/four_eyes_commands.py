"""Four eyes: what one person proposes, another puts in force."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import (
    ID,
    As,
    Json,
    as_json,
    console,
    notes,
    opened,
    origin,
    print_json,
    print_table,
)
from api.cli.following import follow
from ledger import four_eyes as rules
from ledger import organisation_commands as facts
from ledger.commands import InvalidRequestError, parse
from ledger.organisation import Proposal

ProposalId = Annotated[str, typer.Argument(help="Its id, as guishu proposals lists it.")]


def is_to_be_proposed(ledger: Ledger, fact: facts.FactCommand) -> bool:
    """Say whether somebody else has to adopt a fact."""
    organisation = ledger.recording.organisation()
    return organisation.four_eyes and rules.is_guarded(fact, organisation)


def propose(ledger: Ledger, *facts_: Any, actor: str, json: bool) -> None:
    """Propose facts, each for itself, instead of stating them, and say who puts them in force.

    Raises FourEyesError for what cannot be proposed: somebody new with other roles than rep.
    """
    if not all(isinstance(fact, facts.ProposedCommand) for fact in facts_):
        raise rules.FourEyesError(
            "Whoever joins begins as a rep, where four eyes are required.",
            way_out="Add the person without --role, and propose the roles with guishu people"
            " change.",
        )
    proposing = [parse(facts.ProposeFact, {"fact": fact}) for fact in facts_]
    recorded = ledger.recording.record_facts(proposing, origin(actor))
    follow(ledger, recorded[-1].position)
    if json:
        told = [
            {"proposed": True, "proposal": each.about, "position": each.position}
            for each in recorded
        ]
        print_json(told[0] if len(told) == 1 else told)
        return
    for each in recorded:
        console().print(
            f"proposed as {each.about}: somebody else adopts it with guishu adopt {each.about}",
            markup=False,
            soft_wrap=True,
        )


def adopt(proposal: ProposalId, as_: As = None, json: Json = False) -> None:
    """Put in force what somebody else has proposed."""
    with opened() as ledger:
        found = ledger.recording.organisation().proposal(proposal)
        command = parse(facts.AdoptProposal, {"proposal": proposal})
        recorded = ledger.recording.record_facts([command], origin(resolve.actor(ledger, as_)))
        follow(ledger, recorded[-1].position)
        if json:
            print_json(recorded)
            return
        names = resolve.Names(ledger)
        out = console()
        if found is not None:
            out.print(f"in force: {_words(found, names)}", markup=False, soft_wrap=True)
        about = f"; {recorded[-1].about}" if recorded[-1].about else ""
        out.print(f"recorded at {recorded[-1].position}{about}", markup=False, soft_wrap=True)


def proposals_app() -> typer.Typer:
    """Return the commands about proposals."""
    app = typer.Typer(no_args_is_help=False, rich_markup_mode=None)
    app.callback(invoke_without_command=True)(proposals)
    app.command("withdraw")(withdraw)
    return app


def proposals(
    context: typer.Context,
    every: Annotated[
        bool, typer.Option("--all", help="Those that are no longer open too.")
    ] = False,
    json: Json = False,
) -> None:
    """List what was proposed and waits for somebody else; or `withdraw` one."""
    if context.invoked_subcommand is not None:
        return
    with opened() as ledger:
        names = resolve.Names(ledger)
        listed = [each for each in names.organisation.proposals() if every or each.state == "open"]
        overtaken = {each.proposal for each in listed if _is_overtaken(each, names)}
        if json:
            print_json(
                [{**as_json(each), "overtaken": each.proposal in overtaken} for each in listed]
            )
            return
        stated = every or bool(overtaken)
        print_table(
            "proposals",
            (ID, "what", "by", "when", *["state"] * stated),
            [
                (
                    each.proposal,
                    _words(each, names),
                    names.person(each.proposer),
                    names.moment(each.recorded),
                    *[_state(each, names)] * stated,
                )
                for each in listed
            ],
        )
        if overtaken:
            notes().print(
                "What is overtaken cannot be adopted: what it would change has been changed since."
                " Withdraw it, and propose again.",
                markup=False,
                soft_wrap=True,
            )


def _is_overtaken(proposal: Proposal, names: resolve.Names) -> bool:
    return proposal.state == "open" and rules.is_overtaken(proposal, names.organisation)


def _state(proposal: Proposal, names: resolve.Names) -> str:
    if _is_overtaken(proposal, names):
        return "overtaken"
    by = f" by {names.person(proposal.decided_by)}" if proposal.decided_by else ""
    return f"{proposal.state}{by}"


def _words(proposal: Proposal, names: resolve.Names) -> str:
    """Return what was proposed, in a few words."""
    fact = proposal.fact
    match proposal.kind:
        case "policy":
            comment = fact.get("comment")
            return f"a policy ({comment})" if comment else "a policy"
        case "territory":
            return f"{fact['name']}: head {names.person(fact['head']) or 'nobody'}"
        case "person":
            return f"{names.person(fact['person'])}: {' '.join(fact['roles'])}"
        case "import":
            return f"the import {fact['name']}"
        case "calendar":
            free, worked = len(fact["holidays"]), len(fact["workdays"])
            return f"{fact['year']}: {free} holidays, {worked} weekend days worked"
        case _:
            return f"four eyes {'required' if fact['required'] else 'not required'}"


def withdraw(proposal: ProposalId, as_: As = None, json: Json = False) -> None:
    """Withdraw a proposal that nobody has adopted, your own or another's."""
    with opened() as ledger:
        command = parse(facts.WithdrawProposal, {"proposal": proposal})
        recorded = ledger.recording.record_fact(command, origin(resolve.actor(ledger, as_)))
        follow(ledger, recorded.position)
        if json:
            print_json(recorded)
            return
        console().print(f"{proposal} is withdrawn", markup=False)


def four_eyes(
    required: Annotated[str | None, typer.Argument(help="on or off; nothing: say which.")] = None,
    as_: As = None,
    json: Json = False,
) -> None:
    """Say whether what decides over others takes two people, or require it; off takes two."""
    with opened() as ledger:
        organisation = ledger.recording.organisation()
        if required is None:
            if json:
                print_json({"required": organisation.four_eyes})
                return
            console().print(f"four eyes are {_required(organisation.four_eyes)}")
            return
        if required not in {"on", "off"}:
            raise InvalidRequestError("required", f"{required!r} is neither on nor off")
        if organisation.four_eyes == (required == "on"):
            raise InvalidRequestError("required", f"they are {_required(required == 'on')} already")
        fact = facts.RequireFourEyes(required=required == "on")
        actor = resolve.actor(ledger, as_)
        if is_to_be_proposed(ledger, fact):
            propose(ledger, fact, actor=actor, json=json)
            return
        recorded = ledger.recording.record_fact(fact, origin(actor))
        follow(ledger, recorded.position)
        if json:
            print_json(recorded)
            return
        console().print(f"four eyes are {_required(fact.required)} from now on")


def _required(required: bool) -> str:
    return "required" if required else "not required"
