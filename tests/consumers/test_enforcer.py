"""The enforcer on the real database: every request is decided once, in the order of the log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from consumers.enforcer import EnforcerLimits, GuardsStaleError
from consumers.feed import Batch, StoreFeed
from ledger import commands
from ledger import organisation_commands as facts
from ledger.deadlines import CLOCK
from ledger.deciders import LATEST, DeciderMissingError
from ledger.envelope import Origin, request_body
from ledger.events import decisions, requests
from ledger.events.catalogue import UnknownEventError
from ledger.events.organisation import DeciderAdopted
from ledger.policy import Policy
from ledger.recording import Asked, Recorded
from ledger.store.appending import Append, NewEvent, RequestKey
from ledger.store.committer import CommitterThread
from tests.consumers.conftest import PEOPLE
from tests.consumers.support import (
    GUARD_LOCK,
    catch_up,
    check,
    customer_guard,
    enforcing,
    failing_at,
    grants,
    holding,
)
from tests.support.ledgers import TestLedger

NUMBER = [{"system": "uscc", "value": "91350100M000100Y43"}]


def adopt(ledger: TestLedger, holding_limit: int | None) -> None:
    """Put a policy in force that limits nothing but what somebody holds."""
    policy = Policy(daily_claim_limit=None, holding_limit=holding_limit)
    ledger.recording.record_fact(facts.AdoptPolicy(policy=policy), ledger.origin())


def requests_of_every_kind(ledger: TestLedger) -> None:
    """Record each kind of request, several of them to be refused."""
    head = ledger.register("集团", identifiers=NUMBER)
    customer = ledger.register("子公司", claim_for="per_1", parent=head)
    double = ledger.register("集团有限公司", identifiers=NUMBER, claim_for="per_2")
    ask = ledger.ask
    ask(commands.ChangeCustomer(customer=customer, attributes={"region": "华东"}), "per_1")
    ask(commands.ChangeCustomer(customer=head, parent=customer))
    ask(commands.FileClaim(customer=customer, claimant="per_3"), "per_3")
    ask(commands.AssignCustomer(customer=customer, assignee="per_3"))
    call = ask(commands.LogFollowUp(customer=customer, person="per_1", note="报价"), "per_1").made
    deal = ask(commands.RecordDeal(customer=customer, person="per_1", outcome="lost"), "per_1").made
    assert call is not None
    assert deal is not None
    now = datetime.now(UTC)
    ask(commands.CorrectFollowUp(customer=customer, follow_up=call, at=now), "per_1")
    ask(commands.VoidFollowUp(customer=customer, follow_up=call), "per_4")
    ask(commands.VoidFollowUp(customer=customer, follow_up=call), "per_1")
    ask(commands.CorrectDeal(customer=customer, deal=deal, outcome="won"), "per_1")
    ask(commands.ReleaseCustomer(customer=customer), "per_1")
    ask(commands.VoidDeal(customer=customer, deal=deal))
    ask(commands.AssignCustomer(customer=customer, assignee="per_5"))
    requests_about_transfers(ledger, customer)
    requests_about_collaborators(ledger, customer)
    requests_about_conflicts(ledger, customer)
    over = commands.ReachDeadline(
        customer=customer, kind="step_reminder", subject="trf_over", due=now
    )
    ledger.recording.record(Asked(over, Origin(CLOCK, "deadline:over", CLOCK)))
    ask(commands.ReviewGroup(customer=customer), "per_4")
    ask(commands.HoldRecycling(customer=customer, until=now.date()), "per_7")
    ask(commands.NameStandIn(customer=customer, person="per_2", until=now.date()), "per_7")
    ask(commands.EndStandIn(customer=customer, stand_in="sta_1"), "per_7")
    ask(commands.ReleaseCustomer(customer=double), "per_2")
    ask(commands.HandOver(giver="per_7", receivers=("per_9",), customers=(head, customer)))
    ask(commands.HandOver(giver="per_7", receivers=("per_9",)), "per_9")
    ask(commands.UnparkRequest(customer=customer, request=3, decider=1))


def requests_about_transfers(ledger: TestLedger, customer: str) -> None:
    """Have per_5's customer refused by one receiver, withdrawn, and accepted by another."""

    def transfer(receiver: str) -> str:
        asked = ledger.ask(commands.RequestTransfer(customer=customer, receiver=receiver), "per_5")
        assert asked.made is not None
        return asked.made

    def approve(approval: str, person: str) -> None:
        ledger.ask(commands.Approve(customer=customer, approval=approval), person)

    transfer("per_5")
    unwanted = transfer("per_6")
    approve(unwanted, "per_admin")
    ledger.ask(commands.Refuse(customer=customer, approval=unwanted), "per_6")
    approve(unwanted, "per_admin")
    withdrawn = transfer("per_6")
    ledger.ask(commands.WithdrawTransfer(customer=customer, approval=withdrawn), "per_5")
    wanted = transfer("per_7")
    approve(wanted, "per_admin")
    approve(wanted, "per_7")


