"""Whether facts of the organisation may be recorded: pure, judged by its state and each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import get_args

from ledger import commands
from ledger import organisation_commands as facts_in
from ledger.commands import InvalidRequestError, UnknownIdError
from ledger.deciders import decider
from ledger.organisation import OrganisationAt
from ledger.policy import Policy

_ROLES = frozenset(get_args(facts_in.Role))


def check_facts(
    facts: Sequence[facts_in.FactCommand],
    abouts: Sequence[str | None],
    organisation: OrganisationAt,
    now: datetime,
) -> None:
    """Raise where facts name what does not exist, or contradict each other or what holds."""
    pairs = list(zip(facts, abouts, strict=True))
    checks = _FactChecks(
        organisation,
        now,
        people={about for each, about in pairs if isinstance(each, facts_in.AddPerson) and about},
        territories={
            about for each, about in pairs if isinstance(each, facts_in.DefineTerritory) and about
        },
        founded=organisation.name is not None,
    )
    for each, about in pairs:
        checks.check(each, about)
    if any(isinstance(each, facts_in.ChangePerson | facts_in.MarkLeft) for each in facts):
        checks.check_administrators()
    if any(isinstance(each, facts_in.RequireFourEyes) and each.required for each in facts):
        checks.check_pairs()


@dataclass(slots=True)
class _FactChecks:
    """Checks facts that are to hold together, each as if those in front of it held already."""

    organisation: OrganisationAt
    now: datetime
    # What the facts make: they may name each other's in any order.
    people: set[str]
    territories: set[str]
    founded: bool
    joined: set[str] = field(default_factory=set)
    parents: dict[str, str | None] = field(default_factory=dict)
    left: dict[str, bool] = field(default_factory=dict)
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    open_imports: dict[str, bool] = field(default_factory=dict)

    def check(self, command: facts_in.FactCommand, about: str | None) -> None:
        """Raise where a fact names what does not exist, or contradicts the organisation's state."""
        match command:
            case facts_in.FoundOrganisation():
                if self.founded:
                    raise InvalidRequestError("name", "the organisation was founded before")
                self.founded = True
            case facts_in.DefineTerritory():
                self._check_territory(command, about or "")
            case facts_in.AddPerson():
                self._must_be_territory(command.territory)
                if self._has_joined(about or ""):
                    raise InvalidRequestError("person", "the person joined before")
                self.joined.add(about or "")
                self.roles[about or ""] = command.roles
            case facts_in.AdoptDecider():
                decider(command.version)
                if command.version < self.organisation.decider:
                    raise InvalidRequestError("version", "a decider never goes back")
            case facts_in.AdoptPolicy():
                self._check_policy(command.policy)
            case facts_in.OpenImport():
                if command.policy is not None:
                    self._check_policy(command.policy)
                commands.occurred_within(command.cut_over, self.now, field="cut_over")
                if self._import_is_open(about or "") is not None:
                    raise InvalidRequestError("import_id", "the import was opened before")
                self.open_imports[about or ""] = True
            case facts_in.CloseImport():
                if not self._import_is_open(command.import_id):
                    raise UnknownIdError("open import", command.import_id)
                self.open_imports[command.import_id] = False
            case facts_in.ProposeFact():
                # What could not be stated now is not proposed; it is judged again when adopted.
                of = command.fact
                about = getattr(of, "territory", None) or getattr(of, "import_id", None)
                check_facts([of], [about], self.organisation, self.now)
            case (
                facts_in.RequireFourEyes() | facts_in.AdoptProposal() | facts_in.WithdrawProposal()
            ):
                pass  # judged in ledger/four_eyes.py
            case facts_in.StateCalendar():
                pass  # a year may be stated at any time, and again
            case _:
                self._check_about_person(command)

    def _check_policy(self, policy: Policy) -> None:
        """Raise for a territory, person or role that a policy names and that there is not."""
        for rule in policy.territory_rules:
            self._must_be_territory(rule.territory)
        for recycled in policy.recycling.rules:
            for territory in recycled.territories:
                self._must_be_territory(territory)
        steps = (step for approval in policy.approval_rules for step in approval.steps)
        for approver in (each for step in steps for each in step.approvers):
            if approver.person is not None and approver.person not in self.people:
                self._must_have_joined(approver.person)
            if approver.role is not None and approver.role not in _ROLES:
                raise InvalidRequestError("approval_rules", f"there is no role {approver.role!r}")

    def _check_territory(self, command: facts_in.DefineTerritory, territory: str) -> None:
        for person in (command.head, *command.managers):
            if person is not None and person not in self.people:
                self._must_have_joined(person)
        self._must_be_territory(command.parent)
        self.parents[territory] = command.parent
        seen: set[str] = set()
        above = command.parent
        while above is not None and above not in seen:
            seen.add(above)
            above = self._parent(above)
        if territory in seen:
            raise InvalidRequestError("parent", "a territory cannot be above itself")

    def _check_about_person(
        self,
        command: facts_in.ChangePerson
        | facts_in.MarkLeft
        | facts_in.MarkReturned
        | facts_in.MarkAway
        | facts_in.NameDelegate
        | facts_in.EndAbsence
        | facts_in.EndDelegation,
    ) -> None:
        self._must_have_joined(command.person)
        match command:
            case facts_in.ChangePerson():
                self._must_be_territory(command.territory)
                self.roles[command.person] = command.roles
            case facts_in.NameDelegate():
                if command.delegate not in self.people:
                    self._must_have_joined(command.delegate)
            case facts_in.MarkLeft():
                self.left[command.person] = True
            case facts_in.MarkReturned():
                if not self._has_left(command.person):
                    raise InvalidRequestError("person", "the person has not left")
                # From then on nobody takes them for one who has left, whatever the day.
                if command.returned_on > self.organisation.day(self.now):
                    raise InvalidRequestError("returned_on", "lies ahead: say it on that day")
                self.left[command.person] = False
            case facts_in.EndAbsence():
                if not self._is_away(command.person, command.back_on):
                    raise InvalidRequestError(
                        "back_on", f"the person is not away on {command.back_on}"
                    )
            case facts_in.EndDelegation():
                found = self.organisation.person(command.person)
                delegations = found.delegations if found else ()
                if not any(each.has(command.ended_on) for each in delegations):
                    raise InvalidRequestError(
                        "ended_on", f"nobody acts for the person on {command.ended_on}"
                    )
            case facts_in.MarkAway():
                pass

    def check_administrators(self) -> None:
        """Raise where the last administrator would go: nobody could ever name another."""
        before = self._administrators()
        if before and not self._administrators_after(before):
            raise InvalidRequestError("person", "an administrator must remain")

    def check_pairs(self) -> None:
        """Raise where four eyes would be required and there is only one pair."""
        if len(self._administrators_after(self._administrators())) < 2:
            raise InvalidRequestError("required", "it takes two administrators who are there")

    def _administrators(self) -> set[str]:
        return {
            person.person for person in self.organisation.bearers("admin") if person.left_on is None
        }

    def _administrators_after(self, before: set[str]) -> set[str]:
        return {
            person
            for person in before | self.roles.keys()
            if "admin" in self.roles.get(person, ("admin",)) and not self._has_left(person)
        }

    def _parent(self, territory: str) -> str | None:
        if territory in self.parents:
            return self.parents[territory]
        found = self.organisation.territory(territory)
        return found.parent if found else None

    def _has_joined(self, person: str) -> bool:
        return person in self.joined or self.organisation.person(person) is not None

    def _has_left(self, person: str) -> bool:
        found = self.organisation.person(person)
        return self.left.get(person, found is not None and found.left_on is not None)

    def _is_away(self, person: str, day: date) -> bool:
        found = self.organisation.person(person)
        return found is not None and any(each.has(day) for each in found.absences)

    def _import_is_open(self, import_id: str) -> bool | None:
        found = self.organisation.import_(import_id)
        return self.open_imports.get(import_id, None if found is None else not found.closed)

    def _must_have_joined(self, person: str) -> None:
        if not self._has_joined(person):
            raise UnknownIdError("person", person)

    def _must_be_territory(self, territory: str | None) -> None:
        if territory is None or territory in self.territories:
            return
        if self.organisation.territory(territory) is None:
            raise UnknownIdError("territory", territory)
