"""How far everything has come, on the command line."""

from __future__ import annotations

import psycopg
import pytest

from tests.api.cli.test_commands import BOSS, Shell
from tests.api.cli.test_commands import guishu as guishu  # the fixture
from tests.support.database import DatabaseUrls


def test_how_far_each_consumer_has_come_is_shown_and_watched(
    guishu: Shell, founded: DatabaseUrls
) -> None:
    guishu("register", "恒信电子", *BOSS)
    told = guishu.json("lag", "--fail-above", "0")
    (enforcer,) = (each for each in told["consumers"] if each["consumer"] == "enforcer")
    # It may not have stepped over its own last decision.
    assert (enforcer["partition"], enforcer["waiting"], enforcer["oldest"]) == (0, 0, None)
    (timeline,) = (each for each in told["consumers"] if each["consumer"] == "timeline")
    assert (timeline["reached"], timeline["left"]) == (told["head"], 0)
    assert told["groups"] is None
    with psycopg.connect(founded.superuser_url, autocommit=True) as connection:
        connection.execute("UPDATE ledger.consumer_progress SET position = position - 2")
        connection.execute(
            "UPDATE projections.tracking SET position = position - 1 WHERE name = 'timeline'"
        )
    shown = guishu("lag").out
    assert "1 requests" in shown
    late = guishu("lag", "--fail-above", "0", status=4)
    assert late.err == "behind by more than 0 s: enforcer 0, timeline\n"
    assert "timeline" in late.out
    guishu("lag", "--fail-above", "3600")
    guishu("lag", "--fail-above", "0", "--consumer", "ownership", "--consumer", "claims")
    unknown = guishu("lag", "--consumer", "nobody", status=1)
    assert unknown.err.startswith(
        "invalid_request: consumer: there is no 'nobody'; there are approvals"
    )


def test_a_kafka_that_does_not_answer_is_told_and_is_no_failure(
    guishu: Shell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of many tries to connect brought four lines, between which the table was lost."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setattr("consumers.kafka.connecting.CONNECT_SECONDS_MAX", 0.1)
    said = guishu("lag")
    assert "enforcer" in said.out
    assert said.err.startswith("kafka_unavailable: ")
    assert [each for each in caplog.records if each.name.startswith("kafka")] == []
