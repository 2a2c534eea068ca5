"""Any history: the read models agree with the deciders, with each other, and with a rebuild."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.approving import asked
from ledger.customer import Admitted
from ledger.deciders import LATEST
from ledger.envelope import Event
from ledger.events import decisions, organisation, requests
from ledger.events.catalogue import catalogue
from ledger.standing_in import standing
from projections.base import LIVE
from projections.claims import claim_at
from projections.comparing import digests
from projections.holdings import workloads
from projections.intervals import (
    Free,
    Owned,
    State,
    Unknown,
    check_no_overlap,
    owner_at,
)
from projections.ownership import list_ownership
from projections.rebuild import compare
from projections.stand_ins import standing_at
from tests.projections.history import START, History
from tests.projections.models import Models, connected
from tests.support.database import DatabaseServer

CUSTOMERS = [f"cus_{number}" for number in range(4)]
PEOPLE = ["per_a", "per_b", "per_c"]
TERRITORIES = ["ter_east", "ter_north"]

Step = Callable[[History], object]
_customers, _people = st.sampled_from(CUSTOMERS), st.sampled_from(PEOPLE)
_territories = st.sampled_from(TERRITORIES)


def _void_last(history: History, *, voided: bool) -> None:
    """Correct or void the latest follow-up or deal, whether or not it stands."""
    for event in reversed(history.events):
        match event.data:
            case requests.DealRecorded(customer=customer, deal=deal):
                history.ask(
                    requests.DealVoided(customer, deal, "twice")
                    if voided
                    else requests.DealCorrected(customer, deal, "mistake", outcome="won")
                )
                return
            case requests.FollowUpLogged(customer=customer, follow_up=act):
                at = history.now - timedelta(days=1)
                history.ask(
                    requests.FollowUpVoided(customer, act, "twice")
                    if voided
                    else requests.FollowUpCorrected(customer, act, "mistake", at=at)
                )
                return


def _import_claim(history: History, customer: str, person: str, days: int) -> None:
    occurred = history.now - timedelta(days=days)
    history.claim(customer, person, occurred=occurred, import_id="imp_1")


def _decide_waiting(history: History) -> None:
    """Decide what was asked and not decided, in order."""
    decided = {event.causation for event in history.events}
    for event in list(history.events):
        if event.name in catalogue().request_names and event.position not in decided:
            history.decide(event.position)


def _answer(history: History, customer: str, *, agreed: bool) -> None:
    """Let whoever is asked first answer what awaits approval at a customer."""
    found = history.settled.customers.get(customer)
    if not isinstance(found, Admitted) or found.approval is None:
        return
    organisation = history.organisation.latest
    (person, *_) = asked(found.approval, organisation, organisation.day(history.now), LATEST)
    name = found.approval.approval
    history.ask(
        requests.ApprovalGiven(customer, name)
        if agreed
        else requests.ApprovalDenied(customer, name, "no"),
        actor=person,
    )


def _withdraw(history: History, customer: str) -> None:
    found = history.settled.customers.get(customer)
    if isinstance(found, Admitted) and found.approval is not None:
        name, requester = found.approval.approval, found.approval.requester
        history.ask(requests.TransferWithdrawn(customer, name, "no_need"), actor=requester)


def _stand_in(history: History, customer: str, person: str, days: int) -> None:
    until = history.now.date() + timedelta(days=days)
    name = f"sta_{history.position}"
    history.ask(requests.StandInRequested(customer, name, person, until, "orphaned"))


def _end_stand_in(history: History, customer: str) -> None:
    found = history.settled.customers.get(customer)
    if isinstance(found, Admitted) and found.stand_ins:
        name = found.stand_ins[0].stand_in
        history.ask(requests.StandInEndRequested(customer, name, "over"))


_steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        lambda c, t, u: lambda h: h.register(c, territory=t, uscc=u),
        _customers,
        st.none() | _territories,
        st.sampled_from(["91310000MA1FL0LX0A", None, None]),
    ),
    st.builds(lambda c, p: lambda h: h.claim(c, p), _customers, _people),
    st.builds(lambda c, p: lambda h: h.claim(c, p), _customers, _people),
    st.builds(lambda c: lambda h: h.release(c), _customers),
    st.builds(lambda c, p: lambda h: h.assign(c, p), _customers, _people),
    st.builds(lambda c, t: lambda h: h.move(c, t), _customers, _territories),
    st.builds(lambda c, p: lambda h: h.follow_up(c, p), _customers, _people),
    st.builds(
        lambda c, p, o: lambda h: h.deal(c, p, o),
        _customers,
        _people,
        st.sampled_from(["won", "lost"]),
    ),
    st.builds(lambda v: lambda h: _void_last(h, voided=v), st.booleans()),
    st.builds(
        lambda c, p, d: lambda h: _import_claim(h, c, p, d), _customers, _people, st.integers(0, 3)
    ),
    st.builds(
        lambda c, p: lambda h: h.request(requests.ClaimFiled(c, p), actor=p), _customers, _people
    ),
    st.just(_decide_waiting),
    st.builds(lambda p: lambda h: h.leave(p), _people),
    st.builds(
        lambda c, a: lambda h: _answer(h, c, agreed=a),
        _customers,
        st.sampled_from([True, True, True, False]),
    ),
    st.builds(lambda c: lambda h: _withdraw(h, c), _customers),
    st.builds(
        lambda c, p, n: lambda h: _stand_in(h, c, p, n), _customers, _people, st.integers(1, 3)
    ),
    st.builds(lambda c: lambda h: _end_stand_in(h, c), _customers),
    st.builds(lambda n: lambda h: h.later(hours=n), st.integers(1, 48)),
)


def _history(steps: Sequence[Step]) -> History:
    history = History().found(claims_may_await=True)
    for territory in TERRITORIES:
        history.join(f"head_{territory}", territory, roles=("manager",))
        history.territory(territory, head=f"head_{territory}")
    for person in PEOPLE:
        history.join(person, "ter_east")
    history.fact(organisation.ImportOpened("imp_1", "old", "Asia/Shanghai", {}))
    # A claim that awaits approval, and a customer whose owner has left.
    history.register("cus_0", territory="ter_north")
    history.claim("cus_0", "per_a")
    history.register("cus_1", territory="ter_east")
    history.claim("cus_1", "per_c")
    history.leave("per_c")
    for step in steps:
        step(history)
    return history


def _state(history: History, customer: str, as_of: datetime, known: int) -> State:
    """Say whose a customer was by walking through its decisions: slow, and plainly right."""
    state: State = Unknown()
    for event in history.events[:known]:
        if event.name not in catalogue().decision_names or event.data.customer != customer:
            continue
        effective = event.effective
        match event.data:
            case decisions.CustomerAdmitted(known_from=known_from) if known_from <= as_of:
                state = Free(known_from)
            case (
                decisions.OwnershipGranted(owner=owner) | decisions.OwnershipAssigned(owner=owner)
            ) if effective <= as_of:
                state = Owned(owner, effective, None)
            case decisions.OwnershipReleased():
                if effective <= as_of:
                    state = Free(effective)
                elif isinstance(state, Owned) and state.until is None:
                    state = Owned(state.owner, state.since, effective)
            case _:
                pass
    return state


def _check_ownership(models: Models, history: History) -> None:
    admitted = {
        customer: state.owner
        for customer, state in history.settled.customers.items()
        if isinstance(state, Admitted)
    }
    listed = {each.customer: each.owner for each in list_ownership(models.connection)}
    assert listed == admitted


def _check_holdings(models: Models, history: History) -> None:
    held = {each.person: (each.held, each.held_won) for each in workloads(models.connection)}
    counted: dict[str, tuple[int, int]] = {}
    for state in history.settled.customers.values():
        if isinstance(state, Admitted) and state.owner is not None:
            all_held, won = counted.get(state.owner, (0, 0))
            counted[state.owner] = (all_held + 1, won + (state.won_deals > 0))
    assert {person: each for person, each in held.items() if each != (0, 0)} == counted


def _check_claims(models: Models, history: History) -> None:
    decided: dict[int | None, Event] = {}
    answered: dict[str, Any] = {}
    for event in history.events:
        decided.setdefault(event.causation, event)
        data = event.data
        if isinstance(data, decisions.OwnershipGranted | decisions.ApprovalClosed):
            answered.setdefault(data.approval or "", data)
    for event in history.events:
        if not isinstance(event.data, requests.ClaimFiled):
            continue
        claim = claim_at(models.connection, event.position)
        assert claim is not None
        decision = decided.get(event.position)
        match decision and decision.data:
            case decisions.ApprovalOpened(approval=approval):
                expected = {None: "awaiting", "withdrawn": "withdrawn", "granted": "granted"}
                ending = answered.get(approval)
                outcome = None if ending is None else getattr(ending, "outcome", "granted")
                assert claim.status == expected.get(outcome, "refused")
            case decisions.OwnershipGranted(customer=customer):
                assert (claim.status, claim.customer) == ("granted", customer)
            case decisions.ClaimRefused(reason=reason):
                assert (claim.status, claim.reason) == ("refused", reason)
            case _:
                assert claim.status == "pending"


def _check_stand_ins(models: Models, history: History) -> None:
    for customer, state in history.settled.customers.items():
        if isinstance(state, Admitted):
            row = standing_at(models.connection, customer, history.now)
            found = standing(state.stand_ins, history.now)
            assert (row and row.stand_in) == (found and found.stand_in)


def _check_as_of(models: Models, history: History, appended: Sequence[int]) -> None:
    """Compare with the slow walk at every moment at which something changed, and between."""
    effective = {event.effective for event in history.events if "effective" in event.envelope}
    moments = {START - timedelta(days=9), *effective}
    moments |= {each - timedelta(microseconds=1) for each in effective}
    for known in {*appended[-3:], history.position}:
        ((known_at,),) = models.rows(
            "SELECT recorded FROM ledger.events WHERE position = %s", known
        )
        for customer in CUSTOMERS:
            for as_of in moments:
                expected = _state(history, customer, as_of, known)
                assert owner_at(models.connection, customer, as_of, known_at) == expected


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(_steps, min_size=5, max_size=40),
    batch=st.integers(1, 25),
    chunk=st.integers(5, 60),
)
def test_incremental_is_rebuilt_is_what_was_decided(
    postgres: DatabaseServer, migrated_template: str, steps: list[Step], batch: int, chunk: int
) -> None:
    history = _history(steps)
    with (
        postgres.database(migrated_template) as urls,
        connected(urls.service_url) as connection,
    ):
        models = Models(urls, connection)
        appended = []
        while left := history.append(connection, limit=chunk):
            appended.append(history.position - left)
        models.project(history, batch=batch)
        assert models.parked() == []
        before = digests(connection, models.projections, LIVE)
        assert compare(models.connect, models.projections, catalogue()) == []
        models.rebuild()
        assert digests(connection, models.projections, LIVE) == before
        check_no_overlap(connection)
        _check_ownership(models, history)
        _check_holdings(models, history)
        _check_claims(models, history)
        _check_stand_ins(models, history)
        _check_as_of(models, history, appended)
