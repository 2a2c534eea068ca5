"""Opening a ledger where Kafka may know more of it than its database does."""

from __future__ import annotations

import base64
from collections.abc import Callable

import psycopg
import pytest
from pydantic import SecretStr

from api.bootstrap import open_ledger
from api.settings import Settings
from consumers.kafka import connecting
from consumers.kafka.errors import KafkaUnavailableError, TopicForeignError
from consumers.kafka.local import LocalKafka
from consumers.kafka.relay import relaying
from tests.consumers.kafka.support import (
    QUICK,
    append,
    append_only,
    cluster_for_a_test,
    with_topics,
)
from tests.consumers.support import count
from tests.support.database import DatabaseUrls

_GENERATIONS = "SELECT count(*) FROM ledger.generations"


def settings_of(urls: DatabaseUrls, bootstrap: str, prefix: str) -> Settings:
    return Settings(
        database_url=SecretStr(urls.owner_url),
        master_key=SecretStr(base64.b64encode(b"k" * 32).decode()),
        kafka_bootstrap=bootstrap,
        kafka_topic_prefix=prefix,
    )


def test_a_server_that_has_not_written_before_asks_kafka_first(
    database: DatabaseUrls, more_databases: Callable[[], DatabaseUrls], kafka: LocalKafka
) -> None:
    """Another database than the one that has filled the topic."""
    cluster = with_topics(cluster_for_a_test(kafka))
    append(database, 30)
    with (
        psycopg.connect(database.service_url, autocommit=True) as connection,
        relaying(connection, cluster, QUICK) as relay,
    ):
        relay.catch_up()
    restored = more_databases()
    append_only(restored, 20)
    settings = settings_of(restored, cluster.bootstrap, cluster.topic_prefix)
    with pytest.raises(TopicForeignError, match="something else at position 1 than the log"):
        open_ledger(settings).__enter__()
    assert count(restored, _GENERATIONS) == 0
    # Other topics know nothing of it.
    with open_ledger(settings_of(restored, cluster.bootstrap, "test-others")):
        assert count(restored, _GENERATIONS) == 1


def test_while_kafka_is_away_only_a_server_that_has_asked_it_goes_on(
    database: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "CONNECT_SECONDS_MAX", 0.2)
    settings = settings_of(database, "127.0.0.1:1", "test")
    with pytest.raises(KafkaUnavailableError):
        open_ledger(settings).__enter__()
    append(database, 1)
    with open_ledger(settings):
        pass
