"""A real standby that is promoted, and a real backup that is restored, after the primary died.

The primary had recorded, decided and sent to Kafka what neither of them has. What may go wrong
beyond that, test_lost_tail.py shows with copies of a database.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from api.bootstrap import open_ledger
from consumers.kafka.local import LocalKafka
from ledger.errors import AnotherTimelineError
from ledger.store.embedded import EmbeddedServer, embedded_server
from ledger.store.generations import read_generations
from ledger.store.migrations import migrate
from tests.api.test_bootstrap import settings_of
from tests.consumers.kafka.support import cluster_for_a_test, with_topics
from tests.consumers.kafka.test_lost_tail import (
    END,
    Story,
    check_going_on,
    check_whole,
    claim,
    everything,
    send,
)
from tests.support.copies import asked, back_up, copy_of, cut_off, restored, standing_by, urls_of
from tests.support.database import DatabaseServer, DatabaseUrls
from tests.support.folders import data_folder
from tests.support.ledgers import open_test_ledger
from tests.support.processes import wait_until


@dataclass
class WorstDay:
    """The primary is dead; ``log`` is what it had, all of which is in the topic."""

    story: Story
    log: list[list[tuple[Any, ...]]]
    backup: EmbeddedServer
    standby: EmbeddedServer


@pytest.fixture
def worst_day(kafka: LocalKafka) -> Iterator[WorstDay]:
    with data_folder() as folder:
        folder.chmod(0o711)
        with embedded_server(folder / "primary") as primary:
            server = DatabaseServer(primary.superuser_url, primary)
            server.wait_for_the_disk(on=False)
            migrate(primary.owner_url)
            story = Story(server, urls_of(primary), with_topics(cluster_for_a_test(kafka)))
            story.begin()
            backup = back_up(primary, folder / "backup")
            standby = copy_of(backup, folder / "standby")
            with standing_by(standby, primary):
                at = asked(primary, "SELECT pg_current_wal_flush_lsn()")
                reached = f"SELECT pg_last_wal_replay_lsn() >= '{at}'"
                wait_until(lambda: asked(standby, reached) is True)
                cut_off(standby)
                story.go_on()
                send(story.urls, story.cluster)
                log = everything(story.urls)
                process = primary.postmaster_pid()
                assert process is not None
                os.kill(process, signal.SIGKILL)
                yield WorstDay(story, log, backup, standby)


def check_start(day: WorstDay, urls: DatabaseUrls) -> None:
    """The next start puts back what is missing, and all goes on from there."""
    story = day.story
    assert len(everything(urls)[0]) == story.head < END
    with (
        open_test_ledger(urls) as ledger,
        pytest.raises(AnotherTimelineError),
    ):
        claim(ledger, story.customers[3], "per_a", "too early")
    with psycopg.connect(urls.service_url) as connection, pytest.raises(psycopg.Error) as refusal:
        connection.execute("INSERT INTO ledger.events SELECT 17, now(), 'a', 1, 'b', '', ''")
    assert refusal.value.sqlstate == "GS004"
    settings = settings_of(urls, story.cluster.bootstrap, story.cluster.topic_prefix)
    with open_ledger(settings, migrating=False) as opened, opened.pool.connection() as connection:
        first, second = read_generations(connection)
    assert (second.first_position, second.put_back) == (END + 1, END - story.head)
    assert (second.system, second.timeline) == (first.system, first.timeline + 1)
    assert everything(urls) == day.log
    check_whole(urls)
    check_going_on(story, urls, END)


def test_a_promoted_standby_and_a_restored_backup_get_back_what_they_never_had(
    worst_day: WorstDay,
) -> None:
    """In one test, for the servers take longer than all the rest."""
    assert asked(worst_day.standby, "SELECT pg_promote()") is True
    check_start(worst_day, urls_of(worst_day.standby))
    with restored(worst_day.backup):
        check_start(worst_day, urls_of(worst_day.backup))
