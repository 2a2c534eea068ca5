"""What may be said about the organisation itself: people, territories, policies, imports."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, model_validator

from ledger.commands import AnyDay, Command, Day, Flag, Id, Moment, Name, Note, Numbers, Word
from ledger.policy import Policy
from ledger.working_days import is_weekend

Role = Literal["rep", "manager", "auditor", "admin", "integration"]


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("is no time zone of the IANA data base, such as Asia/Shanghai")
    ZoneInfo(name)
    return name


ZoneName = Annotated[str, AfterValidator(_known_zone)]


class FoundOrganisation(Command):
    """Say whose ledger this is; once."""

    name: Name
    time_zone: ZoneName


class DefineTerritory(Command):
    """Make a territory, or say how one is from now on (``territory`` names it)."""

    territory: Id | None = None
    name: Name
    parent: Id | None = None
    head: Id | None = None
    managers: Annotated[tuple[Id, ...], Field(max_length=100)] = ()
    foreign_ids: Numbers = ()


class AddPerson(Command):
    """Somebody joins. ``person`` may state an id made before, so that others can name it."""

    person: Id | None = None
    name: Name
    territory: Id | None = None
    roles: Annotated[tuple[Role, ...], Field(max_length=5)] = ("rep",)
    joined_on: Day | None = None
    foreign_ids: Numbers = ()
    phone: Word | None = None
    email: Word | None = None


class ChangePerson(Command):
    """A person's territory and roles from now on; a name not given stays."""

    person: Id
    territory: Id | None
    roles: Annotated[tuple[Role, ...], Field(max_length=5)]
    name: Name | None = None


class MarkLeft(Command):
    """``left_on`` is the first day on which the person is no longer there."""

    person: Id
    left_on: Day


class MarkReturned(Command):
    """Somebody who left is there again."""

    person: Id
    returned_on: Day


class _Period(Command):
    person: Id
    from_day: Day
    until_day: Day

    @model_validator(mode="after")
    def _has_days(self) -> _Period:
        if self.until_day <= self.from_day:
            raise ValueError("until_day must lie behind from_day")
        return self


class MarkAway(_Period):
    """The person is away from ``from_day`` until the day before ``until_day``."""


class NameDelegate(_Period):
    """``delegate`` acts for the person in that time."""

    delegate: Id


class EndAbsence(Command):
    """The person is back from ``back_on`` on, before the day that was said."""

    person: Id
    back_on: AnyDay


class EndDelegation(Command):
    """Nobody acts for the person any more from ``ended_on`` on."""

    person: Id
    ended_on: AnyDay


class AdoptPolicy(Command):
    """Put a policy in force."""

    policy: Policy
    comment: Note | None = None


class AdoptDecider(Command):
    """Put a version of the decider in force."""

    version: Annotated[int, Field(ge=1, strict=True)]


class OpenImport(Command):
    """Open an import; ``policy`` None means today's territories and no limits."""

    import_id: Id | None = None
    name: Word
    time_zone: ZoneName
    policy: Policy | None = None
    cut_over: Moment | None = None


class CloseImport(Command):
    """Close an import: nothing more may be filed under it."""

    import_id: Id


class RequireFourEyes(Command):
    """Require, or no longer, that one proposes and another adopts (see ledger/four_eyes.py)."""

    required: Flag


YEAR_MIN, YEAR_MAX = 1900, 2200
"""No customer was followed up before, nor will be behind that."""


class StateCalendar(Command):
    """Say which days of a year are worked, from now on; ``source`` names a library, if any."""

    year: Annotated[int, Field(ge=YEAR_MIN, le=YEAR_MAX, strict=True)]
    holidays: Annotated[tuple[AnyDay, ...], Field(max_length=262)] = ()
    workdays: Annotated[tuple[AnyDay, ...], Field(max_length=106)] = ()
    source: Word | None = None

    @model_validator(mode="after")
    def _are_exceptions(self) -> StateCalendar:
        named = (*self.holidays, *self.workdays)
        if len(set(named)) != len(named):
            raise ValueError("a day is named twice")
        if any(each.year != self.year for each in named):
            raise ValueError("a day lies in another year")
        if any(is_weekend(each) for each in self.holidays):
            raise ValueError("a holiday is a Saturday or Sunday, on which nobody works anyway")
        if not all(is_weekend(each) for each in self.workdays):
            raise ValueError("a working day is none of a weekend, and people work on it anyway")
        return self


ProposedCommand = (
    AdoptPolicy | DefineTerritory | ChangePerson | OpenImport | RequireFourEyes | StateCalendar
)


class ProposeFact(Command):
    """Propose a fact, for somebody else to adopt. A person's new name is no part of one."""

    fact: ProposedCommand

    @model_validator(mode="after")
    def _seals_nothing(self) -> ProposeFact:
        if isinstance(self.fact, ChangePerson) and self.fact.name is not None:
            raise ValueError("a name is changed by itself, for it is sealed at once")
        return self


class AdoptProposal(Command):
    """Put in force what somebody else has proposed."""

    proposal: Id


class WithdrawProposal(Command):
    """Take a proposal back that was not adopted."""

    proposal: Id


FactCommand = (
    FoundOrganisation
    | DefineTerritory
    | AddPerson
    | ChangePerson
    | MarkLeft
    | MarkReturned
    | MarkAway
    | NameDelegate
    | EndAbsence
    | EndDelegation
    | AdoptPolicy
    | AdoptDecider
    | OpenImport
    | CloseImport
    | RequireFourEyes
    | ProposeFact
    | AdoptProposal
    | WithdrawProposal
    | StateCalendar
)
