"""What cannot be decided is parked by an event: its customer waits, and the others go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumers import parking
from consumers.enforcer import EnforcerLimits
from ledger import commands
from ledger.deciders import Decider, deciders
from ledger.deciders.drafts import Draft
from ledger.envelope import Event, decode, request_body
from ledger.events.decisions import ClaimRefused, OwnershipGranted, RequestParked
from ledger.events.requests import RequestUnparked
from ledger.organisation import OrganisationAt
from ledger.recording import Recorded
from ledger.settled import Settled
from ledger.store.appending import Append, NewEvent
from ledger.store.reading import read_stream
from ledger.verification import verify_log
from tests.consumers.support import catch_up, check, enforcing, failing_at, grants
from tests.support.ledgers import TestLedger

NUMBER = [{"system": "uscc", "value": "91350100M000100Y43"}]


def unpark(ledger: TestLedger, customer: str, position: int, decider: int = 1) -> Recorded:
    command = commands.UnparkRequest(customer=customer, request=position, decider=decider)
    return ledger.ask(command)


def waiting(ledger: TestLedger, customer: str) -> list[tuple[int, str | None]]:
    """Return the parked requests of a customer, and their errors."""
    rows = parking.rows_of(ledger.connection, customer, 1_000)
    return [(row.position, row.error) for row in rows]


def owner_of(ledger: TestLedger, recorded: Recorded) -> str:
    (decision,) = ledger.decisions(recorded)
    owner: str = decision.data.owner
    return owner


class Parked:
    """A customer whose first claim cannot be decided, and one that has nothing to do with it."""

    def __init__(self, ledger: TestLedger) -> None:
        self.bad, self.good = ledger.register("坏客户"), ledger.register("好客户")
        self.first = ledger.claim(self.bad, "per_1")
        self.behind = ledger.claim(self.bad, "per_2")
        self.other = ledger.claim(self.good, "per_3")
        self.position = self.first.positions[0]
        self.defective = {1: failing_at(self.position)}


def test_the_customer_waits_and_the_others_go_on(ledger: TestLedger) -> None:
    parked = Parked(ledger)
    catch_up(ledger, versions=parked.defective)
    assert owner_of(ledger, parked.other) == "per_3"
    assert waiting(ledger, parked.bad) == [
        (parked.position, "ZeroDivisionError: the words of a defect"),
        (parked.behind.positions[0], None),
    ]
    (event,) = (each for each in ledger.log() if isinstance(each.data, RequestParked))
    assert event.stream == f"ownership-{parked.bad}"
    # The words may be those of the request, and these are for nobody's eyes.
    assert event.data == RequestParked(parked.bad, parked.position, "ZeroDivisionError")
    report = verify_log(ledger.connection, ledger.catalogue)
    assert report.good
    assert report.parked == {parked.position: "ZeroDivisionError"}
    assert report.undecided == [parked.position, parked.behind.positions[0]]


@pytest.mark.parametrize("others", [1, 60])
def test_what_no_event_can_hold_is_parked_and_the_others_go_on(
    ledger: TestLedger, others: int
) -> None:
    """It shows only when the batch is being written, of a large one beside the guards."""
    right, bad = deciders()[1], ledger.register("坏客户")
    position = ledger.claim(bad, "per_1").positions[0]
    good = [ledger.register(f"客户{number}", claim_for="per_1") for number in range(others)]

    def decide(settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
        draft = right(settled, request, organisation)
        if request.position != position:
            return draft
        return replace(draft, data=ClaimRefused(bad, "per_1", "x" * 70_000))

    catch_up(ledger, versions={1: decide})
    assert grants(ledger) == dict.fromkeys(good, 1)
    ((parked, error),) = waiting(ledger, bad)
    assert (parked, (error or "").split(":")[0]) == (position, "EntryTooLargeError")
    report = verify_log(ledger.connection, ledger.catalogue)
    assert report.good
    assert report.undecided == [position]


@pytest.mark.parametrize("batch", [1, 2, 500])
def test_what_is_set_free_is_decided_and_then_what_waited_in_its_order(
    ledger: TestLedger, batch: int
) -> None:
    parked = Parked(ledger)
    limits = EnforcerLimits(batch_requests_max=batch)
    catch_up(ledger, versions=parked.defective, limits=limits)
    late = ledger.ask(commands.ReleaseCustomer(customer=parked.bad), "per_1")
    catch_up(ledger, versions=parked.defective, limits=limits)
    freed = unpark(ledger, parked.bad, parked.position)
    later = ledger.claim(parked.bad, "per_4")
    catch_up(ledger, limits=limits)
    decided = [ledger.decisions(each)[0] for each in (parked.first, parked.behind, late, freed)]
    assert [each.name for each in decided] == [
        "OwnershipGranted.v1",
        "ClaimRefused.v1",
        "OwnershipReleased.v1",
        "Noted.v1",
    ]
    assert [each.position for each in decided] == sorted(each.position for each in decided)
    assert owner_of(ledger, later) == "per_4"
    assert waiting(ledger, parked.bad) == []
    check(ledger)


def test_the_version_that_was_named_decides_it_and_the_one_in_force_what_waited(
    ledger: TestLedger,
) -> None:
    parked = Parked(ledger)
    versions = {**parked.defective, 2: deciders()[1]}
    catch_up(ledger, versions=versions)
    # Only a guishu that has this version of the decider records it.
    data = RequestUnparked(parked.bad, parked.position, 2)
    body = request_body(ledger.catalogue, ledger.origin(), 0, data)
    new = NewEvent(f"customer-{parked.bad}", "RequestUnparked.v1", body)
    ledger.committer.append(Append((new,)))
    catch_up(ledger, versions=versions)
    (first,), (behind, _) = ledger.decisions(parked.first), ledger.decisions(parked.behind)
    assert (first.data.owner, first.envelope["decider"]) == ("per_1", 2)
    assert (behind.data.reason, behind.envelope["decider"]) == ("owned_by_another", 1)
    check(ledger, {1: deciders()[1], 2: deciders()[1]})


def test_one_that_still_cannot_be_decided_is_parked_again(ledger: TestLedger) -> None:
    parked = Parked(ledger)
    catch_up(ledger, versions=parked.defective)
    unpark(ledger, parked.bad, parked.position)
    catch_up(ledger, versions=parked.defective)
    assert [position for position, _ in waiting(ledger, parked.bad)] == [
        parked.position,
        parked.behind.positions[0],
    ]
    unpark(ledger, parked.bad, parked.position)
    ledger.decide()
    assert owner_of(ledger, parked.first) == "per_1"
    check(ledger)


def test_what_waited_may_turn_out_to_be_undecidable_too(ledger: TestLedger) -> None:
    parked = Parked(ledger)
    last = ledger.claim(parked.bad, "per_4")
    behind = parked.behind.positions[0]
    catch_up(ledger, versions={1: failing_at(parked.position, behind)})
    unpark(ledger, parked.bad, parked.position)
    catch_up(ledger, versions={1: failing_at(behind)})
    assert owner_of(ledger, parked.first) == "per_1"
    assert [position for position, error in waiting(ledger, parked.bad) if error] == [behind]
    assert ledger.decisions(last) == []
    unpark(ledger, parked.bad, behind)
    ledger.decide()
    check(ledger)


def test_an_unparking_of_something_else_sets_nothing_free(ledger: TestLedger) -> None:
    parked = Parked(ledger)
    catch_up(ledger, versions=parked.defective)
    for position in (parked.behind.positions[0], parked.other.positions[0], 1, 10_000):
        freed = unpark(ledger, parked.bad, position)
        ledger.decide()
        assert [each.name for each in ledger.decisions(freed)] == ["Noted.v1"]
    assert len(waiting(ledger, parked.bad)) == 2
    assert ledger.decisions(parked.first) == []


def test_an_unparking_in_the_same_batch_as_what_it_sets_free(ledger: TestLedger) -> None:
    """The parked request was not in its table yet when the unparking looked there, so what waited
    was decided in front of it.
    """
    parked = Parked(ledger)
    unpark(ledger, parked.bad, parked.position)
    later = ledger.claim(parked.bad, "per_4")
    catch_up(ledger, versions={1: failing_once(parked.position)})
    assert owner_of(ledger, parked.first) == "per_1"
    assert ledger.decisions(later)[0].data.reason == "owned_by_another"
    assert waiting(ledger, parked.bad) == []
    check(ledger)


def failing_once(position: int) -> Decider:
    """Return the decider in force, which cannot decide a request the first time."""
    right = deciders()[1]
    failures = [ZeroDivisionError()]

    def decide(settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
        if request.position == position and failures:
            raise failures.pop()
        return right(settled, request, organisation)

    return decide


class Ended(BaseException):
    """The process ends."""


def ending_at(position: int) -> Decider:
    """Return the decider in force; the process ends as it comes to a position."""
    right = deciders()[1]

    def decide(settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
        if request.position == position:
            raise Ended
        return right(settled, request, organisation)

    return decide


def test_more_may_wait_than_one_transaction_takes_and_it_may_end_in_the_middle(
    ledger: TestLedger,
) -> None:
    """Everything that waits was decided in one transaction, and 10,001 would never have been."""
    parked = Parked(ledger)
    claims = [ledger.claim(parked.bad, f"per_{number}") for number in range(20)]
    limits = EnforcerLimits(batch_requests_max=3)
    catch_up(ledger, versions=parked.defective, limits=limits)
    freed = unpark(ledger, parked.bad, parked.position)
    with (
        enforcing(ledger, versions={1: ending_at(claims[9].positions[0])}, limits=limits) as dying,
        pytest.raises(Ended),
    ):
        dying.catch_up()
    assert owner_of(ledger, parked.first) == "per_1"
    assert 0 < len(waiting(ledger, parked.bad)) < 15
    assert ledger.decisions(freed) == []
    # Whoever starts next brings it to its end first, and the unparking finds nothing left to do.
    with enforcing(ledger, limits=limits) as enforcer:
        assert waiting(ledger, parked.bad) == []
        enforcer.catch_up()
    assert len(ledger.decisions(freed)) == 1
    check(ledger)


def test_a_duplicate_of_a_customer_that_waits_waits_too(ledger: TestLedger) -> None:
    """A claim on it would be decided on the very customer that has to wait."""
    existing = ledger.register("福州鼎盛物流有限公司", identifiers=NUMBER)
    double = ledger.register("鼎盛物流", identifiers=NUMBER)
    ledger.decide()
    first = ledger.claim(existing, "per_1")
    second = ledger.claim(double, "per_2")
    catch_up(ledger, versions={1: failing_at(first.positions[0])})
    assert [position for position, _ in waiting(ledger, existing)] == [
        first.positions[0],
        second.positions[0],
    ]
    assert ledger.decisions(second) == []
    unpark(ledger, existing, first.positions[0])
    ledger.decide()
    assert owner_of(ledger, first) == "per_1"
    assert ledger.decisions(second)[0].data.reason == "owned_by_another"
    check(ledger)


def test_the_claim_on_a_duplicate_that_cannot_be_decided_makes_the_existing_one_wait(
    ledger: TestLedger,
) -> None:
    existing = ledger.register("福州鼎盛物流有限公司", identifiers=NUMBER)
    double = ledger.register("鼎盛物流", identifiers=NUMBER)
    first, second = ledger.claim(double, "per_1"), ledger.claim(existing, "per_2")
    catch_up(ledger, versions={1: failing_at(first.positions[0])})
    assert len(waiting(ledger, existing)) == 2
    unpark(ledger, existing, first.positions[0])
    ledger.decide()
    assert owner_of(ledger, first) == "per_1"
    assert ledger.decisions(second)[0].data.reason == "owned_by_another"
    check(ledger)


def test_what_waited_behind_a_parked_registration_moves_to_the_customer_that_exists(
    ledger: TestLedger,
) -> None:
    """Both wait, each for a request of its own; the one turns out to be the other."""
    existing = ledger.register("福州鼎盛物流有限公司", identifiers=NUMBER)
    ledger.decide()
    fields = {"name": "鼎盛物流", "identifiers": NUMBER, "claim_for": "per_1"}
    double = ledger.ask(commands.parse(commands.RegisterCustomer, fields))
    registration, _ = double.positions
    claim = ledger.claim(existing, "per_2")
    catch_up(ledger, versions={1: failing_at(registration, claim.positions[0])})
    unpark(ledger, double.customer, registration)
    ledger.decide()
    assert waiting(ledger, double.customer) == []
    assert len(waiting(ledger, existing)) == 2
    report = verify_log(ledger.connection, ledger.catalogue)
    assert report.good, list(report.lines())
    unpark(ledger, existing, claim.positions[0])
    ledger.decide()
    assert [each.name for each in ledger.decisions(double)] == [
        "RegistrationRefused.v1",
        "OwnershipGranted.v1",
    ]
    assert ledger.decisions(claim)[0].data.reason == "owned_by_another"
    check(ledger)


def test_a_decision_that_the_state_cannot_take_leaves_nothing_half_changed(
    ledger: TestLedger,
) -> None:
    """The claimant's grants of the day had been counted before the owner was found to be there."""
    customer, other = ledger.register("苏州恒信电子有限公司"), ledger.register("另一个")
    ledger.claim(customer, "per_1")
    second = ledger.claim(customer, "per_2")
    third = ledger.claim(other, "per_2")
    right = deciders()[1]

    def granting(settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
        draft = right(settled, request, organisation)
        if request.position != second.positions[0]:
            return draft
        return Draft(OwnershipGranted(customer, "per_2"), draft.effective, draft.policy, {})

    catch_up(ledger, versions={1: granting})
    assert [error for _, error in waiting(ledger, customer)] == [
        f"AssertionError: {customer} would have two owners"
    ]
    assert ledger.decisions(third)[0].envelope["guards"]["grants"] == 0
    unpark(ledger, customer, second.positions[0])
    ledger.decide()
    assert grants(ledger) == {customer: 1, other: 1}
    check(ledger)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("ClaimFiled.v1", b"{}"),
        ("ClaimFiled.v1", b"no json"),
        ("ClaimFiled.v1", b'{"data":{"claimant":7,"customer":"cus_x"}}'),
        ("ClaimFiled.v1", b'{"data":{"claimant":"per_1","customer":"cus_another"}}'),
        ("PersonLeft.v1", b'{"data":{"left_on":"2026-03-01","person":"per_1"}}'),
        ("Noted.v1", b'{"data":{"customer":"cus_x"}}'),
    ],
)
def test_what_cannot_even_be_read_is_parked(ledger: TestLedger, name: str, body: bytes) -> None:
    """One bad row in the log must not stop the decisions on all others."""
    customer = ledger.register("苏州恒信电子有限公司")
    (bad,) = ledger.committer.append(Append((NewEvent("customer-cus_x", name, body),))).positions
    claim = ledger.claim(customer, "per_1")
    ledger.decide()
    assert owner_of(ledger, claim) == "per_1"
    ((position, error),) = waiting(ledger, "cus_x")
    assert position == bad
    assert error is not None
    (event,) = read_stream(ledger.connection, "ownership-cus_x")
    assert decode(ledger.catalogue, event).data.request == bad


def test_lack_of_memory_is_not_the_fault_of_a_request(ledger: TestLedger) -> None:
    parked = Parked(ledger)

    def starving(settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
        raise MemoryError

    with enforcing(ledger, versions={1: starving}) as enforcer, pytest.raises(MemoryError):
        enforcer.catch_up()
    ledger.decide()
    assert owner_of(ledger, parked.first) == "per_1"
    check(ledger)