def requests_about_collaborators(ledger: TestLedger, customer: str) -> None:
    """Let somebody collaborate with per_7, who owns the customer, and no longer."""
    asked = commands.RequestCollaboration(customer=customer, person="per_8")
    added = ledger.ask(asked, "per_7").made
    assert added is not None
    end = commands.EndCollaboration(customer=customer, collaboration=added)
    ledger.ask(end, "per_8")
    ledger.ask(end, "per_8")


def requests_about_conflicts(ledger: TestLedger, customer: str) -> None:
    """Have per_9 follow up twice where per_7 owns, and somebody rule on it."""
    call = commands.LogFollowUp(customer=customer, person="per_9")
    first = ledger.ask(call, "per_9").positions[0]
    ledger.ask(call, "per_9")
    ruling = commands.Rule(customer=customer, conflict=f"cft_{first}", ruling="keep")
    ledger.ask(ruling, "per_9")
    ledger.ask(ruling)


@pytest.mark.parametrize("batch", [1, 2, 7, 500])
def test_every_kind_of_request_gets_its_decision_once(ledger: TestLedger, batch: int) -> None:
    requests_of_every_kind(ledger)
    catch_up(ledger, limits=EnforcerLimits(batch_requests_max=batch))
    check(ledger)
    names = [event.name for event in ledger.log()]
    kinds = ledger.catalogue.request_names
    assert {name for name in names if name in kinds} == kinds
    decided = sorted(name for name in names if name in ledger.catalogue.decision_names)
    assert decided == sorted(
        [
            *["CustomerAdmitted.v1"] * 2,
            *["RegistrationRefused.v1", "CustomerChanged.v1", "ChangeRefused.v1"],
            *["OwnershipGranted.v1"] * 2,
            *["ClaimRefused.v1", "AssignmentRefused.v1", "OwnershipAssigned.v1"],
            *["OwnershipReleased.v1"] * 2,
            "CorrectionRefused.v1",
            *["Noted.v1"] * 10,
            *["ApprovalOpened.v1", "ApprovalClosed.v1"] * 3,
            *["StepOpened.v1", "StepAnswered.v1", "StepAnswered.v1"] * 2,
            *["TransferRefused.v1", "AnswerNotCounted.v1", "OwnershipTransferred.v1"],
            *["CollaboratorAdded.v1", "CollaborationsEnded.v1", "CollaborationRefused.v1"],
            # One of them by the claim of per_3, and gone with the release.
            *["ConflictOpened.v1", "ConflictClosed.v1"] * 2,
            *["ConflictEvidenceAdded.v1", "RulingRefused.v1", "RecycleHoldRefused.v1"],
            "GroupReviewRefused.v1",
            # One customer is protected, and one was not the giver's.
            *["HandOverLineRefused.v1"] * 2,
            *["HandOverCompleted.v1", "HandOverRefused.v1"],
            *["StandInRefused.v1"] * 2,
        ]
    )


def test_the_enforcer_goes_over_what_needs_no_decision(ledger: TestLedger) -> None:
    ledger.register("苏州恒信电子有限公司")
    with enforcing(ledger) as enforcer:
        enforcer.catch_up()
        assert enforcer.position == len(ledger.log())
        assert enforcer.run_once() == 0


