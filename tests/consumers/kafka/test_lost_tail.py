"""A database that has lost what was recorded last gets it back from the topic, byte for byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from kafka import TopicPartition
from psycopg import Connection

from consumers.kafka import putting_back, records, tail
from consumers.kafka.chain import Chain
from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import (
    GiveUpRefusedError,
    TailIncompleteError,
    TailLostError,
    TopicForeignError,
)
from consumers.kafka.records import Encoded
from consumers.kafka.relay import relaying
from consumers.kafka.tail import give_up, open_behind_tail
from consumers.kafka.topics import LOG
from consumers.rebuilding import compare_guards
from ledger import commands
from ledger import organisation_commands as facts
from ledger.envelope import StoredEvent
from ledger.errors import RequestReusedError
from ledger.recording import Asked, Recorded
from ledger.store.generations import Generation, open_generation, read_generations
from ledger.verification import verify_log
from projections.registry import all_projections
from projections.runner import Runner
from tests.consumers.kafka.support import PARTITIONS, QUICK, check_topic, with_topics
from tests.ledger.store.support import rows
from tests.support.database import DatabaseServer, DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger
from tests.support.processes import wait_until

REPS = ("per_a", "per_b", "per_c")
_EVENTS = """
SELECT position, recorded, stream, version, name, body, leaf, causation, ordinal
FROM ledger.events ORDER BY position
"""
_WITH_ASKED = """
SELECT e.position, e.recorded, e.stream, e.version, e.name, e.body, e.causation, e.ordinal,
       r.events, r.digest
