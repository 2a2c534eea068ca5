"""The organisation's facts, readable at every position of the log.

``Organisation`` is folded once, in order; ``at(position)`` then answers from the facts strictly
below that position. That is what makes a decision the same for every enforcer and every replay.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Generic, TypeVar
from zoneinfo import ZoneInfo

from ledger.envelope import Event
from ledger.events import organisation as facts
from ledger.events.values import ForeignId, Text
from ledger.policy import Policy
from ledger.working_days import StatedYear, WorkingDays

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Absence:
    """A person is away from ``from_day`` until the day before ``until_day``."""

    from_day: date
    until_day: date

    def has(self, day: date) -> bool:
        """Say whether the person is away on ``day``."""
        return self.from_day <= day < self.until_day


@dataclass(frozen=True, slots=True)
class Delegation:
    """``delegate`` acts from ``from_day`` until the day before ``until_day``."""

    delegate: str
    from_day: date
    until_day: date

    def has(self, day: date) -> bool:
        """Say whether the delegate acts on ``day``."""
        return self.from_day <= day < self.until_day


P = TypeVar("P", Absence, Delegation)


@dataclass(frozen=True, slots=True)
class Person:
    """A person as the organisation knows them at some position."""

    person: str
    name: Text
    territory: str | None
    roles: frozenset[str]
    joined_on: date | None = None
    left_on: date | None = None
    absences: tuple[Absence, ...] = ()
    delegations: tuple[Delegation, ...] = ()
    foreign_ids: tuple[ForeignId, ...] = ()

    def has_left(self, day: date) -> bool:
        """Say whether the person is no longer there on ``day``."""
        return self.left_on is not None and self.left_on <= day


@dataclass(frozen=True, slots=True)
class Territory:
    """A territory as it is at some position."""

    territory: str
    name: str
    parent: str | None
    head: str | None
    managers: frozenset[str]
    foreign_ids: tuple[ForeignId, ...] = ()


@dataclass(frozen=True, slots=True)
class NumberedPolicy:
    """A policy with its number; 0 is the default that holds before any was adopted."""

    number: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class Import:
    """An import: requests that name it take effect when they occurred, under its policy."""

    import_id: str
    name: str
    time_zone: str
    policy: Policy
    cut_over: datetime | None
    opened_position: int
    closed: bool = False
    # When its closing was recorded (UTC).
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed fact (see ledger/four_eyes.py): ``open``, ``adopted`` or ``withdrawn``.

    ``decided_by`` is who adopted or withdrew it.
    """

    proposal: str
    proposer: str
    kind: str
    fact: dict[str, Any]
    position: int
    recorded: datetime
    state: str = "open"
    decided_by: str | None = None


@dataclass(slots=True)
class _Versions(Generic[T]):
    """What something was from which position on; positions rise."""

    positions: list[int] = field(default_factory=list)
    values: list[T] = field(default_factory=list)

    def put(self, position: int, value: T) -> None:
        self.positions.append(position)
        self.values.append(value)

    def before(self, position: int) -> T | None:
        index = bisect_left(self.positions, position)
        return self.values[index - 1] if index else None


