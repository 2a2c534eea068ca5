"""Random organisations and requests against a naive model, and against the enforcer's way.

Three ledgers decide every request: the decider on the whole settled state, the decider on just
those guards that it asks for, read from JSON as the enforcer reads them, and a model that knows
nothing but the list of all decisions and counts anew each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ledger import reasons
from ledger.customer import Admitted
from ledger.deciders import decider
from ledger.deciders.drafts import Draft
from ledger.envelope import Event
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import Identifier, Sealed
from ledger.organisation import OrganisationAt
from ledger.policy import Policy, without_limits
from ledger.settled import Key, NotLoadedError, Settled
from ledger.store.guards import _put, state_of, text_of
from tests.specs.story import START, Story

PEOPLE = ["per_0", "per_1", "per_2"]
CUSTOMERS = ["cus_0", "cus_1", "cus_2", "cus_3"]
NUMBERS = ["n1", "n2", "n3"]
ACTS = ["act_0", "act_1", "act_2"]
FOLLOW_UPS = ["fol_0", "fol_1"]
REGIONS = ["east", "west"]

people = st.sampled_from(PEOPLE)
customers = st.sampled_from(CUSTOMERS)
acts = st.sampled_from(ACTS)
# How many hours before now a row happened, for requests of the import; None for live ones.
imported = st.sampled_from([None, None, None, None, 0, 1, 30])
# How many hours ago a follow-up happened that is entered only now.
late = st.sampled_from([None, 0, 1, 20, 30, 49, 100])


@dataclass
class Guards:
    """The store of guard rows, as the enforcer has it: keys and JSON bytes."""

    rows: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)
    version: int = 1

    def decide(self, request: Event, organisation: OrganisationAt) -> Draft:
        """Decide by loading what is asked for, round by round, and write back what changed."""
        keys: set[Key] = set()
        while True:
            settled = Settled()
            for key in keys:
                _put(settled, key, *self.rows.get(text_of(key), (0, None)))
            try:
                draft = decider(self.version)(settled, request, organisation)
                for data in draft.all:
                    settled.apply(request, data, draft.effective, organisation)
            except NotLoadedError as missing:
                keys |= _new(missing.key, keys)
                continue
            assert settled.touched <= keys, "something was changed that was not locked"
            for key in settled.touched:
                version = settled.version(key[1]) if key[0] == "customer" else 0
                self.rows[text_of(key)] = (version, state_of(settled, key))
            return draft


def _new(key: Key, keys: set[Key]) -> set[Key]:
    assert key not in keys, "what was loaded is asked for again"
    return {key}


@dataclass(eq=False)
class Decided:
    """One line of the naive model: a request, the decision, and when it holds."""

    request: Event
    data: d.Decision
    effective: datetime


class Model:
    """Knows the list of decisions and nothing else; every question goes through all of it."""

    def __init__(self) -> None:
        self.lines: list[Decided] = []

    def owner(self, customer: str) -> str | None:
        owner: str | None = None
        for line in self.about(customer):
            if isinstance(line.data, d.OwnershipGranted | d.OwnershipAssigned):
                assert owner is None, "two owners"
                owner = line.data.owner
            elif isinstance(line.data, d.OwnershipReleased):
                assert owner == line.data.owner
                owner = None
        return owner

    def owner_at(self, customer: str, moment: datetime) -> str | None:
        """Whose a customer was at a moment; before it was admitted nobody knows: its owner now."""
        owner: str | None = None
        for line in self.about(customer):
            if isinstance(line.data, d.CustomerAdmitted) and moment < line.data.known_from:
                return self.owner(customer)
            if line.effective > moment:
                continue
            if isinstance(line.data, d.OwnershipGranted | d.OwnershipAssigned):
                owner = line.data.owner
            elif isinstance(line.data, d.OwnershipReleased):
                owner = None
        return owner

    def about(self, customer: str) -> Iterator[Decided]:
        return (line for line in self.lines if line.data.customer == customer)

    def admitted(self) -> list[str]:
        return [line.data.customer for line in self.lines if type(line.data) is d.CustomerAdmitted]

    def held(self, person: str) -> list[str]:
        return [each for each in self.admitted() if self.owner(each) == person]

    def is_won(self, customer: str) -> bool:
        outcomes: dict[str, str | None] = {}
        for line in self.lines:
            asked = line.request.data
            if not isinstance(line.data, d.Noted) or line.data.customer != customer:
                continue
            if isinstance(asked, r.DealRecorded) and line in self.deals().values():
                outcomes[asked.deal] = asked.outcome
            elif isinstance(asked, r.DealCorrected):
                outcomes[asked.deal] = asked.outcome or outcomes[asked.deal]
            elif isinstance(asked, r.DealVoided):
                outcomes[asked.deal] = None
        return "won" in outcomes.values()

    def deals(self) -> dict[str, Decided]:
        """The first recording of each deal, at whichever customer, if only it was one."""
        found: dict[str, Decided] = {}
        for line in self.lines:
            if isinstance(line.request.data, r.DealRecorded) and (
                getattr(line.data, "remark", None) != reasons.CUSTOMER_NOT_ADMITTED
            ):
                found.setdefault(line.request.data.deal, line)
        return found

    def grants(self, zone: ZoneInfo) -> Counter[tuple[str, date]]:
        return Counter(
            (line.data.owner, line.effective.astimezone(zone).date())
            for line in self.lines
            if isinstance(line.data, d.OwnershipGranted) and not line.data.opening
        )

    def ended(self, customer: str, person: str) -> datetime | None:
        """When somebody's last ownership of a customer ended."""
        ends = [
            line.effective
            for line in self.about(customer)
            if isinstance(line.data, d.OwnershipReleased) and line.data.owner == person
        ]
        return max(ends, default=None)

    def is_closed(self, customer: str) -> bool:
        closed = False
        for line in self.about(customer):
            if isinstance(line.data, d.CustomerChanged) and line.request.data.closed is not None:
                closed = line.request.data.closed
        return closed

    def existing(self, customer: str) -> str:
        for line in self.about(customer):
            if isinstance(line.data, d.RegistrationRefused):
                return line.data.existing or customer
            if isinstance(line.data, d.CustomerAdmitted):
                return customer
        return customer


