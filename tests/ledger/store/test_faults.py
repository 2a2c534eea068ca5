"""The worst moments: lost replies, killed backends and processes, restarts, full disks.

What was acknowledged is in the log, once; what was refused is not; and nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from ledger.errors import (
    LedgerError,
    OutcomeUnknownError,
    StoreFullError,
    StoreRefusedError,
    StoreUnavailableError,
    VersionConflictError,
)
from ledger.store import arrays
from ledger.store.appending import Append, Appended, append_within
from ledger.store.committer import Committer, CommitterLimits, CommitterThread
from ledger.store.embedded import EmbeddedServer, embedded_server
from ledger.store.migrations import migrate
from tests.ledger.store.support import asked, bodies, event, log, one, rows
from tests.support.database import DatabaseServer, DatabaseUrls
from tests.support.processes import run, start, wait_until
from tests.support.proxy import Proxy

pytestmark = pytest.mark.usefixtures("durable")

# For what is to fail. What is to succeed has time, for the machine may be busy.
IMPATIENT = CommitterLimits(unavailable_after_seconds=1.0, statement_timeout_ms=500)

_COMMITTERS = """
SELECT FROM pg_stat_activity WHERE application_name = 'guishu-committer' AND datname = %s
"""


def recorded_at_last(committer: CommitterThread, append: Append) -> bool:
    """Say whether an append is recorded, to be asked again with the same request id."""
    try:
        committer.append(append)
    except (StoreUnavailableError, OutcomeUnknownError):
        return False
    return True


@pytest.fixture
def tampering(database: DatabaseUrls) -> Iterator[Proxy]:
    # Not in tmp_path, whose name can be too long for a socket.
    with (
        TemporaryDirectory(prefix="guishu-proxy-") as folder,
        Proxy(database.service_url, Path(folder)) as proxy,
    ):
        yield proxy


class TestLostReply:
    """The connection is cut after the commit, before the client hears of it."""

    @pytest.fixture
    def committer(self, tampering: Proxy) -> Iterator[CommitterThread]:
        with CommitterThread(tampering.conninfo) as committer:
            committer.append(one("first"))
            yield committer

    @pytest.fixture
    def impatient(self, tampering: Proxy) -> Iterator[CommitterThread]:
        with CommitterThread(tampering.conninfo, IMPATIENT) as committer:
            wait_until(lambda: recorded_at_last(committer, asked("first", event("first"))))
            yield committer

    def test_with_a_request_id_asking_again_gets_the_answer(
        self, committer: CommitterThread, tampering: Proxy, database: DatabaseUrls
    ) -> None:
        tampering.lose("reply", b"guishu_append")
        assert committer.append(asked()) == Appended(2, 1, repeated=True)
        assert tampering.losses == 1
        assert len(log(database)) == 2

    def test_a_stated_version_is_read_back(
        self, committer: CommitterThread, tampering: Proxy, database: DatabaseUrls
    ) -> None:
        """A retry looked like a conflict with somebody else; it was our own success."""
        tampering.lose("reply", b"guishu_append")
        append = Append((event("a", b"1", 1), event("a", b"2", 2)))
        assert committer.append(append) == Appended(2, 2)
        assert tampering.losses == 1
        assert len(log(database)) == 3

    def test_without_either_the_outcome_is_unknown_and_said_to_be(
        self, committer: CommitterThread, tampering: Proxy, database: DatabaseUrls
    ) -> None:
        tampering.lose("reply", b"guishu_append")
        with pytest.raises(OutcomeUnknownError):
            committer.append(one("a"))
        assert len(log(database)) == 2
        assert committer.append(one("a")) == Appended(3, 1)

    def test_each_append_of_the_group_gets_its_own_answer(
        self, committer: CommitterThread, tampering: Proxy, database: DatabaseUrls
    ) -> None:
        """One append without an id made the outcome of the whole group unknown."""
        tampering.lose("reply", b"guishu_append")
        known, unknown, stated, partly = committer.append_many(
            [
                asked(None, event("a")),
                one("b"),
                one("c", version=1),
                Append((event("d"), event("e", version=1))),
            ]
        )
        assert tampering.losses == 1
        assert known == Appended(2, 1, repeated=True)
        assert isinstance(unknown, OutcomeUnknownError)
        assert stated == Appended(4, 1)
        assert isinstance(partly, OutcomeUnknownError)
        assert [stream for _, stream, _ in log(database)] == ["first", "a", "b", "c", "d", "e"]

    def test_a_real_conflict_after_a_lost_request_is_still_a_conflict(
        self, committer: CommitterThread, tampering: Proxy, database: DatabaseUrls
    ) -> None:
        def somebody_else() -> None:
            with CommitterThread(database.service_url) as other:
                other.append(one("a", b"other", version=1))

        tampering.lose("request", b"guishu_append", meanwhile=somebody_else)
        with pytest.raises(VersionConflictError):
            committer.append(one("a", b"mine", version=1))
        assert bodies(database) == [b"{}", b"other"]

    def test_a_lost_request_is_sent_again(
        self, committer: CommitterThread, tampering: Proxy, database: DatabaseUrls
    ) -> None:
        tampering.lose("request", b"guishu_append")
        assert committer.append(asked()) == Appended(2, 1)
        assert len(log(database)) == 2

    def test_what_was_told_to_be_unknown_is_not_sent_again(
        self, committer: CommitterThread, tampering: Proxy, database: DatabaseUrls
    ) -> None:
        """Where the rest of the group was refused as well, its halves still held the append whose
        caller had been told that the outcome is unknown, and it was recorded after that.
        """
        tampering.lose("reply", b"guishu_append")
        unknown, refused, recorded = committer.append_many(
            [one("a"), asked(None, event("no word")), asked(None, event("b"))]
        )
        assert isinstance(unknown, OutcomeUnknownError)
        assert isinstance(refused, StoreRefusedError)
        assert recorded == Appended(2, 1)
        assert [stream for _, stream, _ in log(database)] == ["first", "b"]

    def test_an_append_in_doubt_that_cannot_be_asked_about_stays_unknown(
        self, impatient: CommitterThread, tampering: Proxy, database: DatabaseUrls
    ) -> None:
        """When asking again timed out, the caller was told that nothing was recorded."""
        with psycopg.connect(database.service_url, autocommit=True) as sleeper:

            def fall_asleep() -> None:
                sleeper.execute("BEGIN")
                sleeper.execute("SELECT pg_advisory_xact_lock(ledger.append_lock_key())")

            tampering.lose("reply", b"guishu_append", meanwhile=fall_asleep)
            with pytest.raises(OutcomeUnknownError, match="asking again has failed"):
                impatient.append(asked("req"))
        with CommitterThread(database.service_url) as later:
            assert later.append(asked("req")) == Appended(2, 1, repeated=True)

    def test_a_database_that_does_not_come_back_leaves_the_outcome_unknown(
        self, impatient: CommitterThread, tampering: Proxy, database: DatabaseUrls
    ) -> None:
        tampering.lose("reply", b"guishu_append", meanwhile=tampering.close)
        request = asked("req")
        with pytest.raises(OutcomeUnknownError, match="asking again has failed"):
            impatient.append(request)
        with pytest.raises(StoreUnavailableError):
            impatient.append(one("b"))
        with CommitterThread(database.service_url) as later:
            assert later.append(request) == Appended(2, 1, repeated=True)
        assert len(log(database)) == 2


class TestWaiting:
    @pytest.fixture
    def sleeper(self, database: DatabaseUrls) -> Iterator[Connection[Any]]:
        """A session that keeps the append lock until it is told to go on."""
        with psycopg.connect(database.service_url, autocommit=True) as connection:
            arrays.register(connection)
            connection.execute("BEGIN")
            append_within(connection, one("sleeper"))
            yield connection

    def test_while_a_session_sleeps_with_the_lock_appends_fail_in_time(
        self, database: DatabaseUrls, sleeper: Connection[Any]
    ) -> None:
        limits = CommitterLimits(unavailable_after_seconds=0.2, statement_timeout_ms=100)
        with CommitterThread(database.service_url, limits) as committer:
            results = committer.append_many([one("a"), one("b"), asked()])
            assert all(isinstance(each, StoreUnavailableError) for each in results)
            sleeper.execute("COMMIT")
            wait_until(lambda: recorded_at_last(committer, asked("c", event("c"))))
        assert [stream for _, stream, _ in log(database)] == ["sleeper", "c"]

    def test_an_append_that_was_timed_out_is_tried_again(
        self, database: DatabaseUrls, sleeper: Connection[Any]
    ) -> None:
        limits = CommitterLimits(statement_timeout_ms=200)
        with CommitterThread(database.service_url, limits) as committer:
            answer: list[Appended] = []
            thread = threading.Thread(target=lambda: answer.append(committer.append(one("a"))))
            thread.start()
            attempts: set[tuple[object, ...]] = set()

            def has_tried_twice() -> bool:
                attempts.update(
                    rows(
                        database,
                        "SELECT query_start FROM pg_stat_activity WHERE wait_event = 'advisory'"
                        " AND application_name = 'guishu-committer' AND datname = %s",
                        database.name,
                    )
                )
                return len(attempts) >= 2

            wait_until(has_tried_twice)
            sleeper.execute("COMMIT")
            thread.join()
        assert answer == [Appended(2, 1)]

    def test_a_service_that_hangs_in_a_transaction_is_ended(
        self, database: DatabaseUrls, sleeper: Connection[Any]
    ) -> None:
        """Else it would keep the lock for ever; the time-out is the role's own."""
        row = sleeper.execute("SHOW idle_in_transaction_session_timeout").fetchone()
        assert row == ("10s",)
        sleeper.execute("SET idle_in_transaction_session_timeout = '50ms'")
        with CommitterThread(database.service_url) as committer:
            assert committer.append(one("a")) == Appended(1, 1)
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            sleeper.execute("COMMIT")

    def test_nothing_is_recorded_where_there_is_no_database(self, database: DatabaseUrls) -> None:
        nowhere = psycopg.conninfo.make_conninfo(database.service_url, dbname="guishu_not_there")
        with (
            CommitterThread(nowhere, IMPATIENT) as committer,
            pytest.raises(StoreUnavailableError),
        ):
            committer.append(one("a"))

    def test_a_defect_of_ours_reaches_the_caller_and_the_committer_goes_on(
        self, database: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An unforeseen error ended the committer's task, and every later append hung."""
        with CommitterThread(database.service_url) as committer:
            committer.append(one("a"))
            with monkeypatch.context() as patched:
                patched.setattr("ledger.store.writer.parameters", lambda appends: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    committer.append(one("b"))
            assert committer.append(one("c")) == Appended(2, 1)


class Load:
    """Threads that append with request ids until they are told to end."""

    def __init__(self, conninfo: str, threads: int = 4) -> None:
        self._conninfo = conninfo
        self._end = threading.Event()
        self.acknowledged: dict[bytes, int] = {}
        self.refused: dict[bytes, LedgerError] = {}
        self._threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(threads)
        ]

    def __enter__(self) -> Load:
        self._committer = CommitterThread(self._conninfo).__enter__()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        self._committer.__exit__()

    def _work(self, thread: int) -> None:
        number = 0
        while not self._end.is_set():
            body = b"%d/%d" % (thread, number)
            number += 1
            try:
                appended = self._committer.append(
                    asked(body.decode(), event(f"customer-{number % 10}", body))
                )
                self.acknowledged[body] = appended.first_position
            except LedgerError as error:
                self.refused[body] = error

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more appends have been acknowledged."""
        enough = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= enough)


def check_log(urls: DatabaseUrls, acknowledged: dict[bytes, int]) -> None:
    """Assert that what was acknowledged stands where it was said to stand, and nothing twice."""
    stored = bodies(urls)
    assert [position for position, _, _ in log(urls)] == list(range(1, len(stored) + 1))
    assert {body: stored[position - 1] for body, position in acknowledged.items()} == {
        body: body for body in acknowledged
    }
    assert len(set(stored)) == len(stored)


def test_killed_backends_lose_and_repeat_nothing(database: DatabaseUrls) -> None:
    with Load(database.service_url) as load:
        for _ in range(20):
            load.wait_for_more(30)
            rows(
                database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'guishu-committer' AND datname = %s",
                database.name,
            )
        load.wait_for_more(30)
    assert load.refused == {}
    check_log(database, load.acknowledged)


@pytest.fixture
def own_server(servers_folder: Path) -> Iterator[EmbeddedServer]:
    """A server that the test may stop, freeze or fill."""
    with embedded_server(servers_folder) as server:
        yield server


def own_database(server: EmbeddedServer) -> DatabaseUrls:
    migrate(server.owner_url)
    return DatabaseServer(server.superuser_url, server).urls("guishu")


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_restart_of_the_database_loses_and_repeats_nothing(
    own_server: EmbeddedServer, mode: Any
) -> None:
    urls = own_database(own_server)
    with Load(urls.service_url) as load:
        for _ in range(2):
            load.wait_for_more(100)
            own_server.restart(mode)
        load.wait_for_more(100)
    assert load.refused == {}
    check_log(urls, load.acknowledged)


def test_a_server_that_answers_nothing_at_all_is_given_up(own_server: EmbeddedServer) -> None:
    """A frozen backend says neither yes nor that it timed out; waiting for it had no end."""
    urls = own_database(own_server)
    limits = CommitterLimits(statement_timeout_ms=500, silence_seconds_max=1.0)
    with CommitterThread(urls.service_url, limits) as committer:
        committer.append(one("first"))
        ((pid,),) = rows(
            urls, "SELECT pid FROM pg_stat_activity WHERE application_name = 'guishu-committer'"
        )
        os.kill(pid, signal.SIGSTOP)
        try:
            assert committer.append(asked()) == Appended(2, 1)
        finally:
            os.kill(pid, signal.SIGCONT)
        # Now it reads what was sent to it, and finds the request recorded.
        wait_until(lambda: rows(urls, "SELECT FROM pg_stat_activity WHERE pid = %s", pid) == [])
    assert len(log(urls)) == 2


def test_a_killed_process_loses_nothing_and_repeats_nothing_when_it_starts_again(
    database: DatabaseUrls,
) -> None:
    script = "tests.ledger.store.appending_process"
    count = 3_000
    acknowledged: dict[bytes, int] = {}
    arguments = (sys.executable, "-m", script, database.service_url, str(count))
    process = start(*arguments, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(500):
        number, position, repeated = process.stdout.readline().split()
        assert repeated == b"0"
        acknowledged[number] = int(position)
    process.kill()
    process.wait()
    for line in process.stdout.read().splitlines()[:-1]:
        acknowledged[line.split()[0]] = int(line.split()[1])
    process.stdout.close()
    # The server ends what it was told in full some moments after who told it was killed.
    wait_until(lambda: rows(database, _COMMITTERS, database.name) == [])
    check_log(database, acknowledged)

    again, _ = start(*arguments, stdout=subprocess.PIPE).communicate()
    answers = [line.split() for line in again.splitlines()]
    assert len(answers) == count
    assert sum(repeated == b"1" for _, _, repeated in answers) >= len(acknowledged)
    for number, position, _ in answers:
        assert acknowledged.setdefault(number, int(position)) == int(position)
    check_log(database, acknowledged)
    assert len(log(database)) == count


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Callable[[int], None]]:
    """Mount a small file system at ``folder``; yields a function that changes its size."""
    mounted = run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0711", "guishu", folder)
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not possible here: {mounted.stderr.strip()}")

    def resize(mebibytes: int) -> None:
        assert run("mount", "-o", f"remount,size={mebibytes}m", folder).returncode == 0

    try:
        yield resize
    finally:
        unmounted = run("umount", folder)
        assert unmounted.returncode == 0, unmounted.stderr


def test_a_full_disk_refuses_and_loses_nothing(servers_folder: Path) -> None:
    acknowledged: dict[bytes, int] = {}
    refused: dict[str, LedgerError] = {}
    bodies = {f"req_{number}": os.urandom(30_000) for number in range(5_000)}

    async def append(committer: Committer, request_id: str) -> None:
        body = bodies[request_id]
        try:
            appended = await committer.append(asked(request_id, event(request_id, body)))
            acknowledged[body] = appended.first_position
        except LedgerError as error:
            refused[request_id] = error

    async def append_until_refused(conninfo: str) -> None:
        limits = CommitterLimits(unavailable_after_seconds=3.0)
        async with Committer(conninfo, limits) as committer:
            left = list(bodies)
            while left and not refused:
                await asyncio.gather(*(append(committer, each) for each in left[:20]))
                del left[:20]

    async def append_refused(conninfo: str) -> None:
        async with Committer(conninfo) as committer:
            again = list(refused)
            refused.clear()
            await asyncio.gather(*(append(committer, each) for each in again))

    with small_disk(servers_folder, 160) as resize, embedded_server(servers_folder) as server:
        urls = own_database(server)
        asyncio.run(append_until_refused(urls.service_url))
        # Full is either a table, which the database says, or its journal, which ends the server.
        expected = {StoreFullError, StoreUnavailableError, OutcomeUnknownError}
        assert refused
        assert {type(error) for error in refused.values()} <= expected
        resize(1_000)
        server.ensure_running()
        check_log(urls, acknowledged)
        asyncio.run(append_refused(urls.service_url))
        assert refused == {}
        check_log(urls, acknowledged)
        assert len(acknowledged) == len(log(urls))
