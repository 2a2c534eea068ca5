"""Which partition an event stands in, what stands before it there, and how far all is sent."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.kafka.chain import Chain, Checkpoint, Placed, checkpoint, key_of, partition_of
from ledger.envelope import StoredEvent

AT = datetime(2026, 3, 1, tzinfo=UTC)


def event(position: int, customer: str) -> StoredEvent:
    return StoredEvent(position, AT, f"customer-{customer}", 1, "ClaimFiled.v1", b"{}")


@pytest.mark.parametrize(
    ("stream", "key"),
    [
        ("customer-cus_1", "cus_1"),
        ("ownership-cus_1", "cus_1"),
        ("person-per_1", "per_1"),
        ("organisation", "organisation"),
        ("customer-with-hyphens", "with-hyphens"),
    ],
)
def test_all_about_a_customer_has_one_key(stream: str, key: str) -> None:
    assert key_of(stream) == key


@pytest.mark.parametrize(
    ("key", "hashed"),
    # From Kafka's own UtilsTest.testMurmur2.
    [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)],
)
def test_the_partition_is_the_one_that_kafka_clients_of_any_language_choose(
    key: str, hashed: int
) -> None:
    for partitions in (1, 3, 12):
        assert partition_of(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


CUSTOMERS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60)


@given(CUSTOMERS, st.integers(1, 5))
def test_each_event_names_the_one_before_it_in_its_partition(
    customers: list[str], partitions: int
) -> None:
    chain = Chain(partitions, {})
    last: dict[int, int] = {}
    for position, customer in enumerate(customers, 1):
        placed = chain.place(event(position, customer))
        assert placed.partition == partition_of(customer, partitions)
        assert placed.previous == last.get(placed.partition, 0)
        last[placed.partition] = position


@given(CUSTOMERS, st.integers(1, 5), st.data())
def test_from_any_checkpoint_on_everything_is_placed_as_before(
    customers: list[str], partitions: int, data: st.DataObject
) -> None:
    events = [event(position, each) for position, each in enumerate(customers, 1)]
    chain = Chain(partitions, {})
    placed = [chain.place(each) for each in events]
    acknowledged = data.draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))
    reached = checkpoint(placed, acknowledged)
    if reached is None:
        assert not acknowledged[0]
        return
    assert all(acknowledged[: reached.position])
    assert acknowledged[reached.position :][:1] != [True]
    again = Chain(partitions, reached.lasts)
    assert [again.place(each) for each in events[reached.position :]] == placed[reached.position :]


def test_what_is_acknowledged_behind_a_gap_does_not_count() -> None:
    placed = [Placed(event(7, "a"), 0, 2), Placed(event(8, "b"), 1, 0), Placed(event(9, "a"), 0, 7)]
    assert checkpoint(placed, [True, False, True]) == Checkpoint(7, {0: 7})
    assert checkpoint(placed, [False, True, True]) is None
    assert checkpoint(placed, [True, True, True]) == Checkpoint(9, {0: 9, 1: 8})