class Organisation:
    """Folds the stream ``organisation``; keeps every version of every fact.

    One thread folds it at a time; others may read what it gives meanwhile.
    """

    def __init__(self) -> None:
        self.position = 0
        self.version = 0
        self._founded: _Versions[tuple[str, ZoneInfo]] = _Versions()
        self._people: dict[str, _Versions[Person]] = {}
        # The order of joining; and by role, in that order, who ever had it.
        self._places: dict[str, int] = {}
        self._bearers: dict[str, list[str]] = {}
        self._territories: dict[str, _Versions[Territory]] = {}
        # By the territories as they are now; most that is asked is asked of these.
        self._lineages: dict[str, tuple[Territory, ...]] = {}
        self._policies: _Versions[NumberedPolicy] = _Versions()
        self._deciders: _Versions[int] = _Versions()
        self._imports: dict[str, _Versions[Import]] = {}
        self._four_eyes: _Versions[bool] = _Versions()
        self._proposals: dict[str, _Versions[Proposal]] = {}
        self._working_days: _Versions[WorkingDays] = _Versions()
        self._default = NumberedPolicy(0, Policy())
        self._no_calendar = WorkingDays()

    def apply(self, event: Event) -> None:
        """Fold one event of the stream; events come in order."""
        self.position = event.position
        self.version = event.version
        position, data = event.position, event.data
        match data:
            case facts.OrganisationFounded():
                self._founded.put(position, (data.name, ZoneInfo(data.time_zone)))
            case facts.TerritoryDefined():
                self._put_territory(position, data)
            case facts.PolicyAdopted():
                policy = Policy.model_validate(data.rules)
                self._policies.put(position, NumberedPolicy(data.number, policy))
            case facts.DeciderAdopted():
                self._deciders.put(position, data.version)
            case facts.ImportOpened():
                self._put_import(position, data)
            case facts.ImportClosed():
                versions = self._imports[data.import_id]
                last = versions.values[-1]
                versions.put(position, replace(last, closed=True, closed_at=event.recorded))
            case facts.FourEyesRequired():
                self._four_eyes.put(position, data.required)
            case facts.CalendarStated():
                year = StatedYear(data.year, data.holidays, data.workdays, data.source)
                before = self.at(position).working_days
                self._working_days.put(position, before.with_year(year))
            case facts.FactProposed() | facts.ProposalAdopted() | facts.ProposalWithdrawn():
                self._put_proposal(event)
            case _:
                self._apply_to_person(position, data)

    def apply_all(self, events: Iterable[Event]) -> None:
        """Fold events in order."""
        for event in events:
            self.apply(event)

    def _put_territory(self, position: int, data: facts.TerritoryDefined) -> None:
        self._lineages.clear()
        managers = frozenset(data.managers) | ({data.head} if data.head else frozenset())
        self._territories.setdefault(data.territory, _Versions()).put(
            position,
            Territory(
                data.territory, data.name, data.parent, data.head, managers, data.foreign_ids
            ),
        )

    def _put_proposal(self, event: Event) -> None:
        position, data = event.position, event.data
        versions = self._proposals.setdefault(data.proposal, _Versions())
        if isinstance(data, facts.FactProposed):
            versions.put(
                position,
                Proposal(
                    data.proposal, event.actor, data.kind, data.fact, position, event.recorded
                ),
            )
            return
        state = "adopted" if isinstance(data, facts.ProposalAdopted) else "withdrawn"
        closed = replace(versions.values[-1], state=state, decided_by=event.actor)
        versions.put(position, closed)

    def _put_import(self, position: int, data: facts.ImportOpened) -> None:
        self._imports.setdefault(data.import_id, _Versions()).put(
            position,
            Import(
                data.import_id,
                data.name,
                data.time_zone,
                Policy.model_validate(data.rules),
                data.cut_over,
                position,
            ),
        )

    def _apply_to_person(self, position: int, data: facts.OrganisationFact) -> None:
        if isinstance(data, facts.PersonJoined):
            person = Person(
                data.person,
                data.name,
                data.territory,
                frozenset(data.roles),
                data.joined_on,
                foreign_ids=data.foreign_ids,
            )
            self._put_person(position, person)
            return
        versions = self._people[data.person]  # type: ignore[union-attr]  # the other facts of a person all name one
        self._put_person(position, _changed(versions.values[-1], data))

    def _put_person(self, position: int, person: Person) -> None:
        name, places = person.person, self._places
        places.setdefault(name, len(places))
        self._people.setdefault(name, _Versions()).put(position, person)
        for role in person.roles:
            bearers = self._bearers.setdefault(role, [])
            at = bisect_left(bearers, places[name], key=places.__getitem__)
            if at == len(bearers) or bearers[at] != name:
                bearers.insert(at, name)

    def at(self, position: int) -> OrganisationAt:
        """Return the organisation as the facts below ``position`` say; cheap."""
        return OrganisationAt(self, position)

    @property
    def recycles_since(self) -> int | None:
        """The position of the first policy by which anything is recycled; None before there is."""
        policies = self._policies
        return next(
            (
                position
                for position, each in zip(policies.positions, policies.values, strict=True)
                if each.policy.recycling.rules
            ),
            None,
        )

    @property
    def latest(self) -> OrganisationAt:
        """The organisation as all facts folded so far say."""
        return OrganisationAt(self, self.position + 1)


