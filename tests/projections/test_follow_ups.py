"""Follow-ups: given requests and decisions, then what stands."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from ledger.events import requests
from ledger.events.catalogue import catalogue
from ledger.events.values import ForeignId, Identifier
from projections import follow_ups
from projections.follow_ups import FollowUp, FollowUps
from projections.rebuild import compare
from tests.projections.failing import FailsOnce
from tests.projections.history import History, OpenUnsealer
from tests.projections.models import Models

DAY = date(2026, 3, 1)


@pytest.fixture
def models(models: Models) -> Models:
    """Only the read model of follow-ups."""
    models.projections = [FollowUps(OpenUnsealer())]
    return models


def staffed() -> History:
    """Return a history with two people and a customer that per_1 owns."""
    history = History().found()
    history.join("per_1")
    history.join("per_2")
    history.register("cus_1")
    history.claim("cus_1", "per_1")
    return history


def shown(models: Models, follow_up: str) -> FollowUp:
    """Return a follow-up that must be there."""
    found = follow_ups.follow_up(models.connection, follow_up)
    assert found is not None
    return found


def log(
    history: History,
    follow_up: str,
    person: str = "per_1",
    *,
    customer: str = "cus_1",
    next_on: date | None = None,
    at: datetime | None = None,
    contact: str | None = None,
) -> None:
    """Log a follow-up by a person, and decide."""
    logged = requests.FollowUpLogged(
        customer,
        follow_up,
        person,
        "call",
        history.seal(customer, "note", f"note of {follow_up}"),
        None,
        next_on,
        contact,
        foreign_ids=(ForeignId("crm", follow_up),),
    )
    history.ask(logged, actor=person, occurred=at)


def test_a_follow_up_is_shown_at_once_and_judged_when_decided(models: Models) -> None:
    history = staffed()
    at = datetime(2026, 1, 4, 8, tzinfo=UTC)
    request = history.request(
        requests.FollowUpLogged(
            "cus_1",
            "fol_1",
            "per_1",
            "visit",
            history.seal("cus_1", "note", "谈了价格"),
            history.seal("cus_1", "agreed", "下周再来"),
            DAY,
            "con_1",
            "sit_1",
            (ForeignId("crm", "7"),),
        ),
        actor="per_2",
        occurred=at,
    )
    models.project(history)
    undecided = shown(models, "fol_1")
    assert undecided == FollowUp(
        "fol_1",
        request,
        "cus_1",
        "per_1",
        "per_2",
        at,
        undecided.recorded,
        "visit",
        "谈了价格",
        "下周再来",
        DAY,
        "con_1",
        "sit_1",
        (ForeignId("crm", "7"),),
        None,
        None,
        0,
        None,
        None,
    )
    assert undecided.by_owner is None
    decision = history.decide(request)
    models.project(history)
    assert shown(models, "fol_1").decided_position == decision
    assert shown(models, "fol_1").by_owner is True


def test_the_remark_tells_whose_follow_up_it_was(models: Models) -> None:
    history = staffed()
    log(history, "fol_mine", "per_1")
    log(history, "fol_other", "per_2")
    log(history, "fol_nowhere", "per_1", customer="cus_never")
    log(history, "fol_whom", "per_1", contact="con_never")
    models.project(history)
    assert shown(models, "fol_mine").by_owner is True
    assert shown(models, "fol_whom").by_owner is True
    assert shown(models, "fol_whom").remark == "contact_unknown"
    assert shown(models, "fol_other").by_owner is False
    assert shown(models, "fol_other").remark == "follow_up_by_non_owner"
    assert shown(models, "fol_nowhere").by_owner is None
    assert shown(models, "fol_nowhere").remark == "customer_not_admitted"


def test_a_correction_holds_once_it_is_noted_and_keeps_what_it_does_not_say(
    models: Models,
) -> None:
    history = staffed()
    log(history, "fol_1", next_on=DAY)
    corrected_at = datetime(2026, 1, 3, tzinfo=UTC)
    correction = history.request(
        requests.FollowUpCorrected(
            "cus_1",
            "fol_1",
            "typo",
            history.seal("cus_1", "reason", "写错了"),
            "visit",
            agreed=history.seal("cus_1", "agreed", "已约"),
            at=corrected_at,
        ),
        actor="per_1",
    )
    models.project(history)
    before = shown(models, "fol_1")
    assert (before.channel, before.agreed, before.corrections) == ("call", None, 0)
    history.decide(correction)
    models.project(history)
    after = shown(models, "fol_1")
    assert (after.channel, after.note, after.agreed) == ("visit", "note of fol_1", "已约")
    assert (after.next_on, after.at, after.corrections) == (DAY, corrected_at, 1)
    assert models.rows("SELECT * FROM follow_up_corrections") == []


def test_what_is_refused_changes_nothing(models: Models) -> None:
    history = staffed()
    log(history, "fol_1")
    refused = requests.FollowUpCorrected("cus_1", "fol_1", "typo", channel="visit")
    history.ask(refused, actor="per_2")
    history.ask(requests.FollowUpVoided("cus_1", "fol_1", "twice"), actor="per_2")
    models.project(history)
    unchanged = shown(models, "fol_1")
    assert (unchanged.channel, unchanged.corrections, unchanged.stands) == ("call", 0, True)
    assert models.rows("SELECT * FROM follow_up_corrections") == []


def test_a_voided_follow_up_is_marked_and_stays_as_it_was(models: Models) -> None:
    history = staffed()
    log(history, "fol_1")
    voiding = history.ask(requests.FollowUpVoided("cus_1", "fol_1", "twice"), actor="per_1")
    history.ask(
        requests.FollowUpCorrected("cus_1", "fol_1", "typo", channel="visit"), actor="per_1"
    )
    models.project(history)
    voided = shown(models, "fol_1")
    assert not voided.stands
    assert (voided.voided_position, voided.void_code) == (
        history.decision(voiding).position,
        "twice",
    )
    assert voided.channel == "call", "what is voided is not corrected any more"


def test_a_duplicate_s_follow_up_is_shown_where_it_was_decided(models: Models) -> None:
    history = staffed()
    history.register("cus_2", uscc="X1")
    history.ask(
        requests.RegistrationRequested(
            "cus_3", "organisation", "又一次", (Identifier("uscc", "X1"),)
        )
    )
    log(history, "fol_1", customer="cus_3")
    models.project(history)
    assert shown(models, "fol_1").customer == "cus_2"
    listed = follow_ups.of_customer(models.connection, "cus_2")
    assert [each.follow_up for each in listed] == ["fol_1"]


def test_an_id_that_comes_again_changes_nothing(models: Models) -> None:
    history = staffed()
    log(history, "fol_1")
    history.register("cus_2")
    log(history, "fol_1", "per_2", customer="cus_2")
    models.project(history)
    assert (shown(models, "fol_1").customer, shown(models, "fol_1").person) == ("cus_1", "per_1")


def test_the_last_that_stands_is_found_by_when_it_happened(models: Models) -> None:
    history = staffed()
    noon = datetime(2026, 1, 4, 12, tzinfo=UTC)
    log(history, "fol_late", at=noon)
    log(history, "fol_early", at=noon - timedelta(days=1))
    log(history, "fol_void", at=noon + timedelta(hours=1))
    history.ask(requests.FollowUpVoided("cus_1", "fol_void", "twice"), actor="per_1")
    history.register("cus_2")
    models.project(history)
    last = follow_ups.last_standing(models.connection, ["cus_1", "cus_2"])
    assert {customer: each.follow_up for customer, each in last.items()} == {"cus_1": "fol_late"}


def test_a_date_is_due_until_a_later_follow_up_settles_it(models: Models) -> None:
    history = staffed()
    for number in (2, 3, 4):
        history.register(f"cus_{number}")
    log(history, "fol_1", next_on=DAY)
    log(history, "fol_2", "per_2", customer="cus_2", next_on=DAY - timedelta(days=3))
    log(history, "fol_3", customer="cus_3", next_on=DAY + timedelta(days=1))
    log(history, "fol_4", customer="cus_4", next_on=DAY - timedelta(days=9))
    history.later(hours=1)
    log(history, "fol_5", customer="cus_4")
    models.project(history)

    def due(person: str | None = None) -> list[str]:
        listed = follow_ups.due(models.connection, DAY, person=person)
        return [each.follow_up for each in listed]

    assert due() == ["fol_2", "fol_1"]
    assert due("per_1") == ["fol_1"]
    # The one that had settled it never happened: the date is open again.
    history.ask(requests.FollowUpVoided("cus_4", "fol_5", "twice"), actor="per_1")
    models.project(history)
    assert due() == ["fol_4", "fol_2", "fol_1"]


def test_a_person_s_follow_ups_are_paged(models: Models) -> None:
    history = staffed()
    for number in range(5):
        log(history, f"fol_{number}")
    log(history, "fol_other", "per_2")
    models.project(history)
    first = follow_ups.of_person(models.connection, "per_1", limit=3)
    rest = follow_ups.of_person(models.connection, "per_1", after=first[-1].position)
    assert [each.follow_up for each in [*first, *rest]] == [f"fol_{n}" for n in range(5)]


def test_erased_text_is_none(models: Models) -> None:
    history = staffed()
    log(history, "fol_1")
    history.ask(
        requests.FollowUpCorrected(
            "cus_1", "fol_1", "typo", agreed=history.seal("con_1", "agreed", "已约")
        ),
        actor="per_1",
    )
    models.projections = [FollowUps(OpenUnsealer(["key_cus_1"]))]
    models.project(history)
    assert (shown(models, "fol_1").note, shown(models, "fol_1").agreed) == (None, "已约")


def shuffled(chance: random.Random) -> History:
    """Return a history whose acts are asked, corrected, voided and decided in any legal order.

    A customer's requests are decided in their order; how they lie between those of others, and
    how far deciding lags behind, is left to chance.
    """
    history = staffed()
    undecided: dict[str, list[int]] = {}
    for number in range(12):
        history.register(f"cus_{number}x")
    for step in range(300):
        customer = f"cus_{chance.randrange(12)}x"
        act = f"fol_{customer}_{chance.randrange(3)}"
        actor = chance.choice(["per_1", "per_2"])
        match chance.randrange(6):
            case 0:
                asked: requests.Request = requests.FollowUpLogged(customer, act, actor, "call")
            case 1 | 2:
                channel = chance.choice([None, f"visit{step}"])
                next_on = chance.choice([None, DAY + timedelta(days=step)])
                asked = requests.FollowUpCorrected(
                    customer, act, "typo", channel=channel, next_on=next_on
                )
            case 3:
                asked = requests.FollowUpVoided(customer, act, f"void{step}")
            case _:
                waiting = undecided.get(customer)
                if waiting:
                    history.decide(waiting.pop(0))
                continue
        undecided.setdefault(customer, []).append(history.request(asked, actor=actor))
    for waiting in undecided.values():
        for request in waiting:
            history.decide(request)
    return history


@pytest.mark.parametrize(("seed", "batch"), [(1, 1), (2, 7), (3, 60), (4, 2_000)])
def test_corrections_in_any_legal_order_come_out_as_they_were_decided(
    models: Models, seed: int, batch: int
) -> None:
    history = shuffled(random.Random(seed))  # noqa: S311 - a test is to come out the same
    models.project(history, batch=batch)
    assert models.parked() == []
    expected: dict[str, tuple[Any, ...]] = {}
    for event in history.events:
        if event.name != "Noted.v1" or event.causation is None:
            continue
        asked = history.event(event.causation).data
        match asked:
            case requests.FollowUpLogged():
                expected.setdefault(asked.follow_up, (asked.channel, asked.next_on, 0, None))
            case requests.FollowUpCorrected():
                channel, next_on, count, void = expected[asked.follow_up]
                expected[asked.follow_up] = (
                    asked.channel or channel,
                    asked.next_on or next_on,
                    count + 1,
                    void,
                )
            case requests.FollowUpVoided():
                channel, next_on, count, _ = expected[asked.follow_up]
                expected[asked.follow_up] = (channel, next_on, count, asked.reason_code)
    rows = models.rows("SELECT follow_up, channel, next_on, corrections, void_code FROM follow_ups")
    assert {row[0]: row[1:] for row in rows} == expected
    assert any(void for *_, void in rows)
    assert any(count > 1 for *_, count, _ in rows)
    standing = {act for act, settled in history.settled.acts.items() if settled and settled.stands}
    assert {row[0] for row in rows if row[4] is None} == standing
    assert compare(models.connect, models.projections, catalogue()) == []


def test_a_failed_batch_leaves_nothing_behind_and_is_applied_again(models: Models) -> None:
    models.projections = [FailsOnce(FollowUps(OpenUnsealer()))]
    models.project(shuffled(random.Random(5)))  # noqa: S311 - a test is to come out the same
    assert models.parked() == []
    assert compare(models.connect, models.projections, catalogue()) == []
