"""Facts of the organisation: people, territories, policies, imports, the decider in force.

They stand in the stream ``organisation``, are validated against its state when recorded, at an
expected version, and are final at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ledger.events.values import Day, ForeignId, Instant, Sealed


@dataclass(frozen=True, slots=True)
class OrganisationFounded:
    """The ledger belongs to this organisation; days are days of ``time_zone`` (IANA name)."""

    name: str
    time_zone: str


@dataclass(frozen=True, slots=True)
class TerritoryDefined:
    """A territory as it is from now on: new, or changed. ``managers`` include the ``head``."""

    territory: str
    name: str
    parent: str | None = None
    head: str | None = None
    managers: tuple[str, ...] = ()
    foreign_ids: tuple[ForeignId, ...] = ()


@dataclass(frozen=True, slots=True)
class PersonJoined:
    """Somebody joined. ``roles`` are of rep, manager, auditor, admin, integration."""

    person: str
    name: Sealed
    territory: str | None = None
    roles: tuple[str, ...] = ("rep",)
    joined_on: Day | None = None
    foreign_ids: tuple[ForeignId, ...] = ()
    phone: Sealed | None = None
    email: Sealed | None = None


@dataclass(frozen=True, slots=True)
class PersonChanged:
    """Territory and roles as they are from now on; a name of None stays."""

    person: str
    territory: str | None = None
    roles: tuple[str, ...] = ()
    name: Sealed | None = None


@dataclass(frozen=True, slots=True)
class PersonLeft:
    """``left_on`` is the first day on which the person is no longer there."""

    person: str
    left_on: Day


@dataclass(frozen=True, slots=True)
class PersonReturned:
    """Somebody who had left is there again from ``returned_on`` on."""

    person: str
    returned_on: Day


@dataclass(frozen=True, slots=True)
class PersonAway:
    """The person is away from ``from_day`` until the day before ``until_day``."""

    person: str
    from_day: Day
    until_day: Day


@dataclass(frozen=True, slots=True)
class DelegateNamed:
    """``delegate`` acts for ``person`` from ``from_day`` until the day before ``until_day``."""

    person: str
    delegate: str
    from_day: Day
    until_day: Day


@dataclass(frozen=True, slots=True)
class AbsenceEnded:
    """The person is back from ``back_on`` on: the absence in which that day lies ends with it.

    One that was to begin on that day does not begin; others, before and behind, stay.
    """

    person: str
    back_on: Day


@dataclass(frozen=True, slots=True)
class DelegationEnded:
    """Nobody acts for the person from ``ended_on`` on by a delegation in which that day lies."""

    person: str
    ended_on: Day


@dataclass(frozen=True, slots=True)
class PolicyAdopted:
    """A policy comes into force; ``number`` rises by one. ``rules`` is ledger/policy.py's JSON."""

    number: int
    rules: dict[str, Any]
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class DeciderAdopted:
    """The requests recorded after this are decided by this version of the decider."""

    version: int


@dataclass(frozen=True, slots=True)
class ImportOpened:
    """Requests that name this import take effect when they occurred, under its own policy."""

    import_id: str
    name: str
    time_zone: str
    rules: dict[str, Any] = field(default_factory=dict)
    cut_over: Instant | None = None


@dataclass(frozen=True, slots=True)
class ImportClosed:
    """Nothing more is filed under this import."""

    import_id: str


@dataclass(frozen=True, slots=True)
class FourEyesRequired:
    """Whether policies, heads, roles, imports and calendars are proposed by one and adopted by
    another.
    """

    required: bool


@dataclass(frozen=True, slots=True)
class FactProposed:
    """Somebody proposes a fact, which does not hold yet.

    ``kind`` is ``policy``, ``territory``, ``person``, ``import``, ``calendar`` or ``four_eyes``;
    ``fact`` is the JSON of the command (ledger/organisation_commands.py) that states it once it is
    adopted.
    """

    proposal: str
    kind: str
    fact: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProposalAdopted:
    """Somebody else than the ``proposer`` puts a proposal in force: its fact comes right behind."""

    proposal: str
    proposer: str


@dataclass(frozen=True, slots=True)
class ProposalWithdrawn:
    """A proposal that was not adopted is none any more."""

    proposal: str


@dataclass(frozen=True, slots=True)
class CalendarStated:
    """Which days of a year are worked, from now on; it replaces what was stated of it before.

    ``holidays`` are days from Monday to Friday that are not worked (节假日), ``workdays`` Saturdays
    and Sundays that are (调休). ``source`` names the library that they were taken from; where
    there is none, people stated them.
    """

    year: int
    holidays: tuple[Day, ...] = ()
    workdays: tuple[Day, ...] = ()
    source: str | None = None


OrganisationFact = (
    OrganisationFounded
    | TerritoryDefined
    | PersonJoined
    | PersonChanged
    | PersonLeft
    | PersonReturned
    | PersonAway
    | DelegateNamed
    | AbsenceEnded
    | DelegationEnded
    | PolicyAdopted
    | DeciderAdopted
    | ImportOpened
    | ImportClosed
    | FourEyesRequired
    | FactProposed
    | ProposalAdopted
    | ProposalWithdrawn
    | CalendarStated
)
