"""What if, on a log in the database: read page by page, and left as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledger import commands, folding
from ledger.policy import Policy
from ledger.store.reading import head
from ledger.what_if import what_if
from tests.consumers.support import catch_up, failing_at
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    """Two reps, who may hold as much as they like."""
    with open_test_ledger(database) as opened:
        opened.found(["per_a", "per_b"], _policy())
        yield opened


def _policy(holding_limit: int | None = None) -> Policy:
    return Policy(holding_limit=holding_limit, protection_days=0, cooldown_days=0)


@pytest.mark.parametrize("page", [1, 3, 2_000])
def test_it_reads_the_log_in_pages_and_writes_nothing(
    ledger: TestLedger, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(folding, "PAGE_EVENTS", page)
    first, second = ledger.register("甲"), ledger.register("乙")
    ledger.decide()
    begin = head(ledger.connection)
    ledger.claim(first, "per_a")
    ledger.claim(second, "per_a")
    ledger.ask(commands.LogFollowUp(customer=first, person="per_a", channel="call"), "per_a")
    ledger.claim(second, "per_b")
    ledger.decide()
    top = head(ledger.connection)
    told: list[tuple[int, int]] = []
    ledger.connection.execute("SET default_transaction_read_only = on")
    report = what_if(
        ledger.connection,
        ledger.catalogue,
        _policy(holding_limit=1),
        begin,
        lambda position, upto: told.append((position, upto)),
    )
    assert (report.after, report.upto, report.requests) == (begin, top, 4)
    assert report.owners == {second: ("per_a", "per_b")}
    assert report.decisions.customers == {second: 2}
    assert told[-1] == (top, top)


def test_a_log_that_ends_before_the_day_has_nothing_to_decide(ledger: TestLedger) -> None:
    ledger.claim(ledger.register("甲"), "per_a")
    ledger.decide()
    top = head(ledger.connection)
    report = what_if(ledger.connection, ledger.catalogue, _policy(), top)
    assert (report.requests, report.after, report.upto) == (0, top, top)


def test_parked_requests_have_no_decision_to_compare(ledger: TestLedger) -> None:
    customer = ledger.register("甲")
    ledger.decide()
    begin = head(ledger.connection)
    parked = ledger.claim(customer, "per_a")
    ledger.claim(customer, "per_b")
    catch_up(ledger, versions={1: failing_at(parked.positions[0])})
    report = what_if(ledger.connection, ledger.catalogue, _policy(), begin)
    assert report.undecided.customers == {customer: 2}
    assert (report.requests, report.owners) == (0, {})
    unparking = commands.UnparkRequest(customer=customer, request=parked.positions[0], decider=1)
    ledger.ask(unparking)
    ledger.decide()
    report = what_if(ledger.connection, ledger.catalogue, _policy(), begin)
    assert (report.requests, report.decisions.total, report.undecided.total) == (3, 0, 0)
