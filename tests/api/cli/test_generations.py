"""What of a lost log is given up, by whom, is said in so many words and stays on record."""

from __future__ import annotations

import getpass
import json

import psycopg
import pytest

from consumers.kafka.local import LocalKafka
from tests.api.cli.test_commands import Shell
from tests.consumers.kafka.support import cluster_for_a_test, with_topics
from tests.support.database import DatabaseServer, DatabaseUrls


def test_a_start_is_refused_until_what_is_missing_is_given_up(
    postgres: DatabaseServer,
    founded: DatabaseUrls,
    kafka: LocalKafka,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The database has filled a topic, which is gone together with the end of its log."""
    cluster = with_topics(cluster_for_a_test(kafka))
    with postgres.database(founded.name) as restored:
        with psycopg.connect(restored.superuser_url, autocommit=True) as superuser:
            superuser.execute("UPDATE ledger.generations SET system = 'another'")
            superuser.execute(
                "INSERT INTO ledger.relay (topic, topic_id) VALUES (%s, gen_random_uuid())",
                [f"{cluster.topic_prefix}.log.v1"],
            )
            row = superuser.execute("SELECT max(position) FROM ledger.events").fetchone()
        assert row is not None
        head: int = row[0]
        shell = Shell(monkeypatch, capsys, restored.owner_url)
        monkeypatch.setenv("KAFKA_BOOTSTRAP", cluster.bootstrap)
        monkeypatch.setenv("GUISHU_KAFKA_TOPIC_PREFIX", cluster.topic_prefix)

        refused = shell("whois", "某客户", status=1).err
        assert refused.startswith(f"tail_incomplete: The log ends at {head}")
        assert f"guishu generations give-up {head}" in refused
        refused = shell("generations", "give-up", str(head - 1), status=1).err
        assert refused.startswith(f"give_up_refused: Everything is there up to position {head}")
        assert "another" in shell("generations").out

        said = shell("generations", "give-up", str(head)).out
        assert f"given up is what was recorded from position {head + 1} on" in said
        first, second = json.loads(shell("generations", "--json").out)
        assert (first["given_up_by"], second["given_up_by"]) == (None, f"cli:{getpass.getuser()}")
        assert f"from position {head + 1} on, by cli:" in shell("generations").out
        shell("customers")
