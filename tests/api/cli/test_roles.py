"""Roles as processes of their own, and the commands about Kafka."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from consumers.kafka.connecting import Cluster
from consumers.kafka.local import LocalKafka
from consumers.kafka.topics import CURRENT
from ledger.store.embedded import embedded_server
from tests.api.cli.test_guishu import Terminal
from tests.consumers.kafka.publishing.support import told
from tests.consumers.kafka.support import cluster_for_a_test, events_of, topic
from tests.support.processes import wait_until


@pytest.fixture
def cluster(kafka: LocalKafka) -> Cluster:
    return cluster_for_a_test(kafka)


@pytest.fixture
def terminal(servers_folder: Path, cluster: Cluster) -> Iterator[Terminal]:
    """A ledger of its own, whose server runs meanwhile, and topics of its own."""
    terminal = Terminal(
        servers_folder,
        KAFKA_BOOTSTRAP=cluster.bootstrap,
        GUISHU_KAFKA_TOPIC_PREFIX=cluster.topic_prefix,
        GUISHU_KAFKA_PARTITIONS="3",
    )
    # The first command makes the master key, which has to be there before the data are.
    terminal.guishu("init", "测试公司", "管理员")
    with embedded_server(terminal.folder / "data"):
        yield terminal


@contextmanager
def roles(terminal: Terminal, *names: str) -> Iterator[None]:
    """Roles in processes of their own, which end in good order when they are told to."""
    processes = [terminal.begin(name) for name in names]
    logs = [terminal.folder / f"{name}.log" for name in names]

    def all_run() -> bool:
        assert all(each.poll() is None for each in processes), [log.read_text() for log in logs]
        return all(": running" in log.read_text() for log in logs)

    try:
        wait_until(all_run)
        yield
        for each in processes:
            each.send_signal(signal.SIGTERM)
        assert [each.wait(60) for each in processes] == [0] * len(processes)
    finally:
        for each in processes:
            each.kill()
            each.wait()
    assert all("stopped: everything" in log.read_text() for log in logs)


def test_the_roles_together_do_what_run_does_and_the_topics_have_it_all(
    terminal: Terminal, cluster: Cluster
) -> None:
    made = terminal.json("topics", "apply")
    assert [each["partitions"] for each in made] == [3, 3, 3]
    names = ("enforce", "project", "clock", "relay")
    alive = {f"{name}.alive" for name in names}
    with roles(terminal, *names):
        assert {each.name for each in terminal.folder.glob("*.alive")} == alive
        terminal.guishu("register", "客户一", "--as", "管理员")
        recorded = terminal.events()
        assert recorded[-1]["name"] == "CustomerAdmitted.v1"

        def is_relayed() -> bool:
            return sum(len(events_of(each)) for each in topic(cluster)) >= len(recorded)

        wait_until(is_relayed)
        wait_until(lambda: [each.type for each in told(cluster, CURRENT)] == ["current"])
    assert list(terminal.folder.glob("*.alive")) == []