def _changed(person: Person, data: facts.OrganisationFact) -> Person:
    match data:
        case facts.PersonChanged():
            return replace(
                person,
                territory=data.territory,
                roles=frozenset(data.roles),
                name=person.name if data.name is None else data.name,
            )
        case facts.PersonLeft():
            return replace(person, left_on=data.left_on)
        case facts.PersonReturned():
            return replace(person, left_on=None, joined_on=data.returned_on)
        case facts.PersonAway():
            absence = Absence(data.from_day, data.until_day)
            return replace(person, absences=(*person.absences, absence))
        case facts.DelegateNamed():
            delegation = Delegation(data.delegate, data.from_day, data.until_day)
            return replace(person, delegations=(*person.delegations, delegation))
        case facts.AbsenceEnded():
            return replace(person, absences=_ended(person.absences, data.back_on))
        case facts.DelegationEnded():
            return replace(person, delegations=_ended(person.delegations, data.ended_on))
        case _:
            raise AssertionError(f"{type(data).__name__} is no fact of a person")


def _ended(periods: tuple[P, ...], day: date) -> tuple[P, ...]:
    """Return the periods, of which those end on ``day`` that it lies in."""
    cut = (replace(each, until_day=day) if each.has(day) else each for each in periods)
    return tuple(each for each in cut if each.from_day < each.until_day)


