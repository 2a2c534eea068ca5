"""What the tests of the public topics share: checked messages, histories, and what is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import jsonschema_rs
import orjson
import psycopg

from consumers.kafka.connecting import Cluster
from consumers.kafka.publishing.document import asyncapi
from consumers.kafka.publishing.publisher import Publisher, PublisherLimits, publishing
from consumers.kafka.publishing.standing import Standing, after
from consumers.kafka.publishing.telling import PUBLIC, Telling
from consumers.kafka.relay import relaying
from consumers.kafka.topics import Topic, apply_topics
from ledger.customer import Admitted
from ledger.events import organisation as facts
from ledger.events import requests
from ledger.events.catalogue import catalogue
from ledger.events.values import ForeignId
from ledger.store.generations import open_generation
from tests.consumers.kafka.support import PARTITIONS, QUICK, records_of
from tests.projections.history import History
from tests.projections.models import connected
from tests.support.database import DatabaseUrls
from tests.support.processes import wait_until

LIMITS = PublisherLimits(
    pause_seconds_min=0.01,
    pause_seconds_max=0.1,
    standby_seconds=0.02,
    batch_events_max=40,
    poll_seconds=0.01,
    delivery_seconds_max=5.0,
)
PEOPLE = [f"per_{number}" for number in range(4)]


@dataclass(frozen=True)
class Record:
    """A record of a public topic, taken apart and found to be as the document says."""

    partition: int
    key: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def type(self) -> str:
        """The last words of its type."""
        return self.headers["ce_type"].removeprefix("guishu.ownership.").removesuffix(".v1")


def told(cluster: Cluster, topic: Topic, partitions: int = PARTITIONS) -> list[Record]:
    """Return all that stands in a public topic, checked; of one customer in its order."""
    name = topic.name(cluster.topic_prefix)
    return [
        _record(number, each)
        for number, records in enumerate(records_of(cluster, name, partitions))
        for each in records
    ]


def _record(partition: int, found: Any) -> Record:
    headers = {name: value.decode() for name, value in found.headers}
    record = Record(partition, found.key.decode(), headers, orjson.loads(found.value))
    assert len(found.headers) == len(headers), "a header comes twice"
    check(record.headers, record.body)
    assert record.key == headers["ce_subject"] == record.body["customer"]["id"]
    return record


def check(headers: dict[str, str], body: dict[str, Any]) -> None:
    """Find a message to be as the AsyncAPI document says, with no field that it does not know."""
    of_headers, _ = _validators()[headers["ce_type"]]
    of_headers.validate(headers)
    check_body(headers["ce_type"], body)


def check_body(type_: str, body: dict[str, Any]) -> None:
    """Find the body of a message of a type to be so."""
    _validators()[type_][1].validate(body)


@cache
def _validators() -> dict[str, tuple[Any, Any]]:
    document = asyncapi()
    for schema in document["components"]["schemas"].values():
        schema["additionalProperties"] = False
    return {
        message["name"]: (
            _validator({**message["headers"], "additionalProperties": False}),
            _validator({**message["payload"], "components": document["components"]}),
        )
        for message in document["components"]["messages"].values()
    }


def _validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def tellings(history: History) -> Iterator[Telling]:
    """Yield the public decisions of a history, as the publisher would come to tell them."""
    standing: dict[str, Standing] = {}
    for event in history.events:
        if type(event.data) not in PUBLIC:
            continue
        assert event.causation is not None
        cause, customer = history.event(event.causation), event.data.customer
        before = standing.get(customer)
        stands = after(before, event, cause)
        if stands is not None:
            standing[customer] = stands
        organisation = history.organisation.at(event.position)
        yield Telling(event, cause, before, stands, organisation)


def founded() -> History:
    """A history with people whom a CRM knows, under an open policy."""
    history = History().found(approval_rules=[])
    history.territory("ter_1")
    for number, person in enumerate(PEOPLE):
        known = (ForeignId("crm", f"S-{number}"), ForeignId("hr", f"{number}@example.com"))
        name = history.seal(person, "name", f"名{person}")
        history.fact(facts.PersonJoined(person, name, "ter_1", ("rep",), foreign_ids=known))
    return history


def register(history: History, customer: str, kind: str = "organisation", *known: ForeignId) -> int:
    """Register a customer that a CRM knows, beside what else is given."""
    name = "苏州恒信" if kind == "organisation" else history.seal(customer, "name", "张三")
    foreign = (ForeignId("crm", f"A-{customer}"), *known)
    return history.ask(requests.RegistrationRequested(customer, kind, name, foreign_ids=foreign))


def go_on(history: History, customers: Iterable[str], seed: int, steps: int) -> None:
    """Let people claim, release, transfer and more, at random but for the seed."""
    chance = random.Random(seed)  # noqa: S311 - it must come out the same
    all_customers = list(customers)
    for customer in all_customers:
        register(history, customer)
    for number in range(steps):
        history.later(minutes=chance.randrange(1, 90))
        customer, person = chance.choice(all_customers), chance.choice(PEOPLE)
        found = history.settled.customers[customer]
        assert isinstance(found, Admitted)
        match chance.randrange(6):
            case 0 | 1:
                history.claim(customer, person)
            case 2:
                history.release(customer, "no_need")
            case 3:
                transfer = requests.TransferRequested(customer, f"trf_{number}", person, "moved")
                history.ask(transfer, actor=found.owner or person)
            case 4:
                history.follow_up(customer, person)
            case 5:
                more = (ForeignId("erp", f"E-{number}"),)
                history.ask(requests.CustomerChangeRequested(customer, foreign_ids=more))


def record(urls: DatabaseUrls, history: History) -> None:
    """Append what is new of a history."""
    with connected(urls.service_url) as connection:
        open_generation(connection)
        history.append(connection)


def relay_all(urls: DatabaseUrls, cluster: Cluster) -> None:
    """Let the log's topic have all of the log."""
    with (
        psycopg.connect(urls.service_url, autocommit=True) as connection,
        relaying(connection, cluster, QUICK) as started,
    ):
        started.catch_up()


@contextmanager
def one(
    urls: DatabaseUrls, cluster: Cluster, acknowledged: Callable[[], None] = lambda: None
) -> Iterator[Publisher]:
    """A publisher that has taken over, on a connection of its own."""
    with (
        psycopg.connect(urls.service_url, autocommit=True) as connection,
        publishing(connection, cluster, catalogue(), LIMITS, acknowledged=acknowledged) as started,
    ):
        yield started


def publish_all(urls: DatabaseUrls, cluster: Cluster) -> None:
    relay_all(urls, cluster)
    with one(urls, cluster) as started:
        started.catch_up()


def make_anew(cluster: Cluster, topic: Topic) -> None:
    """Lose a topic, and make it again."""
    name = topic.name(cluster.topic_prefix)
    with cluster.admin() as admin:
        admin.delete_topics([name])
        wait_until(lambda: name not in admin.list_topics())
    apply_topics(cluster, PARTITIONS)
