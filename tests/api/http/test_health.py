"""Health, metrics, and what goes around every request."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.http import around, serving, throttle
from api.http.app import create_app
from api.http.problems import TooManyRequestsError
from tests.api.http.office import Office
from tests.api.http.served import served
from tests.support.processes import wait_until


def test_it_lives_and_is_ready_and_says_how_far_it_is(office: Office) -> None:
    office.customer("华星")
    assert office.get(None, "/livez").json() == {"status": "live"}
    ready = office.get(None, "/readyz")
    assert ready.status_code == 200
    assert ready.json()["head"] >= ready.json()["decided"] > 0


def test_it_is_not_ready_without_its_migrations(office: Office) -> None:
    urls = office.services.ledger.database
    with psycopg.connect(urls.owner_url, autocommit=True) as connection:
        connection.execute("DELETE FROM public.guishu_migrations WHERE number = 1")
    ready = office.get(None, "/readyz")
    assert ready.status_code == 503
    assert ready.json()["trouble"]


def metrics(office: Office) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples that Prometheus would see, by name and labels."""
    answer = office.get("per_auditor", "/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_prometheus_sees_decisions_lags_queues_and_latencies(office: Office) -> None:
    # It counts what it has served, and the others' has served other offices as well.
    office = replace(office, app=create_app(office.services))
    customer = office.customer("华星")
    metrics(office)  # counting begins
    office.post("per_a", "/v1/claims", {"customer": customer})
    office.post("per_b", "/v1/claims", {"customer": customer})
    seen = metrics(office)
    granted = ("name", "OwnershipGranted.v1"), ("reason", "")
    refused = ("name", "ClaimRefused.v1"), ("reason", "owned_by_another")
    assert seen["guishu_decisions_total", granted] == 1
    assert seen["guishu_decisions_total", refused] == 1
    # Two claims and their decisions, and the conflict that the second opens.
    assert seen["guishu_appended_events_total", ()] >= 4
    lag = "guishu_consumer_lag_positions", (("consumer", "enforcer"), ("partition", "0"))
    # It steps over its own decisions some moments later.
    wait_until(lambda: metrics(office)[lag] == 0)
    assert seen["guishu_queue_depth", (("queue", "intake"),)] == 0
    answered = ("method", "POST"), ("route", "/v1/claims"), ("status", "201")
    assert seen["guishu_http_request_seconds_count", answered] == 2


def test_prometheus_sees_what_is_left_aside_and_how_far_each_read_model_has_come(
    office: Office,
) -> None:
    with psycopg.connect(office.services.ledger.database.owner_url, autocommit=True) as connection:
        for position, error in ((1, "ValueError: words"), (2, None)):
            connection.execute(
                "INSERT INTO ledger.parked_requests VALUES (%s, 'cus_x', %s)", (position, error)
            )
    seen = metrics(office)
    assert [
        seen["guishu_dead_letters", (("kind", kind),)] for kind in ("request", "stream", "record")
    ] == [1, 0, 0]
    reached = seen["guishu_consumer_position", (("consumer", "ownership"), ("partition", ""))]
    assert 0 < reached <= seen["guishu_log_position", ()]
    # What goes by no position has waited for so long all the same.
    assert seen["guishu_consumer_lag_seconds", (("consumer", "jobs"), ("partition", ""))] == 0
    assert ("guishu_consumer_position", (("consumer", "jobs"), ("partition", ""))) not in seen


def test_who_asks_too_often_is_told_when_to_go_on() -> None:
    now = 100.0
    counted = throttle.Throttle(10, now=lambda: now, callers_max=2)
    for _ in range(21):  # two seconds' worth, and the one that is under way
        counted.admit("a")
    with pytest.raises(TooManyRequestsError) as refused:
        counted.admit("a")
    assert refused.value.headers == {"Retry-After": "1"}
    counted.admit("b")  # others are not held up
    now += 1
    counted.admit("a")


def test_a_caller_who_asks_too_often_gets_429(office: Office, monkeypatch: Any) -> None:
    slow = throttle.Throttle(0.001)
    monkeypatch.setitem(vars(office.services), "throttle", slow)
    answers = [office.get("per_a", "/v1/claims/1").status_code for _ in range(4)]
    assert answers[0] == 404
    assert 429 in answers
    problem = office.get("per_a", "/v1/claims/1")
    assert (problem.status_code, problem.json()["code"]) == (429, "too_many_requests")
    assert int(problem.headers["Retry-After"]) >= 1


def test_a_body_that_is_too_large_is_refused_before_it_is_read(office: Office) -> None:
    with served(office) as address, dialled(address) as line:
        line.sendall(head(office, length=100_000_000))
        answer = whole(line)
    assert answer.startswith("HTTP/1.1 413")
    assert "application/problem+json" in answer


def test_a_body_that_does_not_come_is_not_waited_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(around, "BODY_SECONDS_MAX", 0.2)
    with served(office) as address, dialled(address) as line:
        line.sendall(head(office, length=1_000) + b'{"customer"')
        answer = whole(line)
    assert answer.startswith("HTTP/1.1 408")
    assert "body_too_slow" in answer


def test_a_head_that_does_not_come_is_not_waited_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn would keep such a connection for ever, and with it a place."""
    monkeypatch.setattr(serving, "HEAD_SECONDS_MAX", 0.2)
    with served(office) as address, dialled(address) as line:
        line.sendall(b"POST /v1/claims HTTP/1.1\r\nHost: ")
        assert line.recv(65_536) == b""
    with served(office) as address, dialled(address) as line:
        # Also behind an answer, on a connection that is kept.
        line.sendall(b"GET /livez HTTP/1.1\r\nHost: guishu\r\n\r\n")
        assert whole(line).startswith("HTTP/1.1 200")
        line.sendall(b"GET /livez HT")
        assert line.recv(65_536) == b""


def dialled(address: str) -> socket.socket:
    """Return a connection to a server."""
    host, port = address.removeprefix("http://").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def whole(line: socket.socket) -> str:
    """Return an answer whose body is a JSON object."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += line.recv(65_536)
    return answer.decode()


def head(office: Office, length: int) -> bytes:
    """Return the head of a claim whose body is to have so many bytes."""
    return (
        f"POST /v1/claims HTTP/1.1\r\nHost: guishu\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {office.tokens['per_a']}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