@dataclass(frozen=True, slots=True)
class OrganisationAt:
    """The organisation's facts below one position."""

    _organisation: Organisation
    position: int

    @property
    def time_zone(self) -> ZoneInfo:
        """The zone in which a day begins and ends; UTC before the organisation was founded."""
        founded = self._organisation._founded.before(self.position)
        return founded[1] if founded else ZoneInfo("UTC")

    @property
    def name(self) -> str | None:
        """The organisation's name, None before it was founded."""
        founded = self._organisation._founded.before(self.position)
        return founded[0] if founded else None

    @property
    def policy(self) -> NumberedPolicy:
        """The policy in force."""
        return self._organisation._policies.before(self.position) or self._organisation._default

    def policy_numbered(self, number: int) -> Policy:
        """Return the policy of a number, which was adopted below; of 0 the default."""
        policies = self._organisation._policies.values
        found = next((each for each in policies if each.number == number), None)
        return (found or self._organisation._default).policy

    @property
    def decider(self) -> int:
        """The version of the decider in force; 1 before any was adopted."""
        return self._organisation._deciders.before(self.position) or 1

    @property
    def four_eyes(self) -> bool:
        """Whether four eyes are required; not before any event has said so."""
        return self._organisation._four_eyes.before(self.position) or False

    @property
    def working_days(self) -> WorkingDays:
        """Which days are worked, by the calendars stated; without any from Monday to Friday."""
        organisation = self._organisation
        return organisation._working_days.before(self.position) or organisation._no_calendar

    def as_of(self, position: int) -> OrganisationAt:
        """Return the organisation as it was for another position."""
        return self._organisation.at(position)

    def proposal(self, proposal: str) -> Proposal | None:
        """Return a proposal, None where there is none of that id."""
        versions = self._organisation._proposals.get(proposal)
        return versions.before(self.position) if versions else None

    def proposals(self) -> Iterator[Proposal]:
        """Yield the proposals, in the order in which they were made."""
        for versions in tuple(self._organisation._proposals.values()):
            proposal = versions.before(self.position)
            if proposal is not None:
                yield proposal

    def person(self, person: str) -> Person | None:
        """Return a person, None where nobody of that id joined."""
        versions = self._organisation._people.get(person)
        return versions.before(self.position) if versions else None

    def people(self) -> Iterator[Person]:
        """Yield everybody who ever joined, in the order of joining."""
        for versions in tuple(self._organisation._people.values()):
            person = versions.before(self.position)
            if person is not None:
                yield person

    def bearers(self, role: str) -> Iterator[Person]:
        """Yield everybody who has a role, in the order of joining; those who left among them."""
        for name in self._organisation._bearers.get(role, ()):
            person = self.person(name)
            if person is not None and role in person.roles:
                yield person

    def territory(self, territory: str) -> Territory | None:
        """Return a territory, None where there is none of that id."""
        versions = self._organisation._territories.get(territory)
        return versions.before(self.position) if versions else None

    def territories(self) -> Iterator[Territory]:
        """Yield the territories, in the order of their first definition."""
        for versions in tuple(self._organisation._territories.values()):
            territory = versions.before(self.position)
            if territory is not None:
                yield territory

    def import_(self, import_id: str) -> Import | None:
        """Return an import, None where none of that id was opened."""
        versions = self._organisation._imports.get(import_id)
        return versions.before(self.position) if versions else None

    def imports(self) -> Iterator[Import]:
        """Yield the imports, in the order of their opening."""
        for versions in tuple(self._organisation._imports.values()):
            opened = versions.before(self.position)
            if opened is not None:
                yield opened

    def lineage(self, territory: str | None) -> Sequence[Territory]:
        """Return a territory and those above it, the nearest first; of an unknown one nothing."""
        if territory is None:
            return ()
        organisation = self._organisation
        if self.position <= organisation.position:
            return tuple(self._upwards(territory))
        found = organisation._lineages.get(territory)
        if found is None:
            found = tuple(self._upwards(territory))
            # Not where another thread has folded a fact meanwhile: it may be of other territories.
            if found and self.position > organisation.position:
                organisation._lineages[territory] = found
        return found

    def _upwards(self, territory: str | None) -> Iterator[Territory]:
        seen: set[str] = set()
        while territory is not None and territory not in seen:
            seen.add(territory)
            found = self.territory(territory)
            if found is None:
                return
            yield found
            territory = found.parent

    def is_within(self, territory: str | None, above: str | None) -> bool:
        """Say whether ``territory`` is ``above`` or stands below it."""
        return above is not None and any(
            each.territory == above for each in self.lineage(territory)
        )

    def common(self, first: str | None, second: str | None) -> str | None:
        """Return the nearest territory that is, or stands above, both; None where none does."""
        if first is not None and first == second:  # as that of most parties
            return first if self.territory(first) is not None else None
        above = {each.territory for each in self.lineage(first)}
        return next((t.territory for t in self.lineage(second) if t.territory in above), None)

    def manages(self, person: str, territory: str | None) -> bool:
        """Say whether ``person`` manages ``territory`` or one above it."""
        return any(person in each.managers for each in self.lineage(territory))

    def heads(self, person: str, territory: str | None) -> bool:
        """Say whether ``person`` is the head of ``territory`` or of one above it."""
        return person in [each.head for each in self.lineage(territory)]

    def is_manager(self, person: str) -> bool:
        """Say whether ``person`` manages any territory."""
        return any(person in each.managers for each in self.territories())

    def day(self, moment: datetime) -> date:
        """Return the organisation's calendar day of a moment."""
        return moment.astimezone(self.time_zone).date()

    def start_of(self, day: date) -> datetime:
        """Return the first moment of a calendar day, in UTC."""
        return datetime.combine(day, time(), self.time_zone).astimezone(UTC)

    def days_after(self, moment: datetime, days: int) -> datetime:
        """Return the moment ``days`` calendar days later, at the same local time, in UTC."""
        local = moment.astimezone(self.time_zone).replace(tzinfo=None) + timedelta(days=days)
        return local.replace(tzinfo=self.time_zone).astimezone(UTC)
