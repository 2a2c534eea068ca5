"""How far every consumer has come, what is left to it, and since when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from api.lag import Lag, count_requests, lags
from consumers import progress
from consumers.enforcer import CONSUMER
from consumers.kafka.chain import key_of, partition_of
from ledger.store.reading import recorded_at
from projections.registry import all_projections
from projections.runner import Runner
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger

PARTS = 3


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    with open_test_ledger(database) as opened:
        opened.found(["per_1", "per_2"])
        yield opened


def found(ledger: TestLedger) -> dict[tuple[str, int | None], Lag]:
    """Return what is told, by consumer and partition."""
    told = count_requests(ledger.connection, lags(ledger.connection, "guishu"))
    return {(each.consumer, each.partition): each for each in told.consumers}


def recorded(ledger: TestLedger, position: int) -> datetime:
    return recorded_at(ledger.connection, [position])[position]


def test_before_anybody_decides_all_that_was_asked_waits(ledger: TestLedger) -> None:
    asked = [ledger.register(name) for name in ("甲公司", "乙公司")]
    enforcer = found(ledger)["enforcer", 0]
    log = ledger.log()
    assert (enforcer.reached, enforcer.left, enforcer.waiting) == (0, len(log), len(asked))
    # The organisation's facts stand in front, and wait for nobody.
    assert enforcer.oldest == recorded(ledger, log[-2].position)
    assert enforcer.seconds > 0


def test_who_has_only_decisions_left_lets_nobody_wait(ledger: TestLedger) -> None:
    """As where a command ends when all is decided, before it has stepped over that."""
    ledger.register("甲公司")
    ledger.decide()
    ledger.connection.execute("UPDATE ledger.consumer_progress SET position = position - 1")
    enforcer = found(ledger)["enforcer", 0]
    assert (enforcer.left, enforcer.waiting) == (1, 0)
    assert (enforcer.oldest, enforcer.seconds) == (None, 0)


def test_behind_many_decisions_what_follows_on_them_is_told(
    ledger: TestLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.lag.NEAR", 1)
    ledger.register("甲公司")
    ledger.decide()
    (claim,) = ledger.claim(ledger.register("乙公司"), "per_1").positions
    ledger.connection.execute("UPDATE ledger.consumer_progress SET position = position - 1")
    assert found(ledger)["enforcer", 0].oldest == recorded(ledger, claim - 1)


def test_of_each_part_its_own_requests_are_counted(ledger: TestLedger) -> None:
    ledger.register("甲公司")
    ledger.decide()
    progress.divide(ledger.connection, CONSUMER, PARTS)
    customers = [ledger.register(f"公司{number}") for number in range(12)]
    parts = [partition_of(key_of(f"customer-{each}"), PARTS) for each in customers]
    told = found(ledger)
    for number in range(PARTS):
        enforcer = told["enforcer", number]
        assert enforcer.waiting == parts.count(number)
        assert enforcer.left == 12


def test_what_is_too_far_back_is_not_counted(
    ledger: TestLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.lag.SPAN", 2)
    for name in ("甲公司", "乙公司", "丙公司"):
        ledger.register(name)
    enforcer = found(ledger)["enforcer", 0]
    assert (enforcer.waiting, enforcer.oldest is None) == (None, False)


def test_read_models_relays_followers_and_what_is_due_have_their_places(
    ledger: TestLedger,
) -> None:
    runner = Runner(ledger.connection, all_projections(ledger.vault), ledger.catalogue)
    runner.start()
    runner.catch_up()
    reached = runner.position
    ledger.register("甲公司")
    ledger.connection.execute(
        "INSERT INTO ledger.relay (topic, position) VALUES ('guishu.log.v1', 2), ('old.log.v1', 1)"
    )
    ledger.connection.execute("SELECT ledger.record_tracking('reports', 1)")
    told = found(ledger)
    assert ("relay:old.log.v1", None) not in told
    waits = recorded(ledger, reached + 1)
    for name, at, since in (
        ("ownership", reached, waits),
        ("relay:guishu.log.v1", 2, recorded(ledger, 3)),
        ("follower:reports", 1, recorded(ledger, 2)),
    ):
        lag = told[name, None]
        left = reached + 1 - at
        assert (lag.reached, lag.left, lag.waiting, lag.oldest) == (at, left, left, since)
    assert told["jobs", None].waiting == 0
    assert (told["clock", None].waiting, told["clock", None].oldest) == (0, None)


def test_whoever_has_all_lets_nothing_wait(ledger: TestLedger) -> None:
    ledger.decide()
    enforcer = found(ledger)["enforcer", 0]
    assert (enforcer.left, enforcer.waiting, enforcer.oldest, enforcer.seconds) == (0, 0, None, 0)
