"""The enforcer's progress may be several rows, one for each partition of the customers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from consumers import parking, progress
from consumers.enforcer import CONSUMER
from consumers.feed import Batch, StoreFeed
from consumers.progress import Part
from consumers.rebuilding import compare_guards, rebuild_guards
from ledger.verification import Report, verify_log
from tests.consumers.support import catch_up, check, enforcing, grants
from tests.support.ledgers import TestLedger


@dataclass(frozen=True)
class PartOfTheFeed:
    """The requests about one customer."""

    customer: str

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        whole = StoreFeed().read(connection, after, limit)
        stream = f"customer-{self.customer}"
        return Batch([each for each in whole.requests if each.stream == stream], whole.reached)


class Parted:
    """Two customers in two partitions, of which the second has a request to decide."""

    def __init__(self, ledger: TestLedger) -> None:
        self.ledger = ledger
        first, second = ledger.register("甲公司"), ledger.register("乙公司")
        ledger.decide()
        self.all_reached = progress.reached(ledger.connection, CONSUMER)
        progress.divide(ledger.connection, CONSUMER, 2)
        self.second = second
        (self.waiting,) = ledger.claim(second, "per_1").positions
        ledger.claim(first, "per_2")
        catch_up(ledger, feed=PartOfTheFeed(first), part=Part(0, 2))

    def audit(self) -> Report:
        return verify_log(self.ledger.connection, self.ledger.catalogue)

    def compare(self) -> list[str]:
        return compare_guards(self.ledger.connection, self.ledger.catalogue)

    def move(self, position: int) -> None:
        """Let the second partition say that it has come so far."""
        self.ledger.connection.execute(
            "UPDATE ledger.consumer_progress SET position = %s WHERE partition = 1", (position,)
        )


@pytest.fixture
def parted(ledger: TestLedger) -> Parted:
    return Parted(ledger)


def test_a_partition_that_is_behind_is_no_difference(parted: Parted) -> None:
    """The other one has passed the request, and was taken for all that there is."""
    assert progress.reached(parted.ledger.connection, CONSUMER) == parted.all_reached
    report = parted.audit()
    assert report.good, list(report.lines())
    assert report.undecided == [parted.waiting]
    assert parted.compare() == []


def test_what_all_partitions_have_passed_must_be_decided(parted: Parted) -> None:
    parted.move(len(parted.ledger.log()))
    failure = parted.audit().failure
    assert failure is not None
    assert (failure.position, failure.check) == (parted.waiting, "undecided")
    assert parted.compare() == [f"parked {parted.waiting}"]


def test_what_is_parked_in_front_of_the_others_is_compared_as_well(parted: Parted) -> None:
    park = "INSERT INTO ledger.parked_requests VALUES (%s, 'cus_x', %s)"
    parted.ledger.connection.execute(park, (parted.waiting, "Error"))
    assert parted.compare() == [f"parked {parted.waiting}"]


def test_guards_made_again_bring_all_partitions_to_one_position(parted: Parted) -> None:
    ledger = parted.ledger
    with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
        rebuild_guards(connection, ledger.catalogue)
    assert parted.compare() == []
    rows = ledger.connection.execute(
        "SELECT position, epoch > 0 FROM ledger.consumer_progress"
    ).fetchall()
    assert len(rows) == 2
    assert len(set(rows)) == 1
    assert rows[0][1], "whoever held the old epoch can write nothing more"
    catch_up(ledger, part=Part(0, 2))
    check(ledger)


def test_what_is_ready_to_be_decided_is_decided_by_one_part_alone(
    parted: Parted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part begins with all that is ready, and the second found its decisions made already."""
    ledger = parted.ledger
    park = "INSERT INTO ledger.parked_requests VALUES (%s, %s)"
    ledger.connection.execute(park, (parted.waiting, parted.second))
    parted.move(len(ledger.log()))
    read = parking.rows_of

    def rows_of(connection: Connection[Any], customer: str, limit: int) -> list[parking.Row]:
        rows = read(connection, customer, limit)
        monkeypatch.setattr(parking, "rows_of", read)
        with enforcing(ledger, part=Part(1, 2)):
            pass
        return rows

    monkeypatch.setattr(parking, "rows_of", rows_of)
    with enforcing(ledger, part=Part(0, 2)) as first:
        first.catch_up()
    assert grants(ledger).total() == 2
    with enforcing(ledger, part=Part(1, 2)) as second:
        second.catch_up()
    check(ledger)


class TestDividing:
    def test_each_part_begins_where_the_whole_has_come_to(self, ledger: TestLedger) -> None:
        ledger.register("甲公司")
        ledger.decide()
        reached = progress.reached(ledger.connection, CONSUMER)
        progress.divide(ledger.connection, CONSUMER, 3)
        progress.divide(ledger.connection, CONSUMER, 3)
        for number in range(3):
            taken = progress.take_over(ledger.connection, CONSUMER, Part(number, 3))
            assert (taken.part, taken.position) == (number, reached)

    def test_whoever_follows_the_whole_is_fenced_and_cannot_take_over_again(
        self, ledger: TestLedger
    ) -> None:
        """Else it would decide what the parts decide too."""
        with enforcing(ledger) as whole:
            whole.catch_up()
            progress.divide(ledger.connection, CONSUMER, 2)
            ledger.register("甲公司")
            with pytest.raises(progress.FencedError):
                whole.catch_up()
            with pytest.raises(progress.ProgressDividedError, match="into 2 parts, not 1"):
                whole.start()

    @pytest.mark.parametrize("parts", [1, 3])
    def test_what_is_divided_is_not_divided_otherwise(self, ledger: TestLedger, parts: int) -> None:
        progress.divide(ledger.connection, CONSUMER, 2)
        with pytest.raises(progress.ProgressDividedError):
            progress.divide(ledger.connection, CONSUMER, parts)
        with pytest.raises(progress.ProgressDividedError):
            progress.take_over(ledger.connection, CONSUMER, Part(0, parts))

    def test_a_part_is_moved_by_its_owner_alone(self, ledger: TestLedger) -> None:
        progress.divide(ledger.connection, CONSUMER, 2)
        older = progress.take_over(ledger.connection, CONSUMER, Part(1, 2))
        newer = progress.take_over(ledger.connection, CONSUMER, Part(1, 2))
        other = progress.take_over(ledger.connection, CONSUMER, Part(0, 2))
        with pytest.raises(progress.FencedError):
            progress.skip(ledger.connection, older, 5)
        progress.skip(ledger.connection, newer, 5)
        progress.skip(ledger.connection, other, 3)
        assert progress.reached(ledger.connection, CONSUMER) == 3
