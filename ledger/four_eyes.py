"""Four eyes: what decides over others is proposed by one person and put in force by another. Pure.

That are policies, heads, managers and places of territories, roles, imports, calendars, by which
days are counted until a customer goes back to the pool, and four eyes themselves being required no
longer. They are required from an event on; before any they are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any

from ledger import organisation_commands as facts_in
from ledger.commands import UnknownIdError, parse
from ledger.errors import LedgerError
from ledger.events import organisation as recorded_facts
from ledger.organisation import OrganisationAt, Proposal

_KINDS: dict[str, type[Any]] = {
    "policy": facts_in.AdoptPolicy,
    "territory": facts_in.DefineTerritory,
    "person": facts_in.ChangePerson,
    "import": facts_in.OpenImport,
    "four_eyes": facts_in.RequireFourEyes,
    "calendar": facts_in.StateCalendar,
}
_ORDINARY_ROLES = frozenset({"rep"})


class FourEyesError(LedgerError):
    """A fact needs a second person: it was stated by one alone, or adopted by its proposer."""

    code = "four_eyes"


class ProposalOutdatedError(LedgerError):
    """What a proposal would change has been changed since, and would be set back."""

    code = "proposal_outdated"


class ProposedError(LedgerError):
    """What was asked for goes on once somebody else has adopted the proposal just made."""

    code = "proposed"

    def __init__(self, proposal: str, what: str) -> None:
        super().__init__(
            f"{what} is proposed as {proposal}.",
            way_out=f"Somebody else adopts it with guishu adopt {proposal}; then do this again.",
        )
        self.proposal = proposal


def as_json(fact: facts_in.ProposedCommand) -> tuple[str, dict[str, Any]]:
    """Return the kind of a proposed fact, and the JSON from which ``command_of`` makes it."""
    kind = next(kind for kind, command in _KINDS.items() if isinstance(fact, command))
    return kind, fact.model_dump(mode="json")


def command_of(proposal: Proposal) -> Any:
    """Return the command that states what was proposed; raises InvalidRequestError."""
    return parse(_KINDS[proposal.kind], proposal.fact)


def is_guarded(command: facts_in.FactCommand, organisation: OrganisationAt) -> bool:
    """Say whether a fact is one that four eyes are for."""
    match command:
        case facts_in.AdoptPolicy() | facts_in.OpenImport() | facts_in.StateCalendar():
            return True
        case facts_in.RequireFourEyes():
            return not command.required
        case facts_in.AddPerson():
            return not _ORDINARY_ROLES.issuperset(command.roles)
        case facts_in.ChangePerson():
            person = organisation.person(command.person)
            return person is not None and person.roles != frozenset(command.roles)
        case facts_in.DefineTerritory():
            return _changes_who_judges(command, organisation)
        case _:
            return False


def is_guarded_fact(data: recorded_facts.OrganisationFact, organisation: OrganisationAt) -> bool:
    """Say the same of a fact that was recorded; ``organisation`` is as it was in front of it."""
    match data:
        case recorded_facts.PolicyAdopted() | recorded_facts.ImportOpened():
            return True
        case recorded_facts.FourEyesRequired():
            return not data.required
        case recorded_facts.PersonJoined():
            return not _ORDINARY_ROLES.issuperset(data.roles)
        case recorded_facts.PersonChanged():
            person = organisation.person(data.person)
            return person is not None and person.roles != frozenset(data.roles)
        case recorded_facts.TerritoryDefined():
            return _changes_who_judges(data, organisation)
        case _:
            return False


def _changes_who_judges(
    stated: facts_in.DefineTerritory | recorded_facts.TerritoryDefined, organisation: OrganisationAt
) -> bool:
    found = organisation.territory(stated.territory) if stated.territory else None
    managers = {*stated.managers, *([stated.head] if stated.head else [])}
    if found is None:
        return bool(managers)
    # Whoever is the head above judges below.
    now = (found.head, found.parent, found.managers)
    return (stated.head, stated.parent, frozenset(managers)) != now


def expanded(
    facts: Iterable[facts_in.FactCommand], organisation: OrganisationAt
) -> Iterator[tuple[facts_in.FactCommand, int]]:
    """Yield the commands, each with its number, and behind an adoption what it puts in force."""
    for number, command in enumerate(facts):
        yield command, number
        if isinstance(command, facts_in.AdoptProposal):
            proposal = organisation.proposal(command.proposal)
            if proposal is not None:
                yield command_of(proposal), number


def check(
    facts: Sequence[facts_in.FactCommand], organisation: OrganisationAt, actor: str, day: date
) -> None:
    """Judge commands as ``expanded`` yields them, stated by ``actor`` on a day.

    Raises FourEyesError for what one person states alone where four eyes are required, and for who
    adopts what is theirs; UnknownIdError for what is no open proposal; ProposalOutdatedError.
    """
    adopted = False
    for command in facts:
        if isinstance(command, facts_in.AdoptProposal | facts_in.WithdrawProposal):
            proposal = organisation.proposal(command.proposal)
            if proposal is None or proposal.state != "open":
                raise UnknownIdError("open proposal", command.proposal)
            if isinstance(command, facts_in.AdoptProposal):
                _check_adoption(proposal, organisation, actor, day)
                adopted = True
                continue
        elif organisation.four_eyes and not adopted and is_guarded(command, organisation):
            raise FourEyesError(
                "One person alone does not put this in force.",
                way_out="Propose it, for somebody else to adopt (guishu proposals). Whoever joins"
                " begins as a rep; other roles are proposed then.",
            )
        adopted = False


def only_adopts(facts: Sequence[facts_in.FactCommand]) -> bool:
    """Say whether all that is stated is the adoption of proposals."""
    return all(isinstance(command, facts_in.AdoptProposal) for command in facts)


def _check_adoption(
    proposal: Proposal, organisation: OrganisationAt, actor: str, day: date
) -> None:
    if actor == proposal.proposer:
        raise FourEyesError(
            "Nobody adopts a proposal of their own.", way_out="Let another administrator adopt it."
        )
    if not _may_adopt(proposal, organisation, actor, day):
        raise FourEyesError(
            "Only another administrator adopts a proposal; where there is none, a manager.",
            way_out="Act as a person with the role admin who has not left.",
        )
    if is_overtaken(proposal, organisation):
        raise ProposalOutdatedError(
            "What the proposal would change has been changed since it was made.",
            way_out="Withdraw it, and propose again what is to hold now.",
        )


def is_overtaken(proposal: Proposal, organisation: OrganisationAt) -> bool:
    """Say whether what a proposal would change is no longer what it was made against.

    The log remembers that: it is what held at the proposal's own position.
    """
    then = organisation.as_of(proposal.position)
    return _subject(proposal, organisation) != _subject(proposal, then)


def _may_adopt(proposal: Proposal, organisation: OrganisationAt, actor: str, day: date) -> bool:
    """Say whether somebody else than the proposer may adopt.

    An administrator; and a manager where the proposer is the only administrator left, who could
    otherwise never make another.
    """
    there = {each.person: each.roles for each in organisation.people() if not each.has_left(day)}
    roles = there.get(actor, frozenset())
    if "admin" in roles:
        return True
    others = (person for person, its in there.items() if "admin" in its)
    return "manager" in roles and all(person == proposal.proposer for person in others)


def _subject(proposal: Proposal, organisation: OrganisationAt) -> object:
    """Return what a proposal sets as a whole, as it is at a position."""
    match proposal.kind:
        case "person":
            person = organisation.person(proposal.fact["person"])
            return person and (person.territory, person.roles)
        case "territory" if proposal.fact["territory"] is not None:
            return organisation.territory(proposal.fact["territory"])
        case "policy":
            # A policy is replaced as a whole, and with it what was agreed on in between.
            return organisation.policy.number
        case "calendar":
            return organisation.working_days.years.get(proposal.fact["year"])
        case _:
            return None
