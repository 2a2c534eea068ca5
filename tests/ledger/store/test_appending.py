"""Appending: positions, versions, requests, sizes, and one result for each append."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg import Connection

from ledger.canonical import ENTRY_BYTES_MAX, Entry, leaf_hash
from ledger.errors import (
    BusyError,
    EntryTooLargeError,
    RequestReusedError,
    StoreRefusedError,
    StoreUnavailableError,
    VersionConflictError,
)
from ledger.store import arrays
from ledger.store.appending import (
    EVENTS_PER_TRANSACTION_MAX,
    Append,
    Appended,
    NewEvent,
    append_within,
)
from ledger.store.committer import Committer, CommitterLimits, CommitterThread, translated
from ledger.store.reading import read_after, read_at, read_decisions, read_stream
from tests.ledger.store.support import asked, bodies, event, log, one, rows
from tests.support.database import DatabaseUrls
from tests.support.processes import wait_until

T = TypeVar("T")


@pytest.fixture
def committer(database: DatabaseUrls) -> Iterator[CommitterThread]:
    with CommitterThread(database.service_url) as committer:
        yield committer


@pytest.fixture
def connection(database: DatabaseUrls) -> Iterator[Connection[Any]]:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        arrays.register(connection)
        yield connection


def together(
    urls: DatabaseUrls, *appends: Append, limits: CommitterLimits | None = None
) -> list[Appended | BaseException]:
    """Append in one turn of the event loop, so in one group as far as they may share one."""

    async def work() -> list[Appended | BaseException]:
        async with Committer(urls.service_url, limits) as committer:
            waiting = [committer.append(append) for append in appends]
            return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(work())


def with_committer(
    urls: DatabaseUrls, work: Callable[[Committer], Awaitable[T]], limits: CommitterLimits
) -> T:
    async def inside() -> T:
        async with Committer(urls.service_url, limits) as committer:
            return await work(committer)

    return asyncio.run(inside())


class TestPositions:
    def test_they_are_dense_and_each_append_is_told_its_own(self, database: DatabaseUrls) -> None:
        appends = [
            Append(
                tuple(event(f"s{number}", b"%d/%d" % (number, n)) for n in range(number % 3 + 1))
            )
            for number, count in enumerate((1, 2, 3) * 100)
        ]
        results = together(database, *appends)
        stored = bodies(database)
        assert [position for position, _, _ in log(database)] == list(range(1, len(stored) + 1))
        for append, result in zip(appends, results, strict=True):
            assert isinstance(result, Appended)
            assert not result.repeated
            assert [stored[position - 1] for position in result.positions] == [
                each.body for each in append.events
            ]

    def test_they_are_dense_across_processes(self, database: DatabaseUrls) -> None:
        async def work() -> None:
            async with (
                Committer(database.service_url) as first,
                Committer(database.service_url) as second,
            ):
                waiting = [
                    committer.append(one(f"s{number}"))
                    for number in range(200)
                    for committer in (first, second)
                ]
                results = await asyncio.gather(*waiting)
            positions = sorted(result.first_position for result in results)
            assert positions == list(range(1, 401))

        asyncio.run(work())
        assert [position for position, _, _ in log(database)] == list(range(1, 401))

    def test_an_append_waits_for_the_lock_and_then_sees_what_was_committed_under_it(
        self, database: DatabaseUrls, connection: Connection[Any]
    ) -> None:
        """A statement that took the lock and read the highest position at once gave positions
        twice: it sees what was committed when it began, not when it got the lock.
        """
        with connection.transaction():
            append_within(connection, one("a"))
            with psycopg.connect(database.service_url, autocommit=True) as other:
                arrays.register(other)
                with other.pipeline(), other.transaction():
                    waiting = append_within(other, one("b"))
                    connection.execute("COMMIT")
                    connection.execute("BEGIN")
                assert waiting.fetchone() == (2,)

    def test_what_is_rolled_back_leaves_no_gap(
        self, connection: Connection[Any], committer: CommitterThread
    ) -> None:
        with connection.transaction(force_rollback=True):
            append_within(connection, one("a"))
        assert committer.append(one("a")) == Appended(1, 1)


class TestVersions:
    def test_without_a_stated_version_the_next_one_is_taken(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        committer.append(Append((event("a"), event("b"), event("a"))))
        committer.append(Append((event("a"), event("b"))))
        assert log(database) == [(1, "a", 1), (2, "b", 1), (3, "a", 2), (4, "a", 3), (5, "b", 2)]

    def test_one_stream_many_times_in_a_group(self, database: DatabaseUrls) -> None:
        together(database, *(one("a", b"%d" % number) for number in range(50)))
        assert [version for _, _, version in log(database)] == list(range(1, 51))
        assert bodies(database) == [b"%d" % number for number in range(50)]

    @pytest.mark.parametrize("start", [0, 1])
    def test_a_stream_begins_at_1_or_at_0(
        self, committer: CommitterThread, database: DatabaseUrls, start: int
    ) -> None:
        committer.append(Append((event("a", version=start), event("a", version=start + 1))))
        committer.append(one("a"))
        assert [version for _, _, version in log(database)] == [start, start + 1, start + 2]

    @pytest.mark.parametrize("version", [-1, 2, 3, 2**31 - 1])
    def test_a_stream_begins_nowhere_else(self, committer: CommitterThread, version: int) -> None:
        with pytest.raises(VersionConflictError) as caught:
            committer.append(one("a", version=version))
        assert caught.value.stream == "a"

    @pytest.mark.parametrize("version", [0, 1, 2, 4, 5])
    def test_a_stated_version_must_be_the_next_one(
        self, committer: CommitterThread, database: DatabaseUrls, version: int
    ) -> None:
        committer.append(Append((event("a"), event("a"))))
        with pytest.raises(VersionConflictError):
            committer.append(one("a", version=version))
        committer.append(one("a", version=3))
        assert [version for _, _, version in log(database)] == [1, 2, 3]

    @pytest.mark.parametrize("versions", [(1, 1), (1, 3), (0, 2), (2, 1)])
    def test_the_stated_versions_of_an_append_must_follow_each_other(
        self, committer: CommitterThread, database: DatabaseUrls, versions: tuple[int, int]
    ) -> None:
        """As a stream may begin at 0 or at 1, versions 0 and 2 were both taken for its first."""
        with pytest.raises(VersionConflictError):
            committer.append(Append(tuple(event("a", version=version) for version in versions)))
        assert log(database) == []

    @pytest.mark.parametrize("versions", [(0, None), (None, 1), (1, None)])
    def test_versions_stated_in_part_are_no_append(
        self, committer: CommitterThread, versions: tuple[int | None, int | None]
    ) -> None:
        """A stream that began at 0 with the next version left open would have got a gap."""
        with pytest.raises(ValueError, match="all versions of a stream"):
            committer.append(Append(tuple(event("a", version=version) for version in versions)))

    def test_a_conflict_fails_alone_and_leaves_no_gap(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        committer.append(one("a"))
        results = together(
            database,
            one("b"),
            Append((event("c"), event("a", version=1))),
            one("d"),
            one("a", version=2),
        )
        assert results[0] == Appended(2, 1)
        assert isinstance(results[1], VersionConflictError)
        assert results[2] == Appended(3, 1)
        assert results[3] == Appended(4, 1)
        assert log(database) == [(1, "a", 1), (2, "b", 1), (3, "d", 1), (4, "a", 2)]

    def test_many_conflicts_in_a_group_each_fail_alone(self, database: DatabaseUrls) -> None:
        results = together(
            database, *(one(f"s{number}", version=number % 4) for number in range(100))
        )
        for number, result in enumerate(results):
            assert isinstance(result, Appended if number % 4 < 2 else VersionConflictError)
        assert len(log(database)) == 50

    def test_of_many_first_claims_on_a_stream_that_does_not_exist_one_wins(
        self, database: DatabaseUrls
    ) -> None:
        """There is no row yet that anybody could lock."""

        async def work() -> list[Appended | BaseException]:
            committers = [Committer(database.service_url) for _ in range(5)]
            for committer in committers:
                await committer.__aenter__()
            waiting = [
                committer.append(one("ownership-1", version=1))
                for committer in committers
                for _ in range(10)
            ]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            for committer in committers:
                await committer.__aexit__()
            return results

        results = asyncio.run(work())
        assert [result for result in results if isinstance(result, Appended)] == [Appended(1, 1)]
        assert sum(isinstance(result, VersionConflictError) for result in results) == 49
        assert len(log(database)) == 1


class TestRequests:
    def test_the_same_request_gets_the_first_answer(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        request = asked("req", event("a"), event("b"))
        assert committer.append(request) == Appended(1, 2)
        committer.append(one("c"))
        assert committer.append(request) == Appended(1, 2, repeated=True)
        assert len(log(database)) == 3

    def test_a_request_id_with_other_content_is_an_error(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        committer.append(asked("req"))
        with pytest.raises(RequestReusedError) as caught:
            committer.append(asked("req", digest=b"other"))
        assert caught.value.request_id == "req"
        assert len(log(database)) == 1

    def test_callers_have_request_ids_of_their_own(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        for caller in ("api", "import"):
            request = asked("req").request
            assert request is not None
            mine = Append((event(),), type(request)(caller, "req", b"digest"))
            assert not committer.append(mine).repeated
        assert len(log(database)) == 2

    def test_a_repeated_request_is_not_taken_for_a_conflict(
        self, committer: CommitterThread
    ) -> None:
        """The version that it states has been taken, by itself."""
        request = asked("req", event("a", version=1))
        committer.append(request)
        assert committer.append(request) == Appended(1, 1, repeated=True)

    def test_twice_in_one_turn(self, database: DatabaseUrls) -> None:
        results = together(
            database,
            asked("req", event("a")),
            asked("req", event("b")),
            asked("req", event("c"), digest=b"other"),
            one("d"),
        )
        assert results[0] == Appended(1, 1)
        assert results[1] == Appended(1, 1, repeated=True)
        assert isinstance(results[2], RequestReusedError)
        assert results[3] == Appended(2, 1)
        assert log(database) == [(1, "a", 1), (2, "d", 1)]

    def test_repeats_in_a_group_do_not_hold_up_the_others(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        for number in range(0, 20, 2):
            committer.append(asked(f"req_{number}", event(f"s{number}")))
        results = together(
            database,
            *(asked(f"req_{number}", event(f"t{number}"), event("t")) for number in range(20)),
        )
        for number, result in enumerate(results):
            assert isinstance(result, Appended)
            assert result.repeated == (number % 2 == 0)
            if result.repeated:
                assert result == Appended(number // 2 + 1, 1, repeated=True)
            else:
                assert result == Appended(11 + number - 1, 2)
        assert len(log(database)) == 30

    def test_two_processes_with_the_same_requests_record_each_once(
        self, database: DatabaseUrls
    ) -> None:
        async def work() -> list[list[Appended]]:
            async with (
                Committer(database.service_url) as first,
                Committer(database.service_url) as second,
            ):
                waiting = [
                    [committer.append(asked(f"req_{number}")) for number in range(200)]
                    for committer in (first, second)
                ]
                return [list(await asyncio.gather(*each)) for each in waiting]

        first, second = asyncio.run(work())
        assert len(log(database)) == 200
        for mine, other in zip(first, second, strict=True):
            assert mine.first_position == other.first_position
            assert mine.repeated != other.repeated

    def test_a_request_among_others_without_one_gets_its_own_positions(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        results = together(
            database,
            Append((event("a"), event("b"))),
            asked("req", event("c"), event("d"), event("e")),
            one("f"),
        )
        assert results == [Appended(1, 2), Appended(3, 3), Appended(6, 1)]
        again = committer.append(asked("req", event("c"), event("d"), event("e")))
        assert again == Appended(3, 3, repeated=True)


class TestSizes:
    def test_ten_thousand_events_go_in_one_transaction(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        events = tuple(event(f"s{number % 100}") for number in range(EVENTS_PER_TRANSACTION_MAX))
        assert committer.append(Append(events)) == Appended(1, EVENTS_PER_TRANSACTION_MAX)
        assert rows(database, "SELECT count(DISTINCT xmin::text) FROM ledger.events") == [(1,)]

    @pytest.mark.parametrize("count", [0, EVENTS_PER_TRANSACTION_MAX + 1])
    def test_no_events_or_more_are_no_append(self, committer: CommitterThread, count: int) -> None:
        with pytest.raises(ValueError, match="1 to 10000 events"):
            committer.append(Append((event(),) * count))

    # Of an entry's 65,535 bytes 61 are kept for the rest of its head, at its longest.
    longest = b"x" * (ENTRY_BYTES_MAX - 61 - len("a") - len("ClaimFiled.v1"))

    def test_an_entry_at_the_limit_fits(
        self, committer: CommitterThread, connection: Connection[Any]
    ) -> None:
        committer.append(one("a", self.longest))
        (stored,) = read_after(connection, 0, 10)
        entry = Entry(*stored[:6]).to_bytes()
        assert len(entry) <= ENTRY_BYTES_MAX
        # The head is as long as it will ever be only at the last of all positions.
        highest = Entry(2**63 - 1, stored.recorded, "a", 2**31 - 1, stored.name, stored.body)
        assert len(highest.to_bytes()) == ENTRY_BYTES_MAX

    def test_one_byte_more_is_refused_at_the_door(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        with pytest.raises(EntryTooLargeError):
            committer.append(Append((event("b"), event("a", self.longest + b"x"))))
        assert log(database) == []

    def test_one_byte_more_is_refused_by_the_database_too(
        self, connection: Connection[Any]
    ) -> None:
        with pytest.raises(psycopg.errors.CheckViolation, match="event_is_well_formed"):
            connection.execute(
                "SELECT ledger.append_events(ARRAY['a'], '{}', '{}', ARRAY['ClaimFiled.v1'],"
                " ARRAY[%b::bytea], '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
                (self.longest + b"x",),
            )


class TestEntries:
    def test_the_leaf_hash_is_that_of_the_entry(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        committer.append(one("customer-1", '{"name":"某某有限公司\\\\"}'.encode()))
        committer.append(one("customer-1", bytes(range(256))))
        committer.append(one("customer-2", b"", version=0))
        committer.append(Append((event("a"), event("b"), event("a"))))
        stored = rows(
            database,
            "SELECT position, recorded, stream, version, name, body, leaf FROM ledger.events",
        )
        assert len(stored) == 6
        for *entry, leaf in stored:
            assert leaf == leaf_hash(Entry(*entry).to_bytes())

    def test_recorded_time_never_goes_back_even_if_the_clock_does(
        self, committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        committer.append(one("a"))
        rows(
            database,
            "INSERT INTO ledger.events (position, recorded, stream, version, name, body, leaf)"
            " VALUES (2, '2999-12-31T23:59:59.999999Z', 'b', 1, 'N.v1', '', sha256(''))"
            " RETURNING position",
        )
        committer.append(one("a"))
        stored = rows(database, "SELECT recorded FROM ledger.events ORDER BY position")
        future = datetime(2999, 12, 31, 23, 59, 59, 999_999, UTC)
        assert stored[0][0] < future
        assert [recorded for (recorded,) in stored[1:]] == [future, future]

    @pytest.mark.parametrize(
        "bad", [event("a b"), event("a\n"), event(""), NewEvent("a", "N v1", b""), event("客户")]
    )
    def test_a_bad_word_is_refused_and_the_rest_of_the_group_gets_through(
        self, database: DatabaseUrls, bad: NewEvent
    ) -> None:
        appends = [one(f"s{number}") for number in range(40)]
        appends.insert(17, Append((bad,)))
        results = together(database, *appends)
        assert isinstance(results.pop(17), StoreRefusedError)
        assert all(isinstance(result, Appended) for result in results)
        assert len(log(database)) == 40

    def test_a_text_with_a_zero_byte_is_refused_alone(self, database: DatabaseUrls) -> None:
        bad, good = together(database, one("a\x00"), one("b"))
        assert isinstance(bad, StoreRefusedError)
        assert good == Appended(1, 1)


class TestDecisions:
    def decision(self, stream: str, causation: int, ordinal: int | None) -> Append:
        return Append((NewEvent(stream, "OwnershipGranted.v1", b"{}", None, causation, ordinal),))

    def test_they_are_found_by_cause(
        self, committer: CommitterThread, connection: Connection[Any]
    ) -> None:
        committer.append(one("customer-1"))
        committer.append(self.decision("ownership-1", 1, 0))
        committer.append(self.decision("ownership-1", 1, 1))
        found = read_decisions(connection, [1])
        assert [(each.position, each.causation, each.ordinal) for each in found] == [
            (2, 1, 0),
            (3, 1, 1),
        ]

    @pytest.mark.parametrize("ordinal", [0, None])
    def test_a_request_is_decided_once(
        self, committer: CommitterThread, database: DatabaseUrls, ordinal: int | None
    ) -> None:
        committer.append(one("customer-1"))
        committer.append(self.decision("ownership-1", 1, ordinal))
        with pytest.raises(StoreRefusedError):
            committer.append(self.decision("ownership-2", 1, ordinal))
        assert len(log(database)) == 2

    @pytest.mark.parametrize("causation", [1, 2])
    def test_nothing_follows_from_what_comes_later(
        self, committer: CommitterThread, causation: int
    ) -> None:
        with pytest.raises(StoreRefusedError):
            committer.append(self.decision("ownership-1", causation, 0))

    def track_and_append(self, connection: Connection[Any], append: Append) -> Any:
        with connection.pipeline():
            connection.execute("BEGIN")
            connection.execute("INSERT INTO ledger.tracking VALUES ('follower', 1)")
            cursor = append_within(connection, append)
            connection.execute("COMMIT")
        return cursor.fetchone()

    def test_within_a_transaction_a_conflict_fails_all_of_it(
        self, connection: Connection[Any], committer: CommitterThread, database: DatabaseUrls
    ) -> None:
        committer.append(one("a"))
        with pytest.raises(psycopg.Error) as caught:
            self.track_and_append(connection, one("a", version=1))
        connection.rollback()
        assert isinstance(translated(caught.value), VersionConflictError)
        assert len(log(database)) == 1
        assert rows(database, "SELECT * FROM ledger.tracking") == []

    def test_within_a_transaction_everything_is_there_after_the_commit(
        self, connection: Connection[Any], database: DatabaseUrls
    ) -> None:
        with connection.pipeline():
            connection.execute("BEGIN")
            cursor = append_within(connection, asked("req", event("a"), event("b")))
            connection.execute("COMMIT")
        assert cursor.fetchone() == (1,)
        assert log(database) == [(1, "a", 1), (2, "b", 1)]
        assert rows(
            database, "SELECT request_id, first_position, events FROM ledger.request_ids"
        ) == [("req", 1, 2)]


class TestQueue:
    def test_a_full_queue_is_busy_and_what_it_holds_is_recorded(
        self, database: DatabaseUrls, connection: Connection[Any]
    ) -> None:
        async def work(committer: Committer) -> list[Appended]:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(ledger.append_lock_key())")
                waiting = [committer.append(one(f"s{number}")) for number in range(5)]
                with pytest.raises(BusyError) as caught:
                    await committer.append(one("one too many"))
                assert caught.value.retry_after_seconds > 0
                assert committer.queued_events == 5
            results = await asyncio.gather(*waiting)
            assert committer.queued_events == 0
            return [*results, await committer.append(one("now"))]

        limits = CommitterLimits(queued_events_max=5)
        results = with_committer(database, work, limits)
        assert [result.first_position for result in results] == [1, 2, 3, 4, 5, 6]

    def test_bytes_are_counted_too(self, database: DatabaseUrls) -> None:
        limits = CommitterLimits(queued_bytes_max=1_000)
        results = together(
            database, one("a", b"x" * 900), one("b", b"x" * 900), one("c"), limits=limits
        )
        assert results[0] == Appended(1, 1)
        assert isinstance(results[1], BusyError)
        assert results[2] == Appended(2, 1)

    def test_what_is_refused_at_the_door_takes_no_room(self, database: DatabaseUrls) -> None:
        limits = CommitterLimits(queued_events_max=1)

        async def work(committer: Committer) -> Appended:
            for _ in range(3):
                with pytest.raises(EntryTooLargeError):
                    await committer.append(one("a", bytes(ENTRY_BYTES_MAX)))
            return await committer.append(one("a"))

        assert with_committer(database, work, limits) == Appended(1, 1)

    def test_cancelling_withdraws_what_still_waits(
        self, database: DatabaseUrls, connection: Connection[Any]
    ) -> None:
        async def work(committer: Committer) -> None:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(ledger.append_lock_key())")
                under_way = [committer.append(one("a")), committer.append(one("a"))]
                await asyncio.sleep(0)
                withdrawn = committer.append(one("b"))
                withdrawn.cancel()
            await asyncio.gather(*under_way)
            await committer.append(one("c"))
            assert committer.queued_events == 0

        with_committer(database, work, CommitterLimits())
        assert [stream for _, stream, _ in log(database)] == ["a", "a", "c"]

    def test_leaving_finishes_what_was_accepted_and_refuses_more(
        self, database: DatabaseUrls
    ) -> None:
        async def work() -> list[asyncio.Future[Appended]]:
            async with Committer(database.service_url) as committer:
                waiting = [committer.append(one(f"s{number}")) for number in range(100)]
            with pytest.raises(StoreUnavailableError):
                await committer.append(one("late"))
            return waiting

        assert all(each.result() for each in asyncio.run(work()))
        assert len(log(database)) == 100

    def test_a_thread_answers_each_of_many_by_itself(self, committer: CommitterThread) -> None:
        results = committer.append_many([one("a"), one("a", version=7), one("b")])
        assert results[0] == Appended(1, 1)
        assert isinstance(results[1], VersionConflictError)
        assert results[2] == Appended(2, 1)

    def test_each_commit_is_told_once(self, database: DatabaseUrls) -> None:
        commits: list[None] = []

        async def work() -> None:
            async with Committer(
                database.service_url, committed=lambda: commits.append(None)
            ) as committer:
                await asyncio.gather(*(committer.append(one(f"s{n}")) for n in range(10)))
                with pytest.raises(VersionConflictError):
                    await committer.append(one("s1", version=1))

        asyncio.run(work())
        assert len(commits) == 1


class TestReading:
    def test_by_position_by_stream_and_by_pages(
        self, committer: CommitterThread, connection: Connection[Any]
    ) -> None:
        committer.append(Append(tuple(event(f"s{number % 3}") for number in range(10))))
        assert [each.position for each in read_after(connection, 3, 4)] == [4, 5, 6, 7]
        assert [each.position for each in read_after(connection, 3, 4, upto=5)] == [4, 5]
        assert [each.position for each in read_at(connection, [9, 2, 99])] == [2, 9]
        in_stream = read_stream(connection, "s0", after_version=1, upto=9)
        assert [(each.position, each.version) for each in in_stream] == [(4, 2), (7, 3)]


def test_appends_never_scan_a_table_planned_when_it_was_empty(
    database: DatabaseUrls, connection: Connection[Any]
) -> None:
    """A plan made while the tables were empty scanned every request id at each append, until
    statistics came.
    """
    with CommitterThread(database.service_url) as committer:
        for number in range(20):
            committer.append_many(
                [asked(None, event(f"s{number}-{n}")) for n in range(20)]
                + [one(f"t{number}-{n}", version=1) for n in range(20)]
            )
    counters = (
        "SELECT relname, n_tup_ins, seq_scan FROM pg_stat_user_tables"
        " WHERE schemaname = 'ledger' AND relname IN ('events', 'request_ids') ORDER BY relname"
    )
    # The committer's session hands its counters in a moment after it has ended.
    wait_until(lambda: connection.execute(counters).fetchall()[0][1] == 800)
    assert connection.execute(counters).fetchall() == [("events", 800, 0), ("request_ids", 400, 0)]
