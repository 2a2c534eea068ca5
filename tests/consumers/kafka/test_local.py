"""A real Kafka on this machine, and what becomes of it when somebody is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import kill as send_signal
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from consumers.kafka import local
from consumers.kafka.errors import KafkaBusyError, KafkaServerError
from consumers.kafka.local import LocalKafka, local_kafka
from tests.support.processes import start, wait_until


def make_topic(kafka: LocalKafka, name: str) -> None:
    with KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
        admin.create_topics({name: {"num_partitions": 1}}, wait_for_metadata=True)


def send(kafka: LocalKafka, topic: str, *values: bytes) -> None:
    """Return when every value is acknowledged by all copies that are to be in sync."""
    with KafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for each in [producer.send(topic, value) for value in values]:
            each.get(timeout=60)


def read(kafka: LocalKafka, topic: str, count: int) -> list[bytes]:
    """Return the first values of a topic; waits for them."""
    partition = TopicPartition(topic, 0)
    with KafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([partition])
        values: list[bytes] = []

        def is_there() -> bool:
            for records in consumer.poll(timeout_ms=200).values():
                values.extend(each.value for each in records)
            return len(values) >= count

        wait_until(is_there)
    return values


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        send_signal(pid, 0)
        return True
    return False


def test_what_was_acknowledged_outlives_a_broker_that_is_killed(kafka: LocalKafka) -> None:
    make_topic(kafka, "outlives-a-kill")
    send(kafka, "outlives-a-kill", b"1", b"2")
    (broker,) = kafka.brokers
    address, pid = broker.address, broker.pid
    kafka.kill(broker)
    assert broker.pid is None
    kafka.start(broker)
    assert broker.address == address
    assert broker.pid != pid
    send(kafka, "outlives-a-kill", b"3")
    assert read(kafka, "outlives-a-kill", 3) == [b"1", b"2", b"3"]


def test_a_folder_is_used_again_by_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "STOP_SECONDS", -5.0)
    with local_kafka(tmp_path, grace_seconds=10) as kafka:
        make_topic(kafka, "kept")
        send(kafka, "kept", b"1")
        with pytest.raises(KafkaBusyError), local_kafka(tmp_path):
            raise AssertionError("two of one folder")
    with local_kafka(tmp_path, grace_seconds=0) as kafka:
        assert read(kafka, "kept", 1) == [b"1"]


def test_one_of_three_brokers_may_be_lost(tmp_path: Path) -> None:
    with local_kafka(tmp_path, brokers=3, in_sync=2, grace_seconds=0) as kafka:
        make_topic(kafka, "three")
        send(kafka, "three", b"1")
        kafka.kill(kafka.brokers[0])
        send(kafka, "three", b"2")
        assert read(kafka, "three", 2) == [b"1", b"2"]


def test_a_broker_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_SERVER_JAVA", ("-Xmx512m", "-XX:NoSuchOption"))
    with (
        pytest.raises(KafkaServerError, match=r"has ended.*NoSuchOption") as raised,
        local_kafka(tmp_path, grace_seconds=0),
    ):
        raise AssertionError("it cannot have started")
    assert str(tmp_path) in raised.value.way_out


@contextmanager
def kept(seconds: str, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A keeper and the number of the process that it keeps."""
    keeper = start(
        *(sys.executable, "-m", "consumers.kafka.keeper", seconds, *command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    pid = int(keeper.stdout.readline())
    try:
        yield keeper, pid
    finally:
        with suppress(ProcessLookupError):
            send_signal(pid, signal.SIGKILL)
        for stream in (keeper.stdin, keeper.stdout):
            stream.close()
        keeper.wait()


class TestKeeper:
    def test_it_ends_what_it_keeps_when_its_input_ends(self) -> None:
        """However our process ends, the kernel closes what it held."""
        with kept("60", "sleep", "1000") as (keeper, pid):
            assert is_alive(pid)
            assert keeper.stdin is not None
            keeper.stdin.close()
            assert keeper.wait(60) != 0
            assert not is_alive(pid)

    def test_it_kills_what_does_not_end_in_time(self, tmp_path: Path) -> None:
        is_deaf = tmp_path / "is_deaf"
        script = "trap '' TERM; touch \"$0\"; while true; do sleep 0.01; done"
        with kept("0.1", "sh", "-c", script, str(is_deaf)) as (keeper, pid):
            wait_until(is_deaf.exists)
            assert keeper.stdin is not None
            keeper.stdin.close()
            assert keeper.wait(60) == -signal.SIGKILL % 256
            assert not is_alive(pid)

    def test_it_ends_with_what_it_keeps(self) -> None:
        with kept("60", "sh", "-c", "exit 3") as (keeper, _):
            assert keeper.wait(60) == 3
