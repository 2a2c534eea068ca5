"""Whatever Kafka delivers, a consumer takes everything once, in order, or says what is missing."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.kafka.chain import Chain
from consumers.kafka.gathering import Gathered, GenerationContradictsError, gather
from consumers.kafka.records import Linked, Mark
from ledger.envelope import StoredEvent
from ledger.store.generations import Generation, Generations

AT = datetime(2026, 3, 1, tzinfo=UTC)
ONE = Generations([Generation(1, 1, "a", 1)])


def event(position: int) -> StoredEvent:
    return StoredEvent(position, AT, "customer-a", 1, "ClaimFiled.v1", b"{}")


def linked(position: int, previous: int, generation: int = 1) -> Linked:
    return Linked(event(position), generation, previous)


def delivery(*records: Linked | Mark) -> deque[Linked | Mark]:
    return deque(records)


def taken(after: int, *delivered: Linked | Mark, limit: int = 100, head: int = 100) -> Gathered:
    return gather(deque(delivered), after, limit, head=head, generations=ONE)


def test_what_links_is_taken_and_what_was_seen_is_dropped() -> None:
    assert taken(3, linked(2, 0), linked(3, 2), linked(7, 3), linked(3, 2), linked(9, 7)) == (
        Gathered([event(7), event(9)], 9)
    )


def test_a_gap_ends_it_and_says_up_to_where() -> None:
    delivered = delivery(linked(3, 0), linked(9, 7))
    first = gather(delivered, 0, 100, head=100, generations=ONE)
    assert first == Gathered([event(3)], 3, missing_upto=7)
    # Read from the store meanwhile.
    assert gather(delivered, 7, 100, head=100, generations=ONE) == Gathered([event(9)], 9)


def test_a_mark_moves_on_without_an_event() -> None:
    assert taken(0, linked(3, 0), Mark(8, 1, 3), linked(9, 3)) == Gathered([event(3), event(9)], 9)
    assert taken(5, Mark(8, 1, 3)) == Gathered([], 8)
    assert taken(9, Mark(8, 1, 3)) == Gathered([], 9)


def test_a_mark_behind_what_has_expired_makes_no_hole() -> None:
    assert taken(0, Mark(8, 1, 3)) == Gathered([], 0, missing_upto=3)


def test_it_stops_at_the_limit_and_keeps_the_rest() -> None:
    delivered = delivery(linked(3, 0), linked(4, 3), linked(5, 4))
    assert gather(delivered, 0, 2, head=9, generations=ONE) == Gathered([event(3), event(4)], 4)
    assert list(delivered) == [linked(5, 4)]


class TestGenerations:
    two = Generations([Generation(1, 1, "a", 1), Generation(2, 5, "a", 2)])

    def test_what_the_store_has_given_up_is_dropped(self) -> None:
        delivered: deque[Linked | Mark] = deque([linked(5, 4), Mark(9, 1, 5), linked(6, 4, 2)])
        gathered = gather(delivered, 4, 100, head=6, generations=self.two)
        assert gathered == Gathered([event(6)], 6)

    @pytest.mark.parametrize(
        "record", [linked(5, 4, 3), linked(7, 4, 2), Mark(7, 2, 4), linked(2, 0, 2)]
    )
    def test_what_the_store_cannot_know_stops_it(self, record: Linked | Mark) -> None:
        with pytest.raises(GenerationContradictsError) as raised:
            gather(deque([record]), 4, 100, head=6, generations=self.two)
        assert raised.value.code == "generation_contradicts"


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), st.data())
def test_doubled_late_shuffled_and_lost_records_never_make_a_hole(
    customers: list[str], data: st.DataObject
) -> None:
    """A consumer that reads what is missing from the store, against a delivery at its worst."""
    chain = Chain(2, {})
    log = [
        StoredEvent(position, AT, f"customer-{each}", 1, "ClaimFiled.v1", b"{}")
        for position, each in enumerate(customers, 1)
    ]
    placed = [each for each in map(chain.place, log) if each.partition == 0]
    records: list[Linked | Mark] = [Linked(each.event, 1, each.previous) for each in placed]
    last = placed[-1].event.position if placed else 0
    records.append(Mark(len(log), 1, last))
    chosen = data.draw(st.lists(st.sampled_from(records), max_size=3 * len(records)))
    delivered = deque(chosen + records[-1:])
    limit = data.draw(st.integers(1, 5))
    reached, consumed = 0, []
    for _ in range(1_000):
        gathered = gather(delivered, reached, limit, head=len(log), generations=ONE)
        consumed += [each.position for each in gathered.events]
        assert gathered.reached >= reached
        reached = gathered.reached
        if gathered.missing_upto is not None:
            upto = gathered.missing_upto
            assert upto > reached
            from_store = (each.event.position for each in placed)
            consumed += [each for each in from_store if reached < each <= upto]
            reached = upto
    assert not delivered
    assert consumed == [each.event.position for each in placed]
    assert reached == len(log)
