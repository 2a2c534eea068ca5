"""The examples of subscribers: their copies are right, whatever ended them."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumers.kafka.chain import partition_of
from consumers.kafka.connecting import Cluster
from consumers.kafka.local import LocalKafka
from consumers.kafka.topics import CURRENT
from projections.ownership import list_ownership
from tests.consumers.kafka.publishing.support import (
    founded,
    go_on,
    make_anew,
    one,
    publish_all,
    record,
    relay_all,
    told,
)
from tests.consumers.kafka.support import PARTITIONS, cluster_for_a_test, with_topics
from tests.projections.history import History
from tests.projections.models import Models, connected
from tests.support.database import DatabaseUrls
from tests.support.node import program, with_packages
from tests.support.processes import run, start, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples" / "subscribers"
CUSTOMERS = [f"cus_{number}" for number in range(7)]

Copy = dict[str, str | None]
"""Who owns which customer."""


@dataclass(frozen=True)
class Subscriber:
    """An example, and the file in which it keeps its copy."""

    command: tuple[str | os.PathLike[str], ...]
    cluster: Cluster
    file: Path

    def arguments(self, *more: str) -> tuple[str | os.PathLike[str], ...]:
        topic = CURRENT.name(self.cluster.topic_prefix)
        return (*self.command, self.cluster.bootstrap, self.file, "--topic", topic, *more)

    def read_all(self, *more: str) -> list[str]:
        """Let it read up to where the topic ends now; return what it says."""
        done = run(*self.arguments("--until-end", *more))
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def copy(self) -> Copy:
        """Return what it holds."""
        if self.file.suffix == ".sqlite":
            with closing(sqlite3.connect(self.file)) as database:
                return dict(database.execute("SELECT customer, owner FROM ownership").fetchall())
        held = json.loads(self.file.read_text(encoding="utf-8"))["partitions"].values()
        return {
            customer: owned["owner"] and owned["owner"]["id"]
            for partition in held
            for customer, owned in partition["ownership"].items()
        }

    def holds_something(self) -> bool:
        try:
            return bool(self.copy())
        except (FileNotFoundError, sqlite3.OperationalError):  # it is not made yet
            return False


@pytest.fixture(params=["python", "javascript"])
def subscriber(request: pytest.FixtureRequest, kafka: LocalKafka, tmp_path: Path) -> Subscriber:
    cluster = with_topics(cluster_for_a_test(kafka))
    if request.param == "python":
        command = (sys.executable, EXAMPLES / "python" / "subscriber.py")
        return Subscriber(command, cluster, tmp_path / "copy.sqlite")
    folder = with_packages(EXAMPLES / "javascript", tmp_path / "javascript")
    return Subscriber((program("node"), folder / "subscriber.mjs"), cluster, tmp_path / "copy.json")


def owners(urls: DatabaseUrls, history: History) -> Copy:
    """Return what the ledger's own read model says."""
    with connected(urls.service_url) as connection:
        Models(urls, connection).project(history)
        return {each.customer: each.owner for each in list_ownership(connection)}


def test_a_copy_is_right_after_it_was_killed_in_the_middle(
    database: DatabaseUrls, subscriber: Subscriber
) -> None:
    history = founded()
    go_on(history, CUSTOMERS, seed=4, steps=60)
    record(database, history)
    publish_all(database, subscriber.cluster)
    killed = start(*subscriber.arguments())
    try:
        wait_until(subscriber.holds_something)
    finally:
        killed.kill()
        killed.wait()
    go_on(history, ["cus_7", "cus_8"], seed=5, steps=60)
    history.claim("cus_1", "per_1")
    record(database, history)
    publish_all(database, subscriber.cluster)
    subscriber.read_all()
    assert subscriber.copy() == owners(database, history)
    assert subscriber.read_all() == [], "it has seen it all"


def test_it_knows_its_own_doing(database: DatabaseUrls, subscriber: Subscriber) -> None:
    history = founded()
    go_on(history, CUSTOMERS[:1], seed=6, steps=0)
    position = history.claim("cus_0", "per_1")
    record(database, history)
    publish_all(database, subscriber.cluster)
    request = history.event(position).envelope["request_id"]
    *_, said = subscriber.read_all("--caller", "tests")
    assert said == f"cus_0: per_1 (by our own request {request})"


def test_a_topic_made_anew_is_read_from_its_beginning(
    database: DatabaseUrls, subscriber: Subscriber
) -> None:
    """The offsets of the topic that was lost name other records in the new one.

    Here the old one has everything twice, so that what comes first in the new one, and is news,
    stands in front of the offset up to which the old one was read. And it tells of a past that was
    given up since, in versions that never came to be.
    """
    first, second = [each for each in CUSTOMERS if partition_of(each, PARTITIONS) == 0][:2]
    history = founded()
    go_on(history, [first, second], seed=7, steps=0)
    history.claim(first, "per_1")
    record(database, history)
    relay_all(database, subscriber.cluster)
    with pytest.raises(KeyboardInterrupt), one(database, subscriber.cluster, die) as publisher:
        publisher.catch_up()
    publish_all(database, subscriber.cluster)
    send_given_up(subscriber.cluster, second, "cus_7")
    subscriber.read_all()
    make_anew(subscriber.cluster, CURRENT)
    history.release(first, "no_need")
    for _ in range(3):
        history.claim(second, "per_2")
        history.release(second, "no_need")
    record(database, history)
    publish_all(database, subscriber.cluster)
    subscriber.read_all()
    assert subscriber.copy() == owners(database, history)


def die() -> None:
    raise KeyboardInterrupt


def test_who_was_erased_is_forgotten(database: DatabaseUrls, subscriber: Subscriber) -> None:
    history = founded()
    go_on(history, CUSTOMERS, seed=8, steps=0)
    record(database, history)
    publish_all(database, subscriber.cluster)
    subscriber.read_all()
    erase(subscriber.cluster, "cus_1")
    subscriber.read_all()
    assert subscriber.copy().keys() == set(CUSTOMERS) - {"cus_1"}


def erase(cluster: Cluster, customer: str) -> None:
    """Send what an erasure is to send: the key of a customer without a value."""
    send(cluster, {customer: None})


def send_given_up(cluster: Cluster, *customers: str) -> None:
    """Send that somebody owns customers by decisions that are in no log any more."""
    like = told(cluster, CURRENT)[0].body
    owner = {"id": "per_3", "foreign_ids": []}
    bodies = {
        each: {**like, "customer": {"id": each, "foreign_ids": []}, "owner": owner, "version": 99}
        for each in customers
    }
    send(cluster, {customer: json.dumps(body).encode() for customer, body in bodies.items()})


def send(cluster: Cluster, values: dict[str, bytes | None]) -> None:
    topic_id = told(cluster, CURRENT)[0].headers["topic_id"]
    name = CURRENT.name(cluster.topic_prefix)
    with cluster.producer() as producer:
        for customer, value in values.items():
            headers = [("topic_id", topic_id.encode())]
            producer.send(name, key=customer.encode(), value=value, headers=headers).get(60)
