"""Random organisations in which people ask, approve, refuse, leave and stand in for each other.

A naive model keeps who answered what. Whatever happens, an owner changes by a transfer only after
each of its steps has as many agreements as it needs, by different people, none of whom judged a
cause of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ledger import approving
from ledger.approving import delegates, is_present
from ledger.customer import Admitted
from ledger.deciders import LATEST, decider
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import Sealed
from ledger.organisation import OrganisationAt
from ledger.policy import Policy
from ledger.settled import Settled
from tests.specs.story import Story
from tests.specs.test_model import Guards

REPS = ["per_a", "per_b", "per_c"]
HEADS = ["per_east", "per_west", "per_boss"]
PEOPLE = [*REPS, *HEADS, "per_admin"]
NAME = Sealed("key", "text")
people = st.sampled_from(PEOPLE)


@dataclass
class Asked:
    """What the model keeps of an approval."""

    opened: d.ApprovalOpened
    answers: list[d.StepAnswered] = field(default_factory=list)
    is_open: bool = True


class Transfers(RuleBasedStateMachine):
    """One customer, and everybody who wants it."""

    version = 1

    def __init__(self) -> None:
        super().__init__()
        self.story = Story()
        self.settled = Settled(complete=True)
        self.guards = Guards(version=self.version)
        self.owner: str | None = None
        self.asked: dict[str, Asked] = {}
        self.number = 0

    @initialize(
        grade=st.sampled_from(["key", "plain"]),
        cooldown=st.sampled_from([0, 3]),
        limit=st.sampled_from([None, 1]),
    )
    def found(self, grade: str, cooldown: int, limit: int | None) -> None:
        policy = Policy(protection_days=0, cooldown_days=cooldown, holding_limit=limit)
        home = {"per_c": "ter_west", "per_west": "ter_west", "per_boss": "ter_all"}
        self.story.given(
            facts.OrganisationFounded("公司", "Asia/Shanghai"),
            facts.PersonJoined("per_admin", NAME, None, ("admin",)),
            *(facts.PersonJoined(each, NAME, home.get(each, "ter_east")) for each in REPS + HEADS),
            facts.TerritoryDefined("ter_all", "全国", None, "per_boss"),
            facts.TerritoryDefined("ter_east", "华东", "ter_all", "per_east"),
            facts.TerritoryDefined("ter_west", "华西", "ter_all", "per_west"),
            facts.PolicyAdopted(1, policy.as_rules()),
        )
        registration = r.RegistrationRequested(
            "cus_1", "organisation", "客户", attributes={"grade": grade}
        )
        self.ask(registration, "per_admin")
        self.ask(r.ClaimFiled("cus_1", "per_a"), "per_a")

    def ask(self, data: r.Request, by: str) -> None:
        request = self.story._event("customer-cus_1", data, actor=by)
        organisation = self.story.organisation.at(request.position)
        draft = decider(self.version)(self.settled, request, organisation)
        assert self.guards.decide(request, organisation) == draft
        for decision in draft.all:
            self.settled.apply(request, decision, draft.effective, organisation)
            self.take(decision, organisation, organisation.day(draft.effective))

    # --- the model -----------------------------------------------------------------------------

    def take(self, decision: d.Decision, organisation: OrganisationAt, day: date) -> None:
        match decision:
            case d.ApprovalOpened():
                assert not any(each.is_open for each in self.asked.values())
                self.asked[decision.approval] = Asked(decision)
            case d.StepAnswered():
                self.answer(decision, organisation, day)
            case d.ApprovalClosed():
                self.asked[decision.approval].is_open = False
            case d.OwnershipGranted():
                assert self.owner is None
                self.owner = decision.owner
            case d.OwnershipReleased():
                assert self.owner == decision.owner
                self.owner = None
            case d.OwnershipTransferred():
                assert self.owner == decision.former_owner
                self.must_be_approved(self.asked[decision.approval])
                self.owner = decision.owner
            case _:
                pass

    def answer(self, given: d.StepAnswered, organisation: OrganisationAt, day: date) -> None:
        asked = self.asked[given.approval]
        opened = asked.opened
        assert asked.is_open
        assert given.person not in {each.person for each in asked.answers}
        assert is_present(organisation, given.person, day)
        kind = opened.steps[given.step].approvers[given.approver].kind
        if kind == "receiver":
            receiver = opened.receiver
            assert receiver is not None
            assert receiver == given.person or not is_present(organisation, receiver, day)
            if self.version >= 3 and receiver != given.person:
                asking = self.acting_for(opened.requester, organisation, day)
                assert given.person not in asking
        else:
            for party in (opened.requester, opened.receiver):
                if party is not None:
                    assert given.person not in self.acting_for(party, organisation, day)
        asked.answers.append(given)

    def acting_for(self, party: str, organisation: OrganisationAt, day: date) -> set[str]:
        """A party, and their delegates; since version 3 the delegates of these as well."""
        found = {party, *delegates(organisation, party, day)}
        grown: set[str] = set()
        while self.version >= 3 and found != grown:
            grown = found
            found = grown.union(*(delegates(organisation, each, day) for each in grown))
        return found

    def must_be_approved(self, asked: Asked) -> None:
        for number, step in enumerate(asked.opened.steps):
            agreed = {
                each.approver for each in asked.answers if each.step == number and each.agreed
            }
            assert len(agreed) >= step.needed
        assert [each.step for each in asked.answers] == sorted(each.step for each in asked.answers)

    @invariant()
    def settled_state_is_the_models(self) -> None:
        found = self.settled.customers.get("cus_1")
        if isinstance(found, Admitted):
            assert found.owner == self.owner
            open_now = [key for key, each in self.asked.items() if each.is_open]
            assert open_now == ([found.approval.approval] if found.approval else [])
            held = {person: self.settled.holdings_of(person).held for person in PEOPLE}
            assert held == {person: int(person == self.owner) for person in PEOPLE}

    # --- what people do ------------------------------------------------------------------------

    @rule(hours=st.sampled_from([1, 12, 24, 72]))
    def let_time_pass(self, hours: int) -> None:
        self.story.later(hours=hours)

    @rule(person=people)
    def claim(self, person: str) -> None:
        self.ask(r.ClaimFiled("cus_1", person), person)

    @rule(by=people)
    def release(self, by: str) -> None:
        self.ask(r.ReleaseRequested("cus_1", "no_need"), by)

    @rule(by=people, receiver=people)
    def transfer(self, by: str, receiver: str) -> None:
        self.number += 1
        self.ask(r.TransferRequested("cus_1", f"trf_{self.number}", receiver, "wanted"), by)

    @rule(by=people, agrees=st.sampled_from([True, True, True, False]), age=st.integers(0, 1))
    def answer_something(self, by: str, agrees: bool, age: int) -> None:
        names = list(self.asked)[-1 - age :] or ["trf_0"]
        kind: Any = r.ApprovalGiven
        if agrees:
            self.ask(kind("cus_1", names[0]), by)
        else:
            self.ask(r.ApprovalDenied("cus_1", names[0], "not_now"), by)

    @rule(receiver=st.sampled_from(REPS))
    def the_owner_asks(self, receiver: str) -> None:
        """Else hardly a transfer would ever be opened."""
        if self.owner is not None:
            self.transfer(self.owner, receiver)

    @rule(agrees=st.sampled_from([True, True, True, False]))
    def who_is_asked_answers(self, agrees: bool) -> None:
        """Else hardly a transfer would ever come to its end."""
        found = self.settled.customers["cus_1"]
        if isinstance(found, Admitted) and found.approval is not None:
            organisation = self.story.organisation.latest
            today = organisation.day(self.story.now)
            for person in approving.asked(found.approval, organisation, today, self.version)[:1]:
                self.answer_something(person, agrees, 0)

    @rule(by=people)
    def withdraw(self, by: str) -> None:
        if self.asked:
            self.ask(r.TransferWithdrawn("cus_1", list(self.asked)[-1], "withdrawn"), by)

    @rule(person=people, days=st.sampled_from([1, 5]))
    def go_away(self, person: str, days: int) -> None:
        today = self.story.now.date()
        self.story.given(facts.PersonAway(person, today, today + timedelta(days=days)))

    @rule(person=people, delegate=people)
    def name_a_delegate(self, person: str, delegate: str) -> None:
        today = self.story.now.date()
        until = today + timedelta(days=5)
        self.story.given(facts.DelegateNamed(person, delegate, today, until))

    @rule(person=st.sampled_from(REPS + HEADS))
    def leave_or_return(self, person: str) -> None:
        today = self.story.now.date()
        found = self.story.organisation.latest.person(person)
        assert found is not None
        if found.left_on is None:
            self.story.given(facts.PersonLeft(person, today))
        else:
            self.story.given(facts.PersonReturned(person, today))

    @rule(head=people, territory=st.sampled_from(["ter_east", "ter_west", "ter_all"]))
    def change_the_head(self, head: str, territory: str) -> None:
        above = None if territory == "ter_all" else "ter_all"
        self.story.given(facts.TerritoryDefined(territory, "区", above, head))


class LatestTransfers(Transfers):
    """The same, by the newest version of the decider."""

    version = LATEST


@pytest.mark.parametrize("machine", [Transfers, LatestTransfers])
def test_an_owner_changes_only_with_every_approval_by_people_entitled(
    machine: type[Transfers],
) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=150, stateful_step_count=60, deadline=None)
    )