def test_of_fifty_people_at_the_same_instant_the_first_in_the_log_gets_it(
    ledger: TestLedger,
) -> None:
    """They come through five processes' committers, and nothing was decided of the customer yet:
    there is no guard row of it, nor of anybody.
    """
    customer = ledger.register("苏州恒信电子有限公司")
    barrier = threading.Barrier(len(PEOPLE))

    def claim(person: str, committer: CommitterThread) -> None:
        origin = Origin("tests", f"claim of {person}", person)
        data = requests.ClaimFiled(customer, person)
        body = request_body(ledger.catalogue, origin, 0, data)
        new = NewEvent(f"customer-{customer}", "ClaimFiled.v1", body)
        key = RequestKey(origin.caller, origin.request_id, b"")
        barrier.wait(30)
        committer.append(Append((new,), key))

    with ExitStack() as stack:
        committers = [
            stack.enter_context(CommitterThread(ledger.urls.service_url)) for _ in range(5)
        ]
        threads = [
            threading.Thread(target=claim, args=(person, committers[number % len(committers)]))
            for number, person in enumerate(PEOPLE)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ledger.decide()
    log = ledger.log()
    claims = [event for event in log if event.name == "ClaimFiled.v1"]
    assert len(claims) == len(PEOPLE)
    (granted,) = (event for event in log if event.name == "OwnershipGranted.v1")
    assert granted.causation == claims[0].position
    refused = [event.data for event in log if event.name == "ClaimRefused.v1"]
    assert {each.reason for each in refused} == {"owned_by_another"}
    check(ledger)


class MeetingFeed(StoreFeed):
    """Lets two enforcers read a first batch, and begin with it, together."""

    def __init__(self) -> None:
        super().__init__()
        self._met = threading.Barrier(2)

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        batch = super().read(connection, after, limit)
        if after == 0:
            self._met.wait(30)
        return batch


@pytest.mark.parametrize("attempt", range(3))
def test_two_that_do_not_know_of_each_other_race_for_a_first_claim_and_one_decides(
    ledger: TestLedger, attempt: int
) -> None:
    """A lock on a row that does not exist locks nothing: so the guards are made before they are
    locked. Each of the two has a progress of its own here, so that nothing else keeps them apart.
    """
    customers = [ledger.register(f"客户{number}", claim_for="per_1") for number in range(5)]
    ledger.claim(customers[0], "per_2")
    meeting = MeetingFeed()
    failures: list[Exception] = []

    def enforce(consumer: str) -> None:
        try:
            catch_up(ledger, feed=meeting, consumer=consumer)
        except GuardsStaleError as error:
            failures.append(error)

    threads = [threading.Thread(target=enforce, args=(f"enforcer-{n}",)) for n in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The other finds in the log what its own progress does not know of.
    assert len(failures) == 1
    assert grants(ledger) == dict.fromkeys(customers, 1)
    check(ledger)


class PartFeed(StoreFeed):
    """Every second customer: what an enforcer sees that decides a part of the customers."""

    def __init__(self, part: int) -> None:
        super().__init__()
        self._part = part

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        batch = super().read(connection, after, limit)
        mine = [each for each in batch.requests if each.stream.encode()[-1] % 2 == self._part]
        return Batch(mine, batch.reached)


def test_two_that_share_people_and_no_customers_never_wait_for_each_other_in_a_circle(
    ledger: TestLedger, caplog: pytest.LogCaptureFixture
) -> None:
    """All guards are made and locked in the order of their keys. The holding limit is kept over
    both: the order of the decisions tells who got the last place.
    """
    adopt(ledger, 20)
    customers = [ledger.register(f"客户{number}") for number in range(120)]
    people = PEOPLE[:4]
    for number, customer in enumerate(customers):
        ledger.claim(customer, people[number % 4])
        ledger.claim(customer, people[(number + 1) % 4])
    caplog.set_level(logging.INFO)
    limits = EnforcerLimits(batch_requests_max=9)

    def enforce(part: int) -> None:
        catch_up(ledger, feed=PartFeed(part), consumer=f"enforcer-{part}", limits=limits)

    threads = [threading.Thread(target=enforce, args=(part,)) for part in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "40P01" not in caplog.text
    assert sum(grants(ledger).values()) == 80
    check(ledger)


def test_a_claim_that_comes_with_a_duplicate_is_decided_on_the_existing_customer(
    ledger: TestLedger,
) -> None:
    """Nothing in the claim names that customer: it is found missing, and the larger set locked."""
    existing = ledger.register("福州鼎盛物流有限公司", identifiers=NUMBER)
    fields = {"name": "鼎盛物流", "identifiers": NUMBER, "claim_for": "per_1"}
    double = ledger.ask(commands.parse(commands.RegisterCustomer, fields), "per_1")
    ledger.decide()
    refused, granted = ledger.decisions(double)
    assert isinstance(refused.data, decisions.RegistrationRefused)
    assert refused.data.existing == existing
    assert isinstance(granted.data, decisions.OwnershipGranted)
    assert (granted.data.customer, granted.stream) == (existing, f"ownership-{existing}")
    check(ledger)


def test_what_was_recorded_before_a_policy_is_decided_by_the_one_before_it(
    ledger: TestLedger,
) -> None:
    """All three are decided in one batch, after all of it was recorded."""
    customers = [ledger.register(f"客户{number}") for number in range(3)]
    first = ledger.claim(customers[0], "per_1")
    adopt(ledger, 1)
    second = ledger.claim(customers[1], "per_1")
    adopt(ledger, None)
    third = ledger.claim(customers[2], "per_1")
    ledger.decide()
    names = [ledger.decisions(each)[0].name for each in (first, second, third)]
    assert names == ["OwnershipGranted.v1", "ClaimRefused.v1", "OwnershipGranted.v1"]
    check(ledger)


class TestWhatIsTooNew:
    """An enforcer that is too old stops, after it has decided what it can."""

    def test_a_version_of_the_decider_that_it_lacks(self, ledger: TestLedger) -> None:
        customer = ledger.register("苏州恒信电子有限公司")
        before = ledger.claim(customer, "per_1")
        # What a newer guishu records.
        body = request_body(ledger.catalogue, ledger.origin(), 0, DeciderAdopted(LATEST + 1))
        ledger.committer.append(Append((NewEvent("organisation", "DeciderAdopted.v1", body),)))
        behind = ledger.claim(customer, "per_2")
        for _ in range(2):
            with enforcing(ledger) as enforcer, pytest.raises(DeciderMissingError):
                enforcer.catch_up()
            assert len(ledger.decisions(before)) == 1
            assert ledger.decisions(behind) == []
        newer = {1: failing_at(), LATEST + 1: failing_at()}
        catch_up(ledger, versions=newer)
        assert ledger.decisions(behind)[0].envelope["decider"] == LATEST + 1
        check(ledger, newer)

    def test_a_kind_of_request_that_it_does_not_know(self, ledger: TestLedger) -> None:
        customer = ledger.register("苏州恒信电子有限公司")
        before = ledger.claim(customer, "per_1")
        new = NewEvent(f"customer-{customer}", "Unheard.v1", b'{"data":{}}')
        ledger.committer.append(Append((new,)))
        with enforcing(ledger) as enforcer, pytest.raises(UnknownEventError):
            enforcer.catch_up()
        assert len(ledger.decisions(before)) == 1
        assert enforcer.position == before.positions[0]


class TestLocksOfOthers:
    """Somebody holds a guard for longer than the enforcer waits."""

    LIMITS = EnforcerLimits(lock_timeout_ms=20)

    def test_what_stands_in_front_is_decided_and_the_rest_when_the_lock_is_free(
        self, ledger: TestLedger
    ) -> None:
        customers = [ledger.register(f"客户{number}") for number in range(8)]
        ledger.decide()
        claims = [ledger.claim(customer, "per_1") for customer in customers]
        with (
            holding(ledger.urls, GUARD_LOCK, customer_guard(customers[5])),
            enforcing(ledger, limits=self.LIMITS) as enforcer,
            pytest.raises(psycopg.errors.LockNotAvailable),
        ):
            enforcer.catch_up()
        assert self.decided(ledger, claims) == [True] * 5 + [False] * 3
        ledger.decide()
        assert self.decided(ledger, claims) == [True] * 8
        check(ledger)

    def decided(self, ledger: TestLedger, claims: Sequence[Recorded]) -> list[bool]:
        return [bool(ledger.decisions(claim)) for claim in claims]

    def test_a_lock_that_comes_free_in_time_is_only_waited_for(
        self, ledger: TestLedger, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It comes free before the next try: how soon a busy machine gets there says nothing."""
        customers = [ledger.register(f"客户{number}") for number in range(3)]
        ledger.decide()
        for customer in customers:
            ledger.claim(customer, "per_1")
        caplog.set_level(logging.INFO, "consumers")
        with psycopg.connect(ledger.urls.superuser_url) as holder:
            holder.execute(GUARD_LOCK.encode(), (customer_guard(customers[1]),))

            class Freeing(logging.Handler):
                def emit(self, record: logging.LogRecord) -> None:
                    holder.rollback()

            logger, freeing = logging.getLogger("consumers.enforcer"), Freeing()
            logger.addHandler(freeing)
            try:
                catch_up(ledger, limits=self.LIMITS)
            finally:
                logger.removeHandler(freeing)
        assert "55P03" in caplog.text
        assert grants(ledger) == dict.fromkeys(customers, 1)
        check(ledger)
