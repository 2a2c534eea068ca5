"""However relays have sent the log to its partitions, its tail comes out of them in its order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from consumers.kafka.merging import RANGES_TOLD_MAX, Merge
from consumers.kafka.records import Linked, Mark
from ledger.envelope import StoredEvent
from ledger.store.generations import Generation, Generations

AT = datetime(2026, 3, 1, tzinfo=UTC)
ONE = Generations([Generation(1, 1, "a", 1)])
TWO = Generations([Generation(1, 1, "a", 1), Generation(2, 4, "b", 1)])


def linked(position: int, generation: int = 1, previous: int = 0) -> Linked:
    event = StoredEvent(position, AT, "customer-a", 1, "A.v1", b"{}")
    return Linked(event, generation, previous)


@dataclass
class Sent:
    """What stands in the partitions, and the events of the log by their partitions."""

    partitions: list[list[Linked | Mark]]
    log: list[int]
    head: int


@st.composite
def sent(draw: st.DrawFn) -> Sent:
    """Let relays send a log, each from where some are acknowledged, and not always to its end."""
    log = draw(st.lists(st.integers(0, 2), min_size=1, max_size=12))
    partitions: list[list[Linked | Mark]] = [[], [], []]
    reached = 0
    while reached < len(log):
        begin = draw(st.integers(0, reached))
        # Of each partition it sends up to here: it may be killed before the others have theirs.
        ends = [draw(st.integers(reached + 1, len(log))) for _ in partitions]
        for position in range(begin, len(log)):
            if position < ends[log[position]]:
                before = [at + 1 for at in range(position) if log[at] == log[position]]
                previous = max(before, default=0)
                partitions[log[position]].append(linked(position + 1, previous=previous))
        reached = min(ends)
        if draw(st.booleans()):
            partitions[draw(st.integers(0, 2))].append(Mark(reached, 1, 0))
    return Sent(partitions, log, draw(st.integers(0, len(log))))


def merged(partitions: list[list[Linked | Mark]], merge: Merge, take: int = 1) -> list[int]:
    """Deliver so many records of a partition at a time; return the positions as they come out."""
    left = [list(each) for each in partitions]
    came = []
    while True:
        ended = {number for number, each in enumerate(left) if not each}
        while (each := merge.take(ended)) is not None:
            came.append(each.event.position)
        if not any(left):
            merge.end()
            return came
        for number, records in enumerate(left):
            merge.give(number, records[:take])
            left[number] = records[take:]


@given(sent(), st.integers(1, 3))
def test_every_position_behind_the_head_comes_once_in_order(sent: Sent, take: int) -> None:
    merge = Merge(3, sent.head, ONE)
    came = merged(sent.partitions, merge, take)
    assert came == [*range(sent.head + 1, len(sent.log) + 1)]
    assert (merge.missing_count, merge.known) == (0, len(sent.log))
    count = sum(isinstance(each, Linked) for records in sent.partitions for each in records)
    assert len(merge.again) == count - len(came)


@given(sent(), st.data())
def test_what_has_expired_is_told_exactly(sent: Sent, data: st.DataObject) -> None:
    expired = [data.draw(st.integers(0, len(each))) for each in sent.partitions]
    left = [each[count:] for each, count in zip(sent.partitions, expired, strict=True)]
    merge = Merge(3, sent.head, ONE)
    came = merged(left, merge)
    missing = [position for each in merge.missing for position in each]
    there = {
        each.event.position for records in left for each in records if isinstance(each, Linked)
    }
    behind = range(sent.head + 1, max(merge.known, sent.head) + 1)
    assert missing == [position for position in behind if position not in there]
    assert merge.missing_count == len(missing)
    keep = min(missing, default=behind.stop) - 1
    assert [each for each in came if each <= keep] == [*range(sent.head + 1, keep + 1)]
    assert came == sorted(set(came))


def test_many_holes_are_counted_and_some_of_them_told() -> None:
    merge = Merge(1, 0, ONE)
    merged([[linked(position) for position in range(2, 100, 2)]], merge)
    assert merge.missing_count == 49
    assert merge.missing == [range(n, n + 1) for n in range(1, 2 * RANGES_TOLD_MAX, 2)]


def test_what_an_older_generation_has_left_behind_was_given_up() -> None:
    merge = Merge(1, 5, TWO)
    records: list[Linked | Mark] = [
        linked(3),
        linked(4),
        linked(9),
        Mark(12, 1, 9),
        linked(5, 2),
        linked(6, 2),
    ]
    assert merged([records], merge) == [6]
    assert (merge.known, merge.missing_count, merge.unknown_at) == (6, 0, None)
    assert [each.event.position for each in merge.again] == [3, 5]


def test_a_generation_that_the_log_does_not_know_is_told() -> None:
    merge = Merge(1, 5, ONE)
    assert merged([[linked(6), linked(8, 3), linked(7, 2)]], merge) == [6]
    assert (merge.generation, merge.unknown_at, merge.known) == (3, 7, 8)


def test_what_came_in_front_of_what_it_links_to_follows_it() -> None:
    """It was taken for given up: 2 was not acknowledged, and nobody came to send 3 once more."""
    merge = Merge(1, 0, ONE)
    records: list[Linked | Mark] = [
        linked(1),
        linked(3, previous=2),
        linked(4, previous=3),
        linked(2, previous=1),
    ]
    assert merged([records], merge) == [1, 2, 3, 4]
    assert (merge.known, merge.missing_count) == (4, 0)
