"""What could not be handled: listed, shown, set going again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from kafka import TopicPartition
from psycopg import Connection

from api.dead_letters import counts
from consumers.kafka.chain import Placed
from consumers.kafka.connecting import Cluster
from consumers.kafka.dead_letters import keep
from consumers.kafka.local import LocalKafka
from consumers.kafka.records import UnreadableRecordError, encode
from consumers.kafka.topics import LOG
from ledger.store import arrays
from ledger.store.reading import read_after
from projections.claims import Claims
from tests.api.cli.test_commands import BOSS, Shell
from tests.api.cli.test_commands import guishu as guishu  # the fixture
from tests.api.http.test_parked import Defects
from tests.consumers.kafka.support import DeliveredFeed, cluster_for_a_test, with_topics
from tests.consumers.kafka.test_dead_letters import Sent
from tests.support.database import DatabaseUrls
from tests.support.processes import wait_until


@contextmanager
def connected(urls: DatabaseUrls) -> Iterator[Connection[Any]]:
    with psycopg.connect(urls.service_url, autocommit=True) as connection:
        arrays.register(connection)
        yield connection


def ids(guishu: Shell, *arguments: str) -> list[str]:
    return [each["id"] for each in guishu.json("dead-letters", *arguments)]


def findings(guishu: Shell, what: str) -> tuple[bool, str]:
    (found,) = (each for each in guishu.json("doctor") if each["what"] == what)
    return found["good"], found["found"]


def test_where_all_is_well_there_are_none(guishu: Shell) -> None:
    assert guishu("dead-letters").out == "dead letters: none\n"
    assert guishu.json("dead-letters") == []
    assert findings(guishu, "unreadable records") == (True, "none")


@pytest.mark.parametrize(
    "id_", ["request:1", "request:x", "stream:claims:customer-a", "record:t:0:1", "record:0", "\0"]
)
def test_what_is_not_there_is_told(guishu: Shell, id_: str) -> None:
    for command in ("show", "replay"):
        said = guishu("dead-letters", command, id_, *BOSS[: 2 * (command == "replay")], status=1)
        assert said.err.startswith(("not_found: There is no dead letter", "invalid_request: id"))


def test_a_parked_request_is_shown_and_decided_after_all(
    guishu: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    defects = Defects()
    monkeypatch.setattr("consumers.enforcer.deciders", defects.deciders)
    customer = guishu.json("register", "恒信电子", *BOSS)["customer"]
    defects.customers.add(customer)
    for _ in range(2):
        guishu("claim", "恒信电子", "--as", "李娜")
    (listed,) = guishu.json("dead-letters")
    assert (listed["kind"], listed["consumer"], listed["about"]) == (
        "request",
        "enforcer",
        customer,
    )
    assert (listed["code"], listed["behind"]) == ("ZeroDivisionError", 1)
    assert ids(guishu, "--kind", "stream") == []
    # Words may quote what somebody has entered: they are told of one that somebody asks for.
    assert "the words of a defect" not in guishu("dead-letters").out
    id_, position = listed["id"], listed["position"]
    shown = guishu.json("dead-letters", "show", id_)
    assert shown["words"] == "ZeroDivisionError: the words of a defect"
    event = shown["details"]["event"]
    assert (event["position"], event["name"]) == (position, "ClaimFiled.v1")
    assert len(shown["details"]["behind"]) == 1
    assert "the words of a defect" in guishu("dead-letters", "show", id_).out

    still = guishu("dead-letters", "replay", id_, *BOSS, status=1)
    assert still.err.startswith("still_dead: Version 3 of the decider cannot decide")
    assert ids(guishu) == [id_]
    defects.customers.clear()
    denied = guishu("dead-letters", "replay", id_, "--as", "李娜", status=1)
    assert denied.err.startswith("not_permitted")
    said = guishu("dead-letters", "replay", id_, "--decider", "2", *BOSS)
    assert said.out == f"the request at {position} was decided by version 2 of the decider\n"
    assert ids(guishu) == []
    assert "李娜" in guishu("whois", "恒信电子").out


def test_the_read_model_of_a_parked_stream_is_made_again(
    guishu: Shell, founded: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = guishu.json("register", "恒信电子", "--claim", "--as", "李娜")["customer"]
    stream = f"customer-{customer}"

    def failing(*_: Any) -> None:
        raise ValueError("名字 李娜")

    with connected(founded) as connection:
        connection.execute(
            "INSERT INTO projections.parked (projection, stream, position, code, words)"
            " SELECT 'claims', stream, position, 'ValueError', '名字 李娜' FROM ledger.events"
            " WHERE stream = %s ORDER BY position LIMIT 1",
            (stream,),
        )
    id_ = f"stream:claims:{stream}"
    assert ids(guishu) == ids(guishu, "--kind", "stream") == [id_]
    assert "李娜" not in guishu("dead-letters").out
    shown = guishu.json("dead-letters", "show", id_)
    assert shown["words"] == "名字 李娜"
    assert shown["details"]["event"]["stream"] == stream
    with monkeypatch.context() as broken:
        broken.setattr(Claims, "apply", failing)
        still = guishu("dead-letters", "replay", id_, status=1)
        assert "still_dead: claims cannot apply" in still.err
    assert id_ in ids(guishu)
    said = guishu("dead-letters", "replay", id_)
    assert "the read model claims is made again, and has the stream" in said.out
    assert ids(guishu) == []


def test_a_record_is_shown_and_read_again_or_dropped(guishu: Shell, founded: DatabaseUrls) -> None:
    with connected(founded) as connection:
        event = read_after(connection, 0, 1)[0]
        ours = encode(Placed(event, 0, 0), 1)
        error = UnreadableRecordError("of old", way_out="")
        keep(connection, Sent(headers=[*ours.headers], value=ours.value), error)
        keep(connection, Sent(offset=8, value="\x1b[2J李娜".encode()), error)
    good, bad = ids(guishu)
    assert (good, bad) == ("record:test.log.v1:0:7", "record:test.log.v1:0:8")
    assert findings_of_trouble(guishu) == f"{good}; {bad}"
    assert guishu("dead-letters", "--limit", "1").err == "there may be more: --limit\n"
    shown = guishu("dead-letters", "show", bad).out
    # No terminal is to obey it.
    assert "base64" in shown
    assert "\x1b" not in shown
    assert guishu.json("dead-letters", "show", good)["details"]["key"] == {"text": "cus_1"}
    said = guishu("dead-letters", "replay", good)
    assert said.out == "it can be read now: position 1, which the log has\n"
    still = guishu("dead-letters", "replay", bad, status=1)
    assert still.err.startswith("record_foreign: ")
    (listed,) = guishu.json("dead-letters")
    assert (listed["id"], listed["attempts"]) == (bad, 2)
    assert guishu("dead-letters", "drop", "request:1", status=1).err.startswith("invalid_request")
    assert guishu.json("dead-letters", "drop", bad) == {"id": bad, "told": "it is dropped"}
    assert guishu("dead-letters", "drop", bad, status=1).err.startswith("not_found")
    assert ids(guishu) == []


def findings_of_trouble(guishu: Shell) -> str:
    said = guishu("doctor", status=4).out
    (line,) = (each for each in said.splitlines() if "unreadable records" in each and "│" in each)
    return line.split("│")[3].strip()


def test_what_somebody_else_wrote_into_the_topic_is_listed_and_shown(
    guishu: Shell, founded: DatabaseUrls, kafka: LocalKafka
) -> None:
    cluster: Cluster = with_topics(cluster_for_a_test(kafka))
    at = TopicPartition(LOG.name(cluster.topic_prefix), 2)
    with cluster.producer() as producer:
        headers = [("trace", b"\xff")]
        producer.send(at.topic, b"{}", b"key", headers, partition=at.partition).get(10)
    with connected(founded) as connection, DeliveredFeed(cluster, at.partition) as feed:

        def is_put_aside() -> bool:
            assert not feed.read(connection, 0, 10).requests
            return counts(connection)["record"] == 1

        wait_until(is_put_aside)
    id_ = f"record:{at.topic}:2:0"
    assert ids(guishu, "--kind", "record") == [id_]
    shown = guishu.json("dead-letters", "show", id_)
    assert shown["letter"]["code"] == "record_foreign"
    assert shown["words"].startswith("A record of the log's topic cannot be read: KeyError")
    told = shown["details"]
    assert (told["value"], told["key"]) == ({"text": "{}"}, {"text": "key"})
    assert told["headers"] == [{"name": {"text": "trace"}, "value": {"base64": "/w=="}}]
    assert guishu("dead-letters", "replay", id_, status=1).err.startswith("record_foreign")
