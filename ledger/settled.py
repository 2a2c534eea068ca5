"""Settled state: what has been decided so far, as the deciders read it and decisions change it.

The enforcer loads a part of it, under locks; ``verify`` and the specifications hold all of it.
Every key that a decider looks up and that was not loaded raises NotLoadedError: the enforcer then
locks it too and decides again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from heapq import nsmallest

from ledger import collaborating, conflicts, reasons, standing_in
from ledger.approving import Step, after
from ledger.customer import (
    Admitted,
    Customer,
    Held,
    Refused,
    Unregistered,
    admitted,
    approval_closed,
    changed,
    given_up,
    taken,
)
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.groups import Group, Owners, less
from ledger.handing_over import OF_PERSON, PART_CUSTOMERS, UnderWay, people_at
from ledger.organisation import OrganisationAt
from ledger.recycling import noted, paused_by, told_or_held


@dataclass(frozen=True, slots=True)
class Holdings:
    """How many customers a person holds, and how many of these have a won deal.

    ``closed`` is the position of the request by which the customers of somebody who has left were
    handed over: what was recorded in front of it gives them none any more.
    """

    held: int = 0
    held_won: int = 0
    closed: int | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """A follow-up or deal, as far as corrections and counts need it."""

    customer: str
    kind: str
    person: str
    actor: str
    at: datetime
    outcome: str | None = None
    stands: bool = True


Key = tuple[str, ...]
"""What a guard row is about: ``("customer", id)``, ``("holdings", person)``,
``("grants", person, day)``, ``("identifier", system, key)``, ``("act", id)``,
``("group", customer)``, ``("person", id)`` (a hand-over under way). No row, but looked up under
that of the person's holdings: ``("involved", person, customer)``, the customers behind one."""


class NotLoadedError(Exception):
    """A decider looked up a guard that was not loaded and locked."""

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.key = key


