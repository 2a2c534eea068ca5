"""Appends, conflicts and repeated requests, in groups, against a model that takes them in turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ledger.errors import LedgerError, RequestReusedError, VersionConflictError
from ledger.store.appending import Append, Appended, NewEvent, RequestKey
from ledger.store.committer import CommitterThread
from tests.ledger.store.support import rows
from tests.support.database import DatabaseUrls


@dataclass
class Model:
    """What a ledger is: streams that only grow, and requests that were answered."""

    streams: dict[str, list[bytes]] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    requests: dict[tuple[str, str], tuple[bytes, Append]] = field(default_factory=dict)
    # What each append that was recorded brought, to compare positions with.
    recorded: list[tuple[Append, Appended]] = field(default_factory=list)

    def next_version(self, stream: str) -> int:
        return self.starts.get(stream, 1) + len(self.streams.get(stream, []))

    def answer(self, append: Append) -> type[LedgerError] | str:
        """Record ``append`` if it holds; ``recorded``, ``repeated`` or the error otherwise."""
        if append.request is not None:
            key = (append.request.caller, append.request.request_id)
            known = self.requests.get(key)
            if known is not None:
                return "repeated" if known[0] == append.request.digest else RequestReusedError
        planned: dict[str, int] = {}
        for event in append.events:
            fresh = event.stream not in self.streams and event.stream not in planned
            expected = planned.get(event.stream, self.next_version(event.stream))
            if event.version is not None and event.version != expected:
                if not (fresh and event.version == 0):
                    return VersionConflictError
                expected = 0
            planned[event.stream] = expected + 1
        for event in append.events:
            if event.stream not in self.streams:
                self.streams[event.stream] = []
                self.starts[event.stream] = 0 if event.version == 0 else 1
            self.streams[event.stream].append(event.body)
        if append.request is not None:
            self.requests[key] = (append.request.digest, append)
        return "recorded"


@dataclass(frozen=True)
class Drawn:
    """An append as hypothesis draws it; versions are relative to what the model expects."""

    streams: tuple[str, ...]
    offsets: dict[str, int | None]
    request: tuple[str, str, bytes] | None


# None: no version stated. Else how far off the stated version is, mostly not at all; so far that
# it becomes 0, as the first of a stream may be.
TO_ZERO = -(10**6)
offsets = st.sampled_from([None, None, 0, 0, 0, -1, 1, TO_ZERO])
drawn = st.builds(
    Drawn,
    st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4).map(tuple),
    st.fixed_dictionaries(dict.fromkeys("abcd", offsets)),
    st.none()
    | st.tuples(
        st.sampled_from(["api", "import"]),
        st.sampled_from(["r1", "r2", "r3"]),
        st.sampled_from([b"same", b"same", b"other"]),
    ),
)


class Store(RuleBasedStateMachine):
    """The store beside its model; every run has streams and requests of its own names."""

    urls: ClassVar[DatabaseUrls]
    committer: ClassVar[CommitterThread]
    runs: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        self.prefix = f"run{self.runs}"
        self.model = Model()
        self.bodies = 0
        self.before = self.head()

    def head(self) -> int:
        ((position,),) = rows(self.urls, "SELECT coalesce(max(position), 0) FROM ledger.events")
        return int(position)

    def build(self, drawn: Drawn, reached: dict[str, int]) -> Append:
        """Return the append; ``reached`` are the next versions behind what the group has so far."""
        events: list[NewEvent] = []
        for name in drawn.streams:
            stream = f"{self.prefix}-{name}"
            offset = drawn.offsets[name]
            expected = reached.get(stream, self.model.next_version(stream))
            version = None if offset is None else max(expected + offset, 0)
            if any(event.stream == stream for event in events) and version is not None:
                (last,) = [event.version for event in events if event.stream == stream][-1:]
                version = (last or 0) + 1
            reached[stream] = expected + 1
            self.bodies += 1
            events.append(NewEvent(stream, "N.v1", b"%d" % self.bodies, version))
        request = None
        if drawn.request is not None:
            caller, request_id, digest = drawn.request
            request = RequestKey(caller, f"{self.prefix}-{request_id}", digest)
        return Append(tuple(events), request)

    @rule(group=st.lists(drawn, min_size=1, max_size=6))
    def append_together(self, group: list[Drawn]) -> None:
        reached: dict[str, int] = {}
        appends = [self.build(each, reached) for each in group]
        answers = self.committer.append_many(appends)
        for append, answer in zip(appends, answers, strict=True):
            expected = self.model.answer(append)
            if isinstance(expected, type):
                assert isinstance(answer, expected)
            else:
                assert isinstance(answer, Appended)
                assert answer.repeated == (expected == "repeated")
                if answer.repeated and append.request is not None:
                    key = (append.request.caller, append.request.request_id)
                    append = self.model.requests[key][1]
                self.model.recorded.append((append, answer))

    @invariant()
    def the_log_is_what_the_model_holds(self) -> None:
        stored = rows(
            self.urls,
            "SELECT position, stream, version, body FROM ledger.events WHERE position > %s"
            " ORDER BY position",
            self.before,
        )
        assert [position for position, *_ in stored] == list(
            range(self.before + 1, self.before + 1 + len(stored))
        )
        streams: dict[str, list[bytes]] = {}
        for _, stream, version, body in stored:
            assert version == self.model.starts[stream] + len(streams.get(stream, []))
            streams.setdefault(stream, []).append(body)
        assert streams == self.model.streams
        by_position = {position: (stream, body) for position, stream, _, body in stored}
        for append, appended in self.model.recorded:
            assert [by_position[position] for position in appended.positions] == [
                (event.stream, event.body) for event in append.events
            ]


def test_the_store_behaves_as_its_model(database: DatabaseUrls) -> None:
    with CommitterThread(database.service_url) as committer:
        Store.urls, Store.committer = database, committer
        run_state_machine_as_test(
            Store, settings=settings(max_examples=60, stateful_step_count=12, deadline=None)
        )
