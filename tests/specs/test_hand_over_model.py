"""Hand-overs among everything else, at random: nothing is lost, moved twice, or beyond a limit.

Each request is decided twice: on a state that holds everything, as the audit has it, and on guards
that are loaded as they are asked for, as the enforcer has them. Others' requests are decided
between the parts of a hand-over, which are of three customers here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.approving import asked
from ledger.customer import Admitted, open_approvals
from ledger.deciders import LATEST, decider
from ledger.deciders.drafts import Draft
from ledger.envelope import Event
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.catalogue import catalogue
from ledger.handing_over import people_at
from ledger.organisation import Organisation, OrganisationAt
from ledger.settled import Key, NotLoadedError, Settled
from ledger.store.guards import _put, state_of, text_of, version_of
from projections import hand_overs
from tests.specs.story import START
from tests.specs.test_model import _new
from tests.specs.test_ownership import NAME, policy

PART = 3
PEOPLE = ["per_a", "per_b", "per_c", "per_d"]
CUSTOMERS = [f"cus_{number:02d}" for number in range(10)]
LIMIT = 4


@contextmanager
def small_parts() -> Iterator[None]:
    with ExitStack() as stack:
        for module in ("ledger.handing_over", "ledger.settled", "ledger.deciders.handing_over"):
            stack.enter_context(patch(f"{module}.PART_CUSTOMERS", PART))
        yield


@dataclass
class Store:
    """The guard rows as JSON, and the table of who holds something where."""

    rows: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)
    involved: set[tuple[str, str]] = field(default_factory=set)

    def decide(self, request: Event, organisation: OrganisationAt) -> Draft:
        keys: set[Key] = set()
        while True:
            settled = Settled()
            for key in keys:
                self._load(settled, key)
            try:
                draft = decider(LATEST)(settled, request, organisation)
                for data in draft.all:
                    settled.apply(request, data, draft.effective, organisation)
            except NotLoadedError as missing:
                keys |= _new(missing.key, keys)
                continue
            self._write(settled, keys)
            return draft

    def _load(self, settled: Settled, key: Key) -> None:
        if key[0] != "involved":
            _put(settled, key, *self.rows.get(text_of(key), (0, None)))
            return
        _, person, last = key
        there = sorted(name for who, name in self.involved if who == person and name > last)
        settled.pages[person, last] = tuple(there[: PART + 1])

    def _write(self, settled: Settled, keys: set[Key]) -> None:
        assert settled.touched <= keys, "something was changed that was not locked"
        for key in settled.touched:
            self.rows[text_of(key)] = (version_of(settled, key), state_of(settled, key))
        for customer, before in settled.involved_before.items():
            after = people_at(settled.customers[customer])
            locked = {("holdings", person) for person in before ^ after}
            assert locked <= keys, "who holds something was changed without a lock"
            self.involved -= {(person, customer) for person in before}
            self.involved |= {(person, customer) for person in after}


class Machine:
    """A ledger in memory, which decides everything twice."""

    def __init__(self, *, asks: bool) -> None:
        self.now, self.position = START, 0
        self.organisation = Organisation()
        self.settled, self.store = Settled(complete=True), Store()
        self.under_way: tuple[Event, Counter[str]] | None = None
        self.decided: list[d.Decision] = []
        rules: dict[str, Any] = {"holding_limit": LIMIT, "protection_days": 0, "cooldown_days": 0}
        if not asks:
            rules["approval_rules"] = ()
        people = [(name, "ter_east", ("rep",)) for name in PEOPLE]
        for fact in (
            facts.OrganisationFounded("公司", "Asia/Shanghai"),
            *(
                facts.PersonJoined(person, NAME, home, roles)
                for person, home, roles in [*people, ("per_head", "ter_east", ("manager",))]
            ),
            facts.PersonJoined("per_boss", NAME, None, ("admin",)),
            facts.TerritoryDefined("ter_east", "华东", None, "per_head"),
            facts.PolicyAdopted(1, policy(**rules).as_rules()),
        ):
            self.organisation.apply(self._event("organisation", fact, "per_boss"))
        for customer in CUSTOMERS:
            self.ask(r.RegistrationRequested(customer, "organisation", customer), "per_boss")

    def _event(self, stream: str, data: Any, actor: str) -> Event:
        self.position += 1
        name = catalogue().name_of(data)
        written = {"actor": actor, "caller": "test"}
        return Event(self.position, self.now, stream, self.position, name, written, data)

    def ask(self, data: Any, actor: str) -> Draft:
        self.now += timedelta(minutes=1)
        return self._decide(self._event("x", data, actor))

    def _decide(self, event: Event) -> Draft:
        organisation = self.organisation.at(event.position)
        draft = decider(LATEST)(self.settled, event, organisation)
        assert draft == self.store.decide(event, organisation)
        for data in draft.all:
            self.settled.apply(event, data, draft.effective, organisation)
            self.position += 1
        self._check()
        return draft

    def hand_over(self, order: r.HandOverRequested) -> None:
        self.now += timedelta(minutes=1)
        self.under_way = (self._event("x", order, "per_boss"), Counter())
        self.decided = []
        self.next_part()

    def next_part(self) -> None:
        if self.under_way is None:
            return
        event, moved = self.under_way
        draft = self._decide(event)
        self.decided += draft.all
        moved.update(
            each.customer for each in draft.all if isinstance(each, d.OwnershipTransferred)
        )
        assert max(moved.values(), default=0) <= 1, "moved twice"
        for person in event.data.receivers:
            got = any(getattr(each, "owner", None) == person for each in draft.all)
            assert not got or self.settled.holdings_of(person).held <= LIMIT
        if draft.is_last:
            self.under_way = None
            assert self.settled.hand_over_of(event.data.giver) is None
            _check_receipt(event, self.decided)

    def answer(self, number: int, *, agreed: bool) -> None:
        waiting = [
            (name, approval)
            for name, customer in sorted(self.settled.customers.items())
            if isinstance(customer, Admitted)
            for approval in open_approvals(customer)
        ]
        if not waiting:
            return
        customer, approval = waiting[number % len(waiting)]
        organisation = self.organisation.latest
        people = asked(approval, organisation, organisation.day(self.now), LATEST)
        if not people:
            return
        answer: Any = (
            r.ApprovalGiven(customer, approval.approval)
            if agreed
            else r.ApprovalDenied(customer, approval.approval, "no")
        )
        self.ask(answer, people[0])

    def _check(self) -> None:
        held: Counter[str] = Counter()
        expected: set[tuple[str, str]] = set()
        for name, customer in self.settled.customers.items():
            expected |= {(person, name) for person in people_at(customer)}
            if isinstance(customer, Admitted) and customer.owner is not None:
                held[customer.owner] += 1
        assert self.store.involved == expected
        index = {(who, name) for who, names in self.settled.involved.items() for name in names}
        assert index == expected
        for person in [*PEOPLE, "per_head"]:
            assert self.settled.holdings_of(person).held == held[person]


def _check_receipt(request: Event, decided: list[d.Decision]) -> None:
    """What is counted is listed in the receipt, and what is listed counted."""
    outcome = decided[-1]
    if isinstance(outcome, d.HandOverRefused):
        return
    assert isinstance(outcome, d.HandOverCompleted)
    receipt = hand_overs._Batch()
    for number, data in enumerate(decided):
        position, name = request.position + 1 + number, catalogue().name_of(data)
        cause = {"causation": request.position}
        hand_overs._take(receipt, Event(position, request.recorded, "x", 1, name, cause, data))
    lines = Counter(line["outcome"] for line in receipt.lines)
    why = Counter(line["reason"] for line in receipt.lines if line["outcome"] == "refused")
    assert (outcome.moved, outcome.waiting) == (lines["moved"], lines["waiting"])
    assert (outcome.refused, outcome.settled) == (why, len(receipt.others))


people = st.sampled_from(PEOPLE)
customers = st.sampled_from(CUSTOMERS)
orders = st.builds(
    lambda giver, receivers, chosen, give, end: r.HandOverRequested(
        giver,
        "hov_1",
        tuple(each for each in receivers if each != giver) or ("per_head",),
        "spread",
        "x",
        customers=tuple(chosen),
        collaborators="end" if end else None,
        collaborations="give" if give else None,
    ),
    people,
    st.lists(people, min_size=1, max_size=3, unique=True),
    st.one_of(st.just([]), st.just([]), st.lists(customers, min_size=1, unique=True)),
    st.booleans(),
    st.booleans(),
)
acts = st.one_of(
    st.tuples(st.just("claim"), customers, people),
    st.tuples(st.just("claim"), customers, people),
    st.tuples(st.just("release"), customers, people),
    st.tuples(st.just("transfer"), customers, people, people),
    st.tuples(st.just("collaborate"), customers, people, people),
    st.tuples(st.just("answer"), st.integers(0, 30), st.booleans()),
    st.tuples(st.just("leave"), people),
    st.tuples(st.just("order"), orders),
    st.tuples(st.just("part")),
    st.tuples(st.just("part")),
)


def _act(machine: Machine, number: int, act: tuple[Any, ...]) -> None:
    match act:
        case ("claim", customer, person):
            machine.ask(r.ClaimFiled(customer, person), person)
        case ("release", customer, person):
            machine.ask(r.ReleaseRequested(customer, "x"), person)
        case ("transfer", customer, person, receiver):
            machine.ask(r.TransferRequested(customer, f"trf_{number}", receiver, "x"), person)
        case ("collaborate", customer, person, other):
            name = f"col_{number}"
            machine.ask(r.CollaborationRequested(customer, name, other, "rep", "x"), person)
        case ("answer", which, agreed):
            machine.answer(which, agreed=agreed)
        case ("leave", person):
            gone = machine._event(
                "organisation", facts.PersonLeft(person, START.date()), "per_boss"
            )
            machine.organisation.apply(gone)
        case ("order", order) if machine.under_way is None:
            machine.hand_over(order)
        case _:
            machine.next_part()


@settings(max_examples=150, deadline=None)
@given(
    st.booleans(),
    st.lists(people, min_size=8, max_size=8),
    st.lists(acts, min_size=10, max_size=60),
)
def test_nothing_is_lost_moved_twice_or_beyond_a_limit(
    asks: bool, owners: list[str], chosen: list[tuple[Any, ...]]
) -> None:
    with small_parts():
        machine = Machine(asks=asks)
        for customer, owner in zip(CUSTOMERS, owners, strict=False):
            machine.ask(r.ClaimFiled(customer, owner), owner)
        for number, act in enumerate(chosen):
            _act(machine, number, act)
        while machine.under_way is not None:
            machine.next_part()


def test_what_the_machine_is_to_find_it_does_come_by() -> None:
    with small_parts():
        machine = Machine(asks=False)
        for customer in CUSTOMERS[:4]:
            machine.ask(r.ClaimFiled(customer, "per_a"), "per_a")
        order = r.HandOverRequested("per_a", "hov_1", ("per_b", "per_c"), "spread", "x")
        machine.hand_over(order)
        assert machine.under_way is not None
        machine.ask(r.ReleaseRequested(CUSTOMERS[3], "x"), "per_a")
        machine.next_part()
        assert machine.under_way is None
        held = Counter(
            each.owner for each in machine.settled.customers.values() if isinstance(each, Admitted)
        )
        assert held == {"per_b": 2, "per_c": 1, None: 7}