FROM ledger.events e LEFT JOIN ledger.request_ids r ON r.first_position = e.position
ORDER BY e.position
"""
_OWNERS = "SELECT customer, owner FROM projections.ownership WHERE owner IS NOT NULL"
# Where the log of the story ends.
END = 26
RELEASED = 24
_REQUEST_IDS = "SELECT * FROM ledger.request_ids ORDER BY first_position"


def everything(urls: DatabaseUrls) -> list[list[tuple[Any, ...]]]:
    """Return all columns of the log, and of its request ids."""
    with psycopg.connect(urls.superuser_url) as connection:
        return [connection.execute(each.encode()).fetchall() for each in (_EVENTS, _REQUEST_IDS)]


@contextmanager
def service(urls: DatabaseUrls) -> Iterator[Connection[Any]]:
    with psycopg.connect(urls.service_url, autocommit=True) as connection:
        yield connection


def send(urls: DatabaseUrls, cluster: Cluster) -> None:
    """Send the whole log to its topic."""
    with service(urls) as connection, relaying(connection, cluster, QUICK) as relay:
        relay.catch_up()


def claim(ledger: TestLedger, customer: str, claimant: str, request_id: str) -> Recorded:
    command = commands.FileClaim(customer=customer, claimant=claimant)
    return ledger.recording.record(Asked(command, ledger.origin(claimant, request_id=request_id)))


class Story:
    """A ledger that was copied, and went on: what it recorded since is what the copy has lost."""

    def __init__(self, server: DatabaseServer, urls: DatabaseUrls, cluster: Cluster) -> None:
        self.server, self.urls, self.cluster = server, urls, cluster
        self.customers: list[str] = []
        self.head = 0

    def begin(self) -> None:
        with open_test_ledger(self.urls) as ledger:
            open_generation(ledger.connection)
            ledger.found(REPS)
            self.customers = [ledger.register(f"客户{number}") for number in range(4)]
            claim(ledger, self.customers[0], "per_a", "first")
            ledger.decide()
            self.head = len(ledger.log())
        send(self.urls, self.cluster)

    @contextmanager
    def copy(self) -> Iterator[DatabaseUrls]:
        """A copy as it is now, that finds itself on a server that has not written before."""
        with self.server.database(self.urls.name) as urls:
            with psycopg.connect(urls.superuser_url, autocommit=True) as superuser:
                superuser.execute("UPDATE ledger.generations SET system = 'another'")
            yield urls

    def go_on(self) -> None:
        """Ask and decide more, some of it in several events, and leave a claim undecided."""
        with open_test_ledger(self.urls) as ledger:
            claim(ledger, self.customers[1], "per_b", "second")
            claim(ledger, self.customers[0], "per_c", "rival")
            ledger.decide()
            added = [facts.AddPerson(person=each, name=each) for each in ("per_d", "per_e")]
            ledger.recording.record_facts(added, ledger.origin(request_id="more people"))
            ledger.ask(commands.ReleaseCustomer(customer=self.customers[1]), "per_b")
            ledger.decide()
            claim(ledger, self.customers[2], "per_a", "undecided")

    @property
    def log_topic(self) -> str:
        return LOG.name(self.cluster.topic_prefix)


@pytest.fixture
def story(postgres: DatabaseServer, database: DatabaseUrls, cluster: Cluster) -> Story:
    begun = Story(postgres, database, with_topics(cluster))
    begun.begin()
    return begun


def check_whole(urls: DatabaseUrls) -> None:
    """The log passes the audit, and the guards are what it makes of them."""
    with open_test_ledger(urls) as ledger:
        report = verify_log(ledger.connection, ledger.catalogue)
        assert report.good, list(report.lines())
        assert compare_guards(ledger.connection, ledger.catalogue) == []


def answer(ledger: TestLedger, customer: str, claimant: str, request_id: str) -> tuple[int, bool]:
    """Ask again what was asked; return the position of the answer, and whether it is the first."""
    recorded = claim(ledger, customer, claimant, request_id)
    return recorded.positions[0], recorded.repeated


def check_going_on(story: Story, urls: DatabaseUrls, upto: int) -> None:
    """What was asked up to a position is answered as before; the rest is decided, once each."""
    with open_test_ledger(urls) as ledger:
        asked = {
            "second": (1, "per_b", 17),
            "rival": (0, "per_c", 18),
            "undecided": (2, "per_a", 26),
        }
        for request_id, (number, claimant, position) in asked.items():
            found = answer(ledger, story.customers[number], claimant, request_id)
            assert (found == (position, True)) == (position <= upto)
        ledger.decide()
        with service(urls) as connection:
            runner = Runner(connection, all_projections(ledger.vault), ledger.catalogue)
            runner.start()
            runner.catch_up()
            assert runner.position == len(ledger.log())
        owners = {story.customers[0]: "per_a", story.customers[2]: "per_a"}
        if upto < RELEASED:
            owners[story.customers[1]] = "per_b"
        assert dict(ledger.connection.execute(_OWNERS).fetchall()) == owners
        causes = Counter((each.causation, each.ordinal) for each in ledger.log() if each.causation)
        assert set(causes.values()) == {1}
    check_whole(urls)


def send_only(
    story: Story,
    positions: Sequence[int],
    change: Callable[[Encoded], Encoded] = lambda encoded: encoded,
    generation: int = 1,
) -> None:
    """Send these positions of the log as a relay does, which had sent what the copy has."""
    chain = Chain(PARTITIONS, {})
    with service(story.urls) as connection, story.cluster.producer() as producer:
        rows = connection.execute(_WITH_ASKED).fetchall()
        for row in rows:
            placed = chain.place(StoredEvent._make(row[:8]))
            asked = None if row[8] is None else records.Asked(row[8], row[9])
            if placed.event.position in positions:
                key, value, headers = change(records.encode(placed, generation, asked))
                producer.send(*(story.log_topic, value, key, headers), partition=placed.partition)
        producer.flush()


def other_body(encoded: Encoded) -> Encoded:
    head, _ = encoded.value.split(b"\n", 1)
    return encoded._replace(value=head + b'\n{"other":1}')


def refused(urls: DatabaseUrls, cluster: Cluster, words: str, keep: int) -> None:
    """Opening is refused in these words, nothing is changed, and no other position is given up."""
    before = everything(urls)
    with service(urls) as connection:
        with pytest.raises(TailIncompleteError, match=words) as refusal:
            open_behind_tail(connection, cluster)
        assert refusal.value.keep == keep
        assert refusal.value.way_out.endswith(f"guishu generations give-up {keep}")
        with pytest.raises(GiveUpRefusedError, match=f"up to position {keep}, and not {keep + 1}"):
            give_up(connection, cluster, keep + 1, "auditor")
        assert read_generations(connection).newest == 1
    assert everything(urls) == before


def given_up(urls: DatabaseUrls, cluster: Cluster, keep: int) -> Generation:
    """Give up what is behind a position; return the generation that is opened."""
    with service(urls) as connection:
        opened = give_up(connection, cluster, keep, "auditor")
        assert list(read_generations(connection))[-1] == opened
    assert opened.first_position == keep + 1
    assert opened.given_up_by == "auditor"
    return opened


def test_the_tail_comes_back_byte_for_byte_and_the_consumers_go_on(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(putting_back, "PAGE_EVENTS", 3)
    monkeypatch.setattr(tail, "_COMPARED_AT_ONCE", 3)
    with story.copy() as lost:
        story.go_on()
        send(story.urls, story.cluster)
        with service(lost) as connection:
            open_behind_tail(connection, story.cluster)
            opened = list(read_generations(connection))[-1]
        assert everything(lost) == everything(story.urls)
        assert (opened.number, opened.first_position) == (2, END + 1)
        assert (opened.put_back, opened.given_up_by) == (END - story.head, None)
        check_whole(lost)
        check_going_on(story, lost, END)
        # What the new server records is sent behind it, and nothing is missing in between.
        send(lost, story.cluster)
        check_topic(story.cluster, lost)


def test_of_two_that_start_at_once_one_puts_it_back_and_one_that_fails_leaves_nothing(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    with story.copy() as lost, ThreadPoolExecutor() as threads:
        story.go_on()
        send(story.urls, story.cluster)
        before = everything(lost)

        def start() -> None:
            with service(lost) as connection:
                open_behind_tail(connection, story.cluster)

        with monkeypatch.context() as failing:
            failing.setattr(tail, "rebuild_guards", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                start()
        assert everything(lost) == before
        for each in [threads.submit(start), threads.submit(start)]:
            each.result(60)
        assert everything(lost) == everything(story.urls)
        assert rows(lost, "SELECT count(*) FROM ledger.generations") == [(2,)]


@pytest.mark.parametrize(
    ("sent", "words", "keep"),
    [
        ({*range(17, 27)} - {19, 24}, "missing are positions 19, 24;", 18),
        # Half of what was decided together, and half of what was recorded together.
        (range(17, 21), "missing is position 21, recorded together with 20", 19),
        (range(17, 23), "missing is position 23, recorded together with 22", 21),
    ],
)
def test_where_some_of_it_is_missing_it_is_said_which_and_somebody_gives_it_up(
    story: Story, sent: Sequence[int], words: str, keep: int
) -> None:
    with story.copy() as lost:
        story.go_on()
        send_only(story, sent)
        refused(lost, story.cluster, words, keep)
        opened = given_up(lost, story.cluster, keep)
        assert (opened.put_back, opened.given_up_upto) == (keep - story.head, max(sent))
        kept = everything(story.urls)
        assert everything(lost)[0] == kept[0][:keep]
        assert everything(lost)[1] == [each for each in kept[1] if each[3] <= keep]
        check_going_on(story, lost, keep)
        # Nothing of the older generation is in the way of those who read the topic.
        send(lost, story.cluster)


def test_whole_decisions_at_the_very_end_are_put_back(story: Story) -> None:
    with story.copy() as lost:
        story.go_on()
        send_only(story, range(17, 22))
        with (
            service(lost) as connection,
            pytest.raises(GiveUpRefusedError, match="Nothing is missing"),
        ):
            give_up(connection, story.cluster, 21, "auditor")
        # A relay that has outlived the failover puts it back as well as any start.
        send(lost, story.cluster)
        assert everything(lost)[0] == everything(story.urls)[0][:21]
        check_going_on(story, lost, 21)


def test_what_contradicts_the_rest_is_not_put_back(story: Story) -> None:
    with story.copy() as lost:
        story.go_on()
        send(story.urls, story.cluster)
        send_only(story, [24], other_body)
        refused(lost, story.cluster, "holds at position 24 contradicts the rest", 23)
        assert given_up(lost, story.cluster, 23).given_up_upto == END
        check_going_on(story, lost, 23)


def test_a_copy_from_before_a_later_generation_puts_nothing_back(story: Story) -> None:
    """Which of two servers wrote what the topic holds in between, the copy cannot know."""
    with story.copy() as lost:
        story.go_on()
        send_only(story, range(17, 22))
        send_only(story, range(20, 27), generation=5)
        refused(lost, story.cluster, "position 20 in the topic is of generation 5", 16)
        opened = given_up(lost, story.cluster, 16)
        assert (opened.number, opened.put_back, opened.given_up_upto) == (6, 0, 26)


def test_another_ledgers_topic_is_left_alone(story: Story) -> None:
    with story.copy() as lost:
        story.go_on()
        send_only(story, [3, *range(17, 27)], other_body)
        with (
            service(lost) as connection,
            pytest.raises(TopicForeignError, match="something else at position 3"),
        ):
            open_behind_tail(connection, story.cluster)


def test_a_topic_that_is_gone_or_was_made_anew_tells_nothing(story: Story) -> None:
    with story.copy() as lost:
        story.go_on()
        send(story.urls, story.cluster)
        name = story.log_topic
        with story.cluster.admin() as admin:
            admin.delete_topics([name])
            wait_until(lambda: name not in admin.list_topics())
        refused(lost, story.cluster, "was filled, and does not exist any more", story.head)
        with_topics(story.cluster)
        refused(lost, story.cluster, "was made anew, and what it held before", story.head)
        opened = given_up(lost, story.cluster, story.head)
        assert (opened.put_back, opened.given_up_upto) == (0, None)
        check_going_on(story, lost, story.head)


def test_what_has_expired_is_missing(story: Story) -> None:
    with story.copy() as lost:
        story.go_on()
        send(story.urls, story.cluster)
        at = [TopicPartition(story.log_topic, number) for number in range(PARTITIONS)]
        with story.cluster.consumer() as consumer, story.cluster.admin() as admin:
            admin.delete_records(consumer.end_offsets(at))
        refused(lost, story.cluster, "all that partition 0 of the topic held has expired", 16)


def test_of_a_record_without_a_digest_the_request_id_counts_as_used(story: Story) -> None:
    """As older relays sent them: rather refused than recorded twice."""
    with story.copy() as lost:
        story.go_on()

        def as_before(encoded: Encoded) -> Encoded:
            head, body = encoded.value.split(b"\n", 1)
            _, generation, previous, *entry, causation, ordinal, _, _ = head.split(b" ")
            headers = [("entry", b" ".join(entry)), ("link", generation + b" " + previous)]
            if causation != b"-":
                headers.append(("cause", causation + b" " + ordinal))
            return Encoded(encoded.key, body, headers)

        send_only(story, range(17, 27), as_before)
        with service(lost) as connection:
            open_behind_tail(connection, story.cluster)
        with open_test_ledger(lost) as ledger, pytest.raises(RequestReusedError):
            claim(ledger, story.customers[1], "per_b", "second")
        check_whole(lost)


def test_a_log_that_has_everything_and_a_topic_that_was_never_filled_are_no_reason_to_wait(
    story: Story, database: DatabaseUrls
) -> None:
    with story.copy() as copied, service(copied) as connection:
        other = Cluster(story.cluster.bootstrap, "test-never-filled")
        with pytest.raises(GiveUpRefusedError):
            give_up(connection, other, story.head, "auditor")
        open_behind_tail(connection, story.cluster)
        assert [each.put_back for each in read_generations(connection)] == [0, 0]
    with story.copy() as copied, service(copied) as connection:
        open_behind_tail(connection, other)
        assert read_generations(connection).newest == 2


def test_on_a_server_that_has_written_already_nothing_is_put_back_but_it_can_be_given_up(
    story: Story, postgres: DatabaseServer
) -> None:
    """A dump that was restored where it came from: it may have written in the tail's place."""
    with postgres.database(story.urls.name) as restored:
        story.go_on()
        send(story.urls, story.cluster)
        with pytest.raises(TailLostError, match="up to 26, and the log ends at 16") as refusal:
            send(restored, story.cluster)
        assert "give-up 16" in refusal.value.way_out
        opened = given_up(restored, story.cluster, 16)
        assert (opened.put_back, opened.given_up_upto) == (0, END)
        check_going_on(story, restored, 16)
        send(restored, story.cluster)