class LedgerMachine(RuleBasedStateMachine):
    """Requests of every kind, live and imported, while people leave and return."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story()
        self.settled = self.story.settled
        self.guards = Guards()
        self.model = Model()
        self.requests: list[Event] = []
        self.zone = ZoneInfo("UTC")
        self.policy = Policy()

    @initialize(
        zone=st.sampled_from(["Asia/Shanghai", "Europe/Berlin", "America/Santiago"]),
        start=st.integers(0, 400),
        holding_limit=st.none() | st.integers(0, 3),
        daily_claim_limit=st.none() | st.integers(0, 3),
        cooldown_days=st.integers(0, 2),
        late_follow_up_days=st.integers(0, 3),
        won_customers_count=st.booleans(),
        registered=st.integers(1, 4),
    )
    def found(self, zone: str, start: int, registered: int, **rules: Any) -> None:
        self.zone = ZoneInfo(zone)
        self.policy = Policy(claim_scope="everywhere", guarded_changes_by="anyone", **rules)
        self.story.now = START + timedelta(days=start)
        self.story.given(
            facts.OrganisationFounded("公司", zone),
            facts.PersonJoined("per_admin", Sealed("key", "text"), None, ("admin",)),
            *(facts.PersonJoined(person, Sealed("key", "text")) for person in PEOPLE),
            facts.PolicyAdopted(1, self.policy.as_rules()),
            facts.ImportOpened("imp_1", "crm", zone, without_limits(self.policy).as_rules()),
        )
        for customer, number in zip(CUSTOMERS[:registered], NUMBERS * 2, strict=False):
            self.register(customer, [number], None, None)

    def ask(
        self,
        data: r.Request,
        hours_ago: int | None = None,
        by: str = "per_admin",
        said: Mapping[str, str] | None = None,
    ) -> Draft:
        envelope: dict[str, Any] = {"actor": by, **(said or {})}
        if hours_ago is not None:
            occurred = self.story.now - timedelta(hours=hours_ago)
            envelope |= {"occurred": occurred.isoformat(), "import": "imp_1"}
        request = self.story._event(f"customer-{data.customer}", data, **envelope)
        organisation = self.story.organisation.at(request.position)
        draft = decider(1)(self.settled, request, organisation)
        assert self.guards.decide(request, organisation) == draft
        for decision in draft.all:
            self.settled.apply(request, decision, draft.effective, organisation)
        self.requests.append(request)
        self.model.lines.append(Decided(request, draft.data, draft.effective))
        return draft

    # --- what people do ------------------------------------------------------------------------

    @rule(minutes=st.sampled_from([1, 30, 300, 720, 1440]))
    def let_time_pass(self, minutes: int) -> None:
        self.story.later(minutes=minutes)

    @rule(
        customer=customers,
        numbers=st.lists(st.sampled_from(NUMBERS), max_size=2, unique=True),
        parent=st.none() | customers,
        hours_ago=imported,
    )
    def register(
        self, customer: str, numbers: list[str], parent: str | None, hours_ago: int | None
    ) -> None:
        identifiers = tuple(Identifier(number, number) for number in numbers)
        self.ask(
            r.RegistrationRequested(
                customer, "organisation", "客户", identifiers=identifiers, parent=parent
            ),
            hours_ago,
        )

    @rule(customer=customers, person=people, hours_ago=imported)
    def claim(self, customer: str, person: str, hours_ago: int | None) -> None:
        expected = self._claim_expected(customer, person, hours_ago)
        draft = self.ask(r.ClaimFiled(customer, person), hours_ago, person)
        if isinstance(draft.data, d.ClaimRefused):
            assert draft.data.reason == expected
            assert draft.data.owner == self.model.owner(draft.data.customer)
        else:
            assert isinstance(draft.data, d.OwnershipGranted)
            assert expected is None
            assert (draft.data.owner, draft.data.limits_waived != ()) == (
                person,
                hours_ago is not None and bool(self._limits(draft, person)),
            )

    @rule(customer=customers, person=people)
    def open_with_owner(self, customer: str, person: str) -> None:
        """A row without a date, which holds at once here, and is no claim of this day."""
        expected = self._claim_expected(customer, person, 0)
        draft = self.ask(r.ClaimFiled(customer, person), by=person, said={"import": "imp_1"})
        if isinstance(draft.data, d.ClaimRefused):
            assert draft.data.reason == expected
        else:
            assert isinstance(draft.data, d.OwnershipGranted)
            waived = set(self._limits(draft, person)) - {reasons.DAILY_LIMIT}
            assert (expected, draft.data.opening) == (None, True)
            assert set(draft.data.limits_waived) == waived

    def _claim_expected(self, named: str, person: str, hours_ago: int | None) -> str | None:
        """Why the naive model refuses, None where it grants."""
        model, customer = self.model, self.model.existing(named)
        if customer not in model.admitted():
            return reasons.CUSTOMER_NOT_ADMITTED
        last = max(line.effective for line in model.about(customer))
        asked = self.story.now - timedelta(hours=hours_ago or 0)
        if asked < last and hours_ago is not None:
            return reasons.HISTORY_OUT_OF_ORDER
        effective = max(asked, last)
        if model.is_closed(customer):
            return reasons.CUSTOMER_CLOSED
        left_on = self._left_on(person)
        if left_on is not None and left_on <= effective.astimezone(self.zone).date():
            return reasons.CLAIMANT_LEFT
        owner = model.owner(customer)
        if owner is not None:
            return reasons.ALREADY_YOURS if owner == person else reasons.OWNED_BY_ANOTHER
        limits = self._limits_at(customer, person, effective)
        return limits[0] if limits and hours_ago is None else None

    def _left_on(self, person: str) -> date | None:
        found = self.story.organisation.latest.person(person)
        assert found is not None
        return found.left_on

    def _limits_at(self, customer: str, person: str, effective: datetime) -> list[str]:
        model, policy, found = self.model, self.policy, []
        ended = model.ended(customer, person)
        if policy.cooldown_days and ended is not None:
            local = ended.astimezone(self.zone).replace(tzinfo=None)
            ends = (local + timedelta(days=policy.cooldown_days)).replace(tzinfo=self.zone)
            if effective < ends.astimezone(ZoneInfo("UTC")):
                found.append(reasons.COOLDOWN)
        held = [
            each
            for each in model.held(person)
            if policy.won_customers_count or not model.is_won(each)
        ]
        if policy.holding_limit is not None and len(held) >= policy.holding_limit:
            found.append(reasons.HOLDING_LIMIT)
        grants = model.grants(self.zone)[person, effective.astimezone(self.zone).date()]
        if policy.daily_claim_limit is not None and grants >= policy.daily_claim_limit:
            found.append(reasons.DAILY_LIMIT)
        return found

    def _limits(self, draft: Draft, person: str) -> list[str]:
        """The limits that stood in the way of a grant just before it was made."""
        made = self.model.lines.pop()
        try:
            return self._limits_at(draft.data.customer, person, draft.effective)
        finally:
            self.model.lines.append(made)

    @rule(customer=customers, by=people | st.just("per_admin"), hours_ago=imported)
    def release(self, customer: str, by: str, hours_ago: int | None) -> None:
        owner = self.model.owner(self.model.existing(customer))
        draft = self.ask(r.ReleaseRequested(customer, "done"), hours_ago, by)
        if isinstance(draft.data, d.OwnershipReleased):
            assert draft.data.owner == owner
            assert by in (owner, "per_admin")

    @rule(customer=customers, person=people, later=people)
    def change_hands(self, customer: str, person: str, later: str) -> None:
        self.claim(customer, person, None)
        self.release(customer, "per_admin", None)
        self.claim(customer, later, None)

    @rule(customer=customers, person=people, hours_ago=imported)
    def assign(self, customer: str, person: str, hours_ago: int | None) -> None:
        self.ask(r.AssignmentRequested(customer, person), hours_ago)

    @rule(
        customer=customers,
        number=st.none() | st.sampled_from(NUMBERS),
        removed=st.none() | st.sampled_from(NUMBERS),
        parent=st.none() | customers,
        closed=st.sampled_from([None, None, None, True, False, False]),
        region=st.none() | st.sampled_from(REGIONS),
        hours_ago=imported,
    )
    def change(
        self,
        customer: str,
        number: str | None,
        removed: str | None,
        parent: str | None,
        closed: bool | None,
        region: str | None,
        hours_ago: int | None,
    ) -> None:
        self.ask(
            r.CustomerChangeRequested(
                customer,
                identifiers=() if number is None else (Identifier(number, number),),
                removed=() if removed is None else (f"identifier:{removed}",),
                parent=parent,
                closed=closed,
                attributes={} if region is None else {"region": region},
            ),
            hours_ago,
        )

    @rule(
        customer=customers,
        act=acts,
        person=people,
        outcome=st.sampled_from(["won", "lost"]),
        hours_ago=imported,
    )
    def deal(
        self, customer: str, act: str, person: str, outcome: str, hours_ago: int | None
    ) -> None:
        self.ask(r.DealRecorded(customer, act, person, outcome), hours_ago, person)

    @rule(customer=customers, act=st.sampled_from(FOLLOW_UPS), person=people, hours=late)
    def follow_up(self, customer: str, act: str, person: str, hours: int | None) -> None:
        now, named = self.story.now, self.model.existing(customer)
        happened = now - timedelta(hours=hours or 0)
        expected: tuple[str | None, str | None] = (reasons.CUSTOMER_NOT_ADMITTED, None)
        if named in self.model.admitted():
            owner = self.model.owner(named)
            local = happened.astimezone(self.zone).replace(tzinfo=None)
            until = local + timedelta(days=self.policy.late_follow_up_days)
            if hours and now <= until.replace(tzinfo=self.zone).astimezone(ZoneInfo("UTC")):
                owner = self.model.owner_at(named, happened)
            expected = (None if owner == person else reasons.FOLLOW_UP_BY_NON_OWNER, owner)
        stated = {} if hours is None else {"occurred": happened.isoformat()}
        draft = self.ask(r.FollowUpLogged(customer, act, person, "call"), by=person, said=stated)
        assert draft.data == d.Noted(named, *expected)

    @rule(customer=customers, act=acts, outcome=st.sampled_from(["won", "lost", None, "void"]))
    def amend(self, customer: str, act: str, outcome: str | None) -> None:
        if outcome == "void":
            self.ask(r.DealVoided(customer, act, "double"))
        else:
            self.ask(r.DealCorrected(customer, act, "typo", outcome=outcome))

    @rule(person=people, in_days=st.sampled_from([None, None, 0, 1]))
    def leave_or_return(self, person: str, in_days: int | None) -> None:
        day = self.story.now.astimezone(self.zone).date()
        if in_days is None:
            self.story.given(facts.PersonReturned(person, day))
        else:
            self.story.given(facts.PersonLeft(person, day + timedelta(days=in_days)))

    # --- what always holds ---------------------------------------------------------------------

    @invariant()
    def counts_are_the_sums_over_customers(self) -> None:
        for person in PEOPLE:
            held = self.model.held(person)
            counted = self.settled.holdings_of(person)
            assert counted.held == len(held)
            assert counted.held_won == sum(self.model.is_won(each) for each in held)

    @invariant()
    def owners_are_those_of_the_decisions(self) -> None:
        for name in self.model.admitted():
            customer = self.settled.customer(name)
            assert isinstance(customer, Admitted)
            assert customer.owner == self.model.owner(name)

    @invariant()
    def grants_are_counted_by_local_day(self) -> None:
        counted = {(person, day): n for (person, day), n in self.settled.grants.items() if n}
        expected = self.model.grants(self.zone)
        assert counted == {(person, day.isoformat()): n for (person, day), n in expected.items()}

    @invariant()
    def no_customer_goes_back_in_time(self) -> None:
        for name in CUSTOMERS:
            times = [line.effective for line in self.model.about(name)]
            assert times == sorted(times)

    @invariant()
    def identifiers_are_had_once_and_by_whom_the_customers_say(self) -> None:
        held = [
            (system, key, name)
            for name, customer in self.settled.customers.items()
            if isinstance(customer, Admitted)
            for system, key in customer.identifiers.items()
        ]
        taken = {(*number, name) for number, name in self.settled.identifiers.items() if name}
        assert sorted(held) == sorted(taken)

    @invariant()
    def groups_have_no_circle(self) -> None:
        for name in self.model.admitted():
            seen: set[str] = set()
            above: str | None = name
            while above is not None:
                assert above not in seen
                seen.add(above)
                customer = self.settled.customer(self.model.existing(above))
                above = customer.parent if isinstance(customer, Admitted) else None
                above = above and self.model.existing(above)

    def teardown(self) -> None:
        """All of it decided again brings the same."""
        again = Settled(complete=True)
        for request, line in zip(self.requests, self.model.lines, strict=True):
            organisation = self.story.organisation.at(request.position)
            draft = decider(1)(again, request, organisation)
            assert (draft.data, draft.effective) == (line.data, line.effective)
            for decision in draft.all:
                again.apply(request, decision, draft.effective, organisation)
        assert again == self.settled


def test_the_deciders_agree_with_a_naive_model() -> None:
    run_state_machine_as_test(
        LedgerMachine, settings=settings(max_examples=150, stateful_step_count=50, deadline=None)
    )
