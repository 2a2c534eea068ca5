"""Which of the waiting appends share a transaction, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.store import grouping
from ledger.store.appending import BYTES_PER_TRANSACTION_MAX, Append
from ledger.store.grouping import AppendQueue, Waiting
from tests.ledger.store.support import asked, event, one


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Queue(AppendQueue):
    """A queue that is filled and read by appends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *appends: Append) -> None:
        super().__init__()
        self.all = [Waiting(append, 0, loop.create_future()) for append in appends]
        for waiting in self.all:
            self.put(waiting)

    def taken(self, events_max: int = 100, under_way: tuple[Append, ...] = ()) -> list[Append]:
        busy = [Waiting(append, 0, self.all[0].answer) for append in under_way]
        return [waiting.append for waiting in self.take(events_max, busy)[0]]


def test_appends_to_different_streams_go_together_in_order(
    loop: asyncio.AbstractEventLoop,
) -> None:
    appends = [one("a"), one("b"), one("c")]
    queue = Queue(loop, *appends)
    assert queue.taken() == appends
    assert not queue
    assert queue.events == 0


def test_one_stream_without_versions_may_come_often(loop: asyncio.AbstractEventLoop) -> None:
    appends = [one("a", b"1"), one("a", b"2")]
    assert Queue(loop, *appends).taken() == appends


@pytest.mark.parametrize(("first", "second"), [(1, None), (None, 2), (1, 2)])
def test_a_stream_with_a_stated_version_comes_once(
    loop: asyncio.AbstractEventLoop, first: int | None, second: int | None
) -> None:
    queue = Queue(loop, one("a", version=first), one("a", version=second), one("b"))
    assert queue.taken() == [one("a", version=first), one("b")]
    assert queue.taken() == [one("a", version=second)]


def test_nothing_of_a_stream_overtakes_what_waits(loop: asyncio.AbstractEventLoop) -> None:
    both = Append((event("a", b"2", 2), event("b", b"2")))
    queue = Queue(loop, one("a", b"1", 1), both, one("b", b"3"), one("c"))
    assert queue.taken() == [one("a", b"1", 1), one("c")]
    assert queue.taken() == [both, one("b", b"3")]


def test_a_request_id_comes_once(loop: asyncio.AbstractEventLoop) -> None:
    first, again = asked("req", event("a")), asked("req", event("b"))
    queue = Queue(loop, first, again, one("b"))
    assert queue.taken() == [first]
    assert queue.taken() == [again, one("b")]


def test_nothing_shares_a_stream_or_a_request_with_what_is_under_way(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = Queue(loop, one("a"), asked("req", event("b")), one("c"))
    assert queue.taken(under_way=(one("a"), asked("req", event("d")))) == [one("c")]
    assert queue.taken() == [one("a"), asked("req", event("b"))]


def test_a_group_has_only_so_many_events(loop: asyncio.AbstractEventLoop) -> None:
    large = Append((event("b"), event("c")))
    queue = Queue(loop, one("a"), large, one("d"))
    assert queue.taken(events_max=2) == [one("a")]
    assert queue.taken(events_max=2) == [large]
    assert queue.taken(events_max=2) == [one("d")]


def test_the_first_append_goes_whatever_its_size(loop: asyncio.AbstractEventLoop) -> None:
    large = Append(tuple(event(f"s{number}") for number in range(5)))
    queue = Queue(loop, large, one("a"))
    assert queue.taken(events_max=2) == [large]


def test_a_group_has_only_so_many_bytes(loop: asyncio.AbstractEventLoop) -> None:
    queue = Queue(loop, one("a"), one("b"), one("c"))
    for waiting in queue.all:
        waiting.size = BYTES_PER_TRANSACTION_MAX // 2
    assert queue.taken() == [one("a"), one("b")]
    assert queue.taken() == [one("c")]


def test_whoever_waits_no_more_is_dropped(loop: asyncio.AbstractEventLoop) -> None:
    queue = Queue(loop, one("a"), one("b"))
    queue.all[0].answer.cancel()
    group, dropped = queue.take(100)
    assert [waiting.append for waiting in group] == [one("b")]
    assert dropped == [queue.all[0]]
    assert queue.events == 0


def test_looking_past_a_much_used_stream_ends(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand waiting on one stream made every look at the queue go through all of them."""
    monkeypatch.setattr(grouping, "PASSED_OVER_MAX", 3)
    queue = Queue(loop, *(one("a", version=number) for number in range(1, 10)), one("b"))
    assert queue.taken() == [one("a", version=1)]
    assert queue.events == 9


appends = st.builds(
    lambda names, versions, request: Append(
        tuple(
            event(name, version=1 if versions else None, body=b"") for name in dict.fromkeys(names)
        ),
        asked(request).request if request else None,
    ),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=3),
    st.booleans(),
    st.none() | st.sampled_from(["req_1", "req_2"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(waiting=st.lists(appends, min_size=1), events_max=st.integers(1, 5))
def test_everything_is_taken_once_and_each_stream_in_order(
    loop: asyncio.AbstractEventLoop, waiting: list[Append], events_max: int
) -> None:
    queue = Queue(loop, *waiting)
    order: list[Waiting] = []
    while queue:
        group, dropped = queue.take(events_max)
        assert group
        assert not dropped
        streams = [{e.stream for e in each.append.events} for each in group]
        for number, each in enumerate(group):
            for other in range(number):
                if streams[number] & streams[other]:
                    both = (*each.append.events, *group[other].append.events)
                    shared = streams[number] & streams[other]
                    assert all(e.version is None for e in both if e.stream in shared)
        order.extend(group)
    assert sorted(map(id, order)) == sorted(map(id, queue.all))
    for stream in "abcd":
        of_stream = [each for each in order if any(e.stream == stream for e in each.append.events)]
        assert of_stream == sorted(of_stream, key=queue.all.index)