class TestPuttingBack:
    """The function of the database writes what comes next, and only where nobody else may."""

    CALL = (
        "SELECT ledger.put_back_events(%s, ARRAY[%s::timestamptz], ARRAY[%s], ARRAY[%s],"
        " ARRAY['ClaimFiled.v1'], ARRAY['{}'::bytea], ARRAY[NULL::bigint], ARRAY[NULL::integer],"
        " '{}', '{}', '{}', '{}', '{}')"
    )

    def test_once_a_generation_is_open_nothing_is_put_back(self, database: DatabaseUrls) -> None:
        with service(database) as connection:
            open_generation(connection)
            with pytest.raises(psycopg.Error) as refusal:
                connection.execute(self.CALL.encode(), (1, "2099-01-01", "customer-a", 1))
            assert refusal.value.sqlstate == "GS005"

    def test_what_does_not_follow_on_the_log_is_refused(self, database: DatabaseUrls) -> None:
        with service(database) as connection:
            connection.execute(self.CALL.encode(), (1, "2050-01-01", "customer-a", 1))
            for position, day, stream, version in (
                (1, "2099-01-01", "customer-b", 1),
                (3, "2099-01-01", "customer-b", 1),
                (2, "2049-12-31", "customer-b", 1),
                (2, "2099-01-01", "customer-b", 2),
                (2, "2099-01-01", "customer-a", 1),
            ):
                with pytest.raises(psycopg.Error) as refusal:
                    connection.execute(self.CALL.encode(), (position, day, stream, version))
                assert refusal.value.sqlstate == "GS006"
            connection.execute(self.CALL.encode(), (2, "2050-01-01", "customer-a", 2))