@dataclass(slots=True)
class Settled:
    """The settled state; ``complete`` says that what is not in it does not exist."""

    complete: bool = False
    customers: dict[str, Customer] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    holdings: dict[str, Holdings] = field(default_factory=dict)
    grants: dict[tuple[str, str], int] = field(default_factory=dict)
    identifiers: dict[tuple[str, str], str | None] = field(default_factory=dict)
    acts: dict[str, Act | None] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    hand_overs: dict[str, UnderWay | None] = field(default_factory=dict)
    # Where people hold something: of everybody where the state is complete, else what was loaded,
    # by the person and the customer that it is behind.
    involved: dict[str, set[str]] = field(default_factory=dict)
    pages: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    # Who held something at the customers at which that has changed, for writing back.
    involved_before: dict[str, frozenset[str]] = field(default_factory=dict)
    # What decisions changed since it was loaded, for writing back.
    touched: set[Key] = field(default_factory=set)

    def customer(self, customer: str) -> Customer:
        """Return a customer's state; raises NotLoadedError."""
        found = self.customers.get(customer)
        if found is None:
            self._need("customer", customer)
            return Unregistered()
        return found

    def existing(self, customer: str) -> str:
        """Return the customer that is meant: of one that was entered twice the one that exists.

        Raises NotLoadedError.
        """
        found = self.customer(customer)
        return (found.existing or customer) if isinstance(found, Refused) else customer

    def version(self, customer: str) -> int:
        """Return the version of the customer's ownership stream, 0 while it is empty."""
        return self.versions.get(customer, 0)

    def holdings_of(self, person: str) -> Holdings:
        """Return what a person holds; raises NotLoadedError."""
        found = self.holdings.get(person)
        if found is None:
            self._need("holdings", person)
            return Holdings()
        return found

    def grants_of(self, person: str, day: str) -> int:
        """Return the grants to a person on a local day (ISO); raises NotLoadedError."""
        found = self.grants.get((person, day))
        if found is None:
            self._need("grants", person, day)
            return 0
        return found

    def holder_of(self, system: str, key: str) -> str | None:
        """Return the customer that has an identifier; raises NotLoadedError."""
        if (system, key) not in self.identifiers:
            self._need("identifier", system, key)
        return self.identifiers.get((system, key))

    def act(self, act: str) -> Act | None:
        """Return a follow-up or deal; raises NotLoadedError."""
        if act not in self.acts:
            self._need("act", act)
        return self.acts.get(act)

    def group(self, customer: str) -> Group:
        """Return the group at and below a customer that has others below; raises NotLoadedError."""
        found = self.groups.get(customer)
        if found is None:
            self._need("group", customer)
            return Group()
        return found

    def above(self, customer: str) -> Iterator[str]:
        """Yield the customers above one in its group, the root last; raises NotLoadedError."""
        found = self.customer(customer)
        while isinstance(found, Admitted) and found.parent is not None:
            yield found.parent
            found = self.customer(found.parent)

    def owners_from(self, customer: str) -> Owners:
        """Return whose a customer and all below it are; raises NotLoadedError."""
        found = self.customer(customer)
        if not isinstance(found, Admitted):
            return {}
        if found.children:
            return self.group(customer).owners
        return {} if found.owner is None else {found.owner: 1}

    def hand_over_of(self, person: str) -> UnderWay | None:
        """Return the hand-over of what a person holds that is under way; raises NotLoadedError."""
        if person not in self.hand_overs:
            self._need("person", person)
        return self.hand_overs.get(person)

    def customers_behind(self, person: str, last: str) -> tuple[str, ...]:
        """Return where a person holds something, in the order of the ids, behind a customer.

        One more than a part of a hand-over; raises NotLoadedError.
        """
        if not self.complete:
            if (person, last) not in self.pages:
                self._need("involved", person, last)
            return self.pages[person, last]
        found = (each for each in self.involved.get(person, ()) if each > last)
        return tuple(nsmallest(PART_CUSTOMERS + 1, found))

    def _need(self, *key: str) -> None:
        if not self.complete:
            raise NotLoadedError(key)

    def apply(
        self,
        cause: Event,
        data: decisions.Decision,
        effective: datetime,
        organisation: OrganisationAt,
    ) -> None:
        """Fold one decision, made for ``cause``, whose facts are those of ``organisation``."""
        if isinstance(data, OF_PERSON):
            self._hand_over(cause, data)
            return
        customer = data.customer
        self.versions[customer] = self.version(customer) + 1
        self.touched.add(("customer", customer))
        match data:
            case decisions.CustomerAdmitted():
                self.customers[customer] = admitted(cause.data, data, effective)
                for identifier in data.identifiers:
                    self._take_identifier(identifier.system, identifier.key, customer)
                if data.parent is not None:
                    self._join(data.parent, {})
            case decisions.RegistrationRefused():
                self._refuse_registration(data, effective)
            case decisions.CustomerChanged():
                self._change(cause.data, data, effective)
            case decisions.OwnershipGranted():
                if not data.opening:
                    self._count_grant(data.owner, organisation.day(effective).isoformat())
                self._begin(cause, customer, data.owner, effective, data.protected_until)
            case decisions.OwnershipAssigned():
                self._begin(cause, customer, data.owner, effective, data.protected_until)
            case decisions.OwnershipReleased() | decisions.CustomerRecycled():
                self._end(customer, effective, cause.recorded)
            case decisions.OwnershipTransferred():
                self._end(customer, effective, cause.recorded)
                self._begin(cause, customer, data.owner, effective, data.protected_until)
            case decisions.Noted():
                self._note(data, cause, effective, organisation)
            case decisions.RecycleWarned() | decisions.RecycleHeld():
                self._count_towards_recycling(data, effective)
            case (
                decisions.ApprovalOpened()
                | decisions.StepAnswered()
                | decisions.StepOpened()
                | decisions.StepReminded()
                | decisions.StepPassedOn()
                | decisions.ApprovalClosed()
            ):
                self._approve(cause, data, effective, organisation)
            case decisions.StandInNamed() | decisions.StandInEnded():
                self._stand_in(cause, data, effective)
            case decisions.CollaboratorAdded() | decisions.CollaborationsEnded():
                self._collaborate(cause, data, effective)
            case (
                decisions.ConflictOpened()
                | decisions.ConflictEvidenceAdded()
                | decisions.RulingReminded()
                | decisions.RulingPassedOn()
                | decisions.ConflictClosed()
            ):
                self._dispute(cause, data, effective, organisation)
            case decisions.HandOverLineRefused(reason=reasons.REQUEST_PARKED):
                pass  # an imported row that waits must not come to be older than this
            case _:
                self._pass(customer, effective)
        self._set_free(cause, customer)

    def _set_free(self, cause: Event, customer: str) -> None:
        """Let a customer no longer wait for a parked request that is being decided."""
        found = self.customers.get(customer)
        if isinstance(found, Admitted) and found.parked == cause.position:
            self.customers[customer] = found._replace(parked=None)

    def _admitted(self, customer: str) -> Admitted:
        found = self.customer(customer)
        if not isinstance(found, Admitted):
            raise AssertionError(f"{customer} was decided on before it was admitted")
        return found

    def _pass(self, customer: str, effective: datetime) -> None:
        found = self.customer(customer)
        self.customers[customer] = (
            found._replace(effective=effective)
            if isinstance(found, Admitted)
            else replace(found, effective=effective)
        )

    def _refuse_registration(
        self, data: decisions.RegistrationRefused, effective: datetime
    ) -> None:
        found = self.customer(data.customer)
        if not isinstance(found, Unregistered):  # a second time: what the first brought stays
            self._pass(data.customer, effective)
        else:
            self.customers[data.customer] = Refused(data.existing, effective)

    def _take_identifier(self, system: str, key: str, customer: str | None) -> None:
        self.holder_of(system, key)  # one that is given up was looked up by no decider
        self.identifiers[system, key] = customer
        self.touched.add(("identifier", system, key))

    def _change(
        self,
        request: requests.CustomerChangeRequested,
        decision: decisions.CustomerChanged,
        effective: datetime,
    ) -> None:
        customer = decision.customer
        before = self._admitted(customer)
        after = changed(before, request, decision)._replace(effective=effective)
        for system, key in before.identifiers.items():
            if after.identifiers.get(system) != key:
                self._take_identifier(system, key, None)
        for system, key in after.identifiers.items():
            if before.identifiers.get(system) != key:
                self._take_identifier(system, key, customer)
        if after.parent != before.parent:
            self._move(customer, before, after)
        self.customers[customer] = after

    def _move(self, customer: str, before: Admitted, after: Admitted) -> None:
        """Let a customer, and all below it, leave one group and join another."""
        moving = self.owners_from(customer)
        if before.parent is not None:
            self._leave(before.parent, moving)
        if after.parent is not None:
            self._join(after.parent, moving)
        if before.parent is None and before.children:
            # What was allowed in a group of its own is not in a part of another.
            self._put_group(customer, replace(self.group(customer), allowed=()))

    def _leave(self, parent: str, leaving: Owners) -> None:
        self._count_above(parent, less(leaving))
        found = self._admitted(parent)
        self._put_parent(parent, found._replace(children=found.children - 1))
        if found.children == 1:
            self._put_group(parent, Group())

    def _join(self, parent: str, joining: Owners) -> None:
        found = self._admitted(parent)
        if found.children == 0 and found.owner is not None:
            self._put_group(parent, Group({found.owner: 1}))
        self._put_parent(parent, found._replace(children=found.children + 1))
        self._count_above(parent, joining)

    def _count_above(self, customer: str, change: Owners) -> None:
        """Count other owners at a customer that has others below, and at all above it."""
        if change:
            for each in (customer, *self.above(customer)):
                self._put_group(each, self.group(each).counted(change))

    def _count_in_group(self, customer: str, owner: str, number: int) -> None:
        found = self._admitted(customer)
        if found.children:
            self._count_above(customer, {owner: number})
        elif found.parent is not None:
            self._count_above(found.parent, {owner: number})

    def _put_group(self, customer: str, value: Group) -> None:
        self.group(customer)
        self.groups[customer] = value
        self.touched.add(("group", customer))

    def _put_parent(self, customer: str, value: Admitted) -> None:
        self.customers[customer] = value
        self.touched.add(("customer", customer))

    def _count_grant(self, person: str, day: str) -> None:
        self.grants[person, day] = self.grants_of(person, day) + 1
        self.touched.add(("grants", person, day))

    def _count(self, person: str, held: int, held_won: int) -> None:
        found = self.holdings_of(person)
        self.holdings[person] = Holdings(found.held + held, found.held_won + held_won, found.closed)
        self.touched.add(("holdings", person))

    def _begin(
        self,
        cause: Event,
        customer: str,
        owner: str,
        effective: datetime,
        protected_until: datetime | None,
    ) -> None:
        found = self._admitted(customer)
        if found.owner is not None:
            raise AssertionError(f"{customer} would have two owners")
        self._count(owner, 1, found.won_deals > 0)
        self._hold(
            found, customer, taken(found, owner, effective, protected_until, cause.import_id)
        )
        self._count_in_group(customer, owner, 1)

    def _end(self, customer: str, effective: datetime, recorded: datetime) -> None:
        found = self._admitted(customer)
        if isinstance(found.tenure, Held):
            self._count(found.tenure.owner, -1, -(found.won_deals > 0))
            self._count_in_group(customer, found.tenure.owner, -1)
        self._hold(found, customer, given_up(found, effective, recorded))

    def _hold(self, before: Admitted, customer: str, after: Admitted) -> None:
        """Put a customer's state at which other people hold something now.

        The guard of their holdings is what keeps that still while it is handed over.
        """
        self.customers[customer] = after
        held, holds = people_at(before), people_at(after)
        if held == holds:
            return
        for person in held ^ holds:
            self.holdings_of(person)
        if not self.complete:
            self.involved_before.setdefault(customer, held)
            return
        for person in held - holds:
            self.involved.get(person, set()).discard(customer)
        for person in holds - held:
            self.involved.setdefault(person, set()).add(customer)

    def _hand_over(self, cause: Event, data: decisions.OfPerson) -> None:
        person = data.giver
        self.hand_overs[person] = (
            UnderWay(cause.position, data) if isinstance(data, decisions.HandOverAdvanced) else None
        )
        self.touched.add(("person", person))
        if not isinstance(data, decisions.HandOverRefused) and data.left:
            self.holdings[person] = replace(self.holdings_of(person), closed=cause.position)
            self.touched.add(("holdings", person))

    def _approve(
        self,
        cause: Event,
        data: Step | decisions.ApprovalClosed,
        effective: datetime,
        organisation: OrganisationAt,
    ) -> None:
        customer = data.customer
        found = self._admitted(customer)
        theirs = found.collaborations
        if collaborating.is_about_one(theirs, data):
            theirs = collaborating.answered(theirs, data, cause, effective, organisation)
            answered = found._replace(collaborations=theirs, effective=effective)
            self._hold(found, customer, answered)
            return
        if isinstance(data, decisions.ApprovalClosed):
            closed = approval_closed(found, data.outcome, effective, data.turned_down)
            self._hold(found, customer, paused_by(found, closed, effective))
            return
        approval = after(
            found.approval,
            data,
            effective,
            policy=organisation.policy.number,
            import_id=cause.import_id,
        )
        opened = found._replace(approval=approval, effective=effective)
        self._hold(found, customer, paused_by(found, opened, effective))

    def _collaborate(
        self,
        cause: Event,
        data: decisions.CollaboratorAdded | decisions.CollaborationsEnded,
        effective: datetime,
    ) -> None:
        found = self._admitted(data.customer)
        theirs = collaborating.after(found.collaborations, data, effective, cause.recorded)
        changed = found._replace(collaborations=theirs, effective=effective)
        self._hold(found, data.customer, changed)

    def _stand_in(
        self,
        cause: Event,
        data: decisions.StandInNamed | decisions.StandInEnded,
        effective: datetime,
    ) -> None:
        found = self._admitted(data.customer)
        if isinstance(data, decisions.StandInNamed):
            theirs = standing_in.named(found.stand_ins, data, effective, cause.recorded)
        else:
            theirs = standing_in.ended(found.stand_ins, effective, data.stand_in)
        self.customers[data.customer] = found._replace(stand_ins=theirs, effective=effective)

    def _dispute(
        self,
        cause: Event,
        data: conflicts.Change,
        effective: datetime,
        organisation: OrganisationAt,
    ) -> None:
        found = self._admitted(data.customer)
        allowed = found.allowed
        if isinstance(data, decisions.ConflictClosed):
            allowed = conflicts.allowed_after(allowed, found.conflicts, data)
            allowing = conflicts.allowing_group(found.conflicts, data)
            if allowing is not None:
                self._put_group(data.customer, self.group(data.customer).allowing(allowing))
        disputed = found._replace(
            conflicts=conflicts.after(
                found.conflicts, data, cause, effective, organisation, found.identifiers
            ),
            allowed=allowed,
            effective=effective,
        )
        self.customers[data.customer] = paused_by(found, disputed, effective)

    def _count_towards_recycling(
        self, data: decisions.RecycleWarned | decisions.RecycleHeld, effective: datetime
    ) -> None:
        found = self._admitted(data.customer)
        self.customers[data.customer] = told_or_held(found, data, effective)

    def _note(
        self,
        decision: decisions.Noted,
        cause: Event,
        effective: datetime,
        organisation: OrganisationAt,
    ) -> None:
        customer, data = decision.customer, cause.data
        match data:
            case requests.FollowUpLogged():
                self._record(customer, data.follow_up, cause, None)
            case requests.DealRecorded():
                self._record(customer, data.deal, cause, data.outcome)
            case requests.FollowUpCorrected():
                self._amend(data.follow_up, at=data.at)
            case requests.FollowUpVoided():
                self._amend(data.follow_up, stands=False)
            case requests.DealCorrected():
                self._amend(data.deal, outcome=data.outcome)
            case requests.DealVoided():
                self._amend(data.deal, stands=False)
            case _:
                pass
        found = self.customer(customer)
        if isinstance(found, Admitted):
            self.customers[customer] = noted(found, cause, decision, effective, organisation)
        self._pass(customer, effective)

    def _record(self, customer: str, act: str, cause: Event, outcome: str | None) -> None:
        # At what is no customer nothing counts, nor may it begin to once it is one.
        if self.act(act) is None and isinstance(self.customer(customer), Admitted):
            kind = "follow_up" if outcome is None else "deal"
            person: str = cause.data.person
            self._put(act, Act(customer, kind, person, cause.actor, cause.occurred, outcome))
            self._count_won(customer, int(outcome == "won"))

    def _amend(
        self,
        act: str,
        *,
        at: datetime | None = None,
        outcome: str | None = None,
        stands: bool = True,
    ) -> None:
        before = self.act(act)
        if before is None:
            raise AssertionError(f"{act} was corrected before it was recorded")
        after = replace(before, at=at or before.at, outcome=outcome or before.outcome)
        after = replace(after, stands=stands)
        self._put(act, after)
        if not stands:
            self._prove_less(after, act)
        self._count_won(after.customer, _counts(after) - _counts(before))

    def _prove_less(self, act: Act, name: str) -> None:
        found = self.customer(act.customer)
        if isinstance(found, Admitted) and found.conflicts:
            left = conflicts.without(found.conflicts, name)
            self.customers[act.customer] = found._replace(conflicts=left)
            self.touched.add(("customer", act.customer))

    def _put(self, act: str, value: Act) -> None:
        self.acts[act] = value
        self.touched.add(("act", act))

    def _count_won(self, customer: str, difference: int) -> None:
        found = self.customer(customer)
        if difference == 0 or not isinstance(found, Admitted):
            return
        after = found._replace(won_deals=found.won_deals + difference)
        self.customers[customer] = after
        self.touched.add(("customer", customer))
        if isinstance(found.tenure, Held):
            self._count(found.tenure.owner, 0, (after.won_deals > 0) - (found.won_deals > 0))


def subject(settled: Settled, request: Event) -> str:
    """Return the customer whose state the request is decided on.

    That is the one that it names; of one that was entered twice, the one that exists; of a
    hand-over the giver. Raises NotLoadedError.
    """
    named: str = request.data.customer
    if isinstance(request.data, requests.RegistrationRequested | requests.HandOverRequested):
        return named
    return settled.existing(named)


def _counts(act: Act) -> int:
    return int(act.stands and act.outcome == "won")
