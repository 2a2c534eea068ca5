"""A reader that tails the log beside writers that sleep, roll back and die misses nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import psycopg
import pytest

from ledger.errors import LedgerError, OutcomeUnknownError
from ledger.store import arrays
from ledger.store.appending import Append, append_within
from ledger.store.committer import CommitterThread
from ledger.store.hints import Notifier, wait_for_news
from ledger.store.reading import read_after
from tests.ledger.store.support import asked, event, log, rows
from tests.support.database import DatabaseUrls

TRANSACTIONS = 60


def seeded(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a test that can be repeated, no secret


def some(random_: random.Random) -> Append:
    """Return an append of one to five events of a few streams."""
    return Append(
        tuple(event(f"customer-{random_.randrange(5)}") for _ in range(random_.randint(1, 5)))
    )


def commits_late(urls: DatabaseUrls, random_: random.Random) -> None:
    """Append, sleep with the positions taken, then commit or roll back."""
    with psycopg.connect(urls.service_url, autocommit=True) as connection:
        arrays.register(connection)
        for _ in range(TRANSACTIONS):
            back = random_.random() < 0.3
            with connection.transaction(force_rollback=back):
                append_within(connection, some(random_))
                connection.execute("SELECT pg_sleep(%s)", (random_.random() / 200,))


def dies(urls: DatabaseUrls, random_: random.Random) -> None:
    """Append, and lose the connection before, in or after the commit."""
    for _ in range(TRANSACTIONS // 3):
        with psycopg.connect(urls.service_url, autocommit=True) as connection:
            arrays.register(connection)
            pid = connection.info.backend_pid
            end = threading.Timer(
                random_.random() / 100, rows, (urls, "SELECT pg_terminate_backend(%s)", pid)
            )
            end.start()
            try:
                with connection.transaction():
                    append_within(connection, some(random_))
                    connection.execute("SELECT pg_sleep(0.005)")
            except psycopg.OperationalError:
                pass
            end.join()


def appends_in_groups(urls: DatabaseUrls, random_: random.Random) -> None:
    """Append as a service does, conflicts included, over a connection that is ended at times."""
    with (
        Notifier(urls.service_url) as notifier,
        CommitterThread(urls.service_url, committed=notifier.hint) as committer,
    ):
        for number in range(TRANSACTIONS):
            appends = [some(random_) for _ in range(5)]
            appends += [asked(None, event("customer-1", version=number)), asked()]
            results = committer.append_many(appends)
            failures = [each for each in results if isinstance(each, LedgerError)]
            assert all(
                isinstance(each, OutcomeUnknownError) or each.code == "version_conflict"
                for each in failures
            )
            if number % 20 == 10:
                rows(
                    urls,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'guishu-committer' AND datname = %s",
                    urls.name,
                )


class Tail(threading.Thread):
    """Reads what is behind the last position read, again and again, until all have written."""

    def __init__(self, urls: DatabaseUrls, wait: Callable[[psycopg.Connection], object]) -> None:
        super().__init__()
        self._urls = urls
        self._wait = wait
        self.all_have_written = threading.Event()
        self.seen: list[tuple[int, str, int]] = []

    def run(self) -> None:
        with psycopg.connect(self._urls.service_url, autocommit=True) as connection:
            after = 0
            while True:
                done = self.all_have_written.is_set()
                page = read_after(connection, after, limit=7)
                self.seen.extend((each.position, each.stream, each.version) for each in page)
                if page:
                    after = page[-1].position
                elif done:
                    return
                else:
                    self._wait(connection)


@pytest.mark.parametrize("seed", range(3))
def test_a_tail_sees_every_position_once_and_in_order(database: DatabaseUrls, seed: int) -> None:
    """By sequence numbers a tailing reader missed 13 of 161,604 events: positions became visible
    out of order.
    """
    busy = Tail(database, lambda connection: None)
    waiting = Tail(database, lambda connection: wait_for_news(connection, 0.05))
    writers = [
        threading.Thread(target=target, args=(database, seeded(f"{seed}/{number}")))
        for number, target in enumerate(
            [commits_late, commits_late, dies, dies, appends_in_groups, appends_in_groups]
        )
    ]
    for thread in [busy, waiting, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    for tail in (busy, waiting):
        tail.all_have_written.set()
        tail.join()
    everything = log(database)
    assert [position for position, _, _ in everything] == list(range(1, len(everything) + 1))
    assert busy.seen == everything
    assert waiting.seen == everything
    for stream in {stream for _, stream, _ in everything}:
        versions = [version for _, each, version in everything if each == stream]
        assert versions == list(range(1, len(versions) + 1))
