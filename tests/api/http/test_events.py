"""The log over HTTP: by page, and as it grows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.http import routes, tail
from ledger.envelope import StoredEvent
from ledger.store.reading import read_at
from tests.api.http.office import CRM, EAST, WEST, Office
from tests.api.http.served import served


def log(office: Office, who: str = "per_auditor", **wanted: Any) -> list[dict[str, Any]]:
    """Return the log as somebody reads it, page by page."""
    found: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = office.get(who, "/v1/events", params={"after": after, "limit": 7, **wanted})
        assert page.status_code == 200, page.text
        found += page.json()["items"]
        after = page.json()["next"]
    return found


def test_every_position_is_there_once_and_as_it_was_recorded(office: Office) -> None:
    office.post("per_a", "/v1/claims", {"customer": office.customer("华星")})
    events = log(office)
    assert [each["position"] for each in events] == list(range(1, len(events) + 1))
    with office.services.ledger.pool.connection() as connection:
        rows = connection.execute("SELECT body FROM ledger.events ORDER BY position").fetchall()
    assert [each["body"] for each in events] == [json.loads(bytes(row[0])) for row in rows]
    assert events[-1]["name"] == "OwnershipGranted.v1"


def test_what_is_not_wanted_is_left_out(office: Office) -> None:
    one = office.customer("华星", territory=EAST)
    other = office.customer("蓝海", territory=WEST)
    office.post("per_a", "/v1/claims", {"customer": one})
    office.post("per_w", "/v1/claims", {"customer": other})
    granted = log(office, name="OwnershipGranted.v1")
    assert [each["body"]["data"]["customer"] for each in granted] == [one, other]
    assert {each["stream"] for each in log(office, customer=one)} == {
        f"customer-{one}",
        f"ownership-{one}",
    }
    # The read models must know where they lie.
    position = granted[-1]["position"]
    assert office.get("per_a", f"/v1/customers?min_position={position}").status_code == 200
    west = log(office, territory=WEST, name="OwnershipGranted.v1")
    assert [each["body"]["data"]["customer"] for each in west] == [other]


def test_sealed_texts_are_seen_by_those_only_who_may_and_this_is_noted(office: Office) -> None:
    customer = office.customer("华星", contacts=[{"name": "李雷", "phone": "13800000000"}])
    office.customer("张三", kind="individual", identifiers=[{"system": "id", "value": "4401"}])
    assert "李雷" not in office.get("per_admin", "/v1/events?limit=1000").text
    refused = office.get("per_auditor", "/v1/events?unseal=true")
    assert (refused.status_code, refused.json()["permission"]) == (403, "personal:read")
    plain = office.get("per_admin", "/v1/events?limit=1000&unseal=true").json()["items"]
    texts = {text for each in plain for text in each.get("plain", {}).values()}
    assert {"李雷", "13800000000", "张三", "4401", "per_a"} <= texts
    with office.services.ledger.pool.connection() as connection:
        rows = connection.execute("SELECT person, subjects FROM api.personal_access").fetchall()
    assert rows[-1][0] == "per_admin"
    assert f"customer-{customer}" in rows[-1][1]


@pytest.mark.parametrize("who", ["per_a", "per_east"])
def test_reps_and_managers_have_no_business_with_the_log(office: Office, who: str) -> None:
    for path in ("/v1/events", "/v1/events/stream"):
        assert office.get(who, path).json()["permission"] == "log:read"


# --- the stream --------------------------------------------------------------------------------


def follow(
    office: Office, address: str, count: int, path: str = "", **headers: str
) -> Iterator[dict[str, str]]:
    """Yield so many events of the stream, as an EventSource reads them.

    The time-out is shorter than the time between two signs of life.
    """
    given = {"Authorization": f"Bearer {office.tokens[CRM]}", **headers}
    with (
        httpx.Client(timeout=10) as client,
        client.stream("GET", f"{address}/v1/events/stream{path}", headers=given) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
                continue
            if "data" in event:
                yield event
                count -= 1
                if not count:
                    return
            event = {}


def test_a_stream_begins_where_it_was_told_and_goes_on_as_the_log_grows(office: Office) -> None:
    customer = office.customer("华星")
    with served(office) as address:
        seen = follow(office, address, 100, "?after=0")
        before = len(log(office))
        positions = [int(next(seen)["id"]) for _ in range(before)]
        office.post("per_a", "/v1/claims", {"customer": customer})
        last = [next(seen), next(seen)]
    assert positions == list(range(1, before + 1))
    assert [each["event"] for each in last] == ["ClaimFiled.v1", "OwnershipGranted.v1"]
    assert json.loads(last[1]["data"])["body"]["data"]["owner"] == "per_a"


def test_after_a_break_it_goes_on_behind_the_last_event(office: Office) -> None:
    office.customer("华星")
    with served(office) as address:
        first = list(follow(office, address, 3, "?after=0"))
        more = list(follow(office, address, 3, "?after=0", **{"Last-Event-ID": first[-1]["id"]}))
    assert [int(each["id"]) for each in [*first, *more]] == [1, 2, 3, 4, 5, 6]


def test_a_stream_has_what_is_wanted_only(office: Office) -> None:
    one, other = office.customer("华星"), office.customer("蓝海")
    with served(office) as address:
        seen = follow(office, address, 1, f"?after=0&customer={other}&name=OwnershipGranted.v1")
        office.post("per_a", "/v1/claims", {"customer": one})
        office.post("per_a", "/v1/claims", {"customer": other})
        assert json.loads(next(seen)["data"])["body"]["data"]["customer"] == other


def test_who_does_not_keep_up_reads_pages_and_misses_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscriber's buffer is bounded; what did not fit must not be lost, nor come twice."""
    monkeypatch.setattr(tail, "BUFFER_BYTES_MAX", 100)
    monkeypatch.setattr(routes.events, "PAGE", 2)
    with served(office) as address:
        next_position = len(log(office)) + 1
        seen = follow(office, address, 12, f"?after={next_position - 1}")
        positions = []
        for number in range(6):
            office.customer(f"客户{number}")
            positions += [int(next(seen)["id"]), int(next(seen)["id"])]
    assert positions == list(range(next_position, next_position + 12))


def test_a_stream_ends_with_the_server(office: Office) -> None:
    with served(office) as address:
        seen = follow(office, address, 10_000, "?after=0")
        next(seen)
    assert len(list(seen)) < len(log(office))


def test_a_last_id_that_is_none_is_told(office: Office) -> None:
    answer = office.get(CRM, "/v1/events/stream", headers={"Last-Event-ID": "x"})
    assert answer.json()["code"] == "malformed_header"


def test_the_stream_answers_as_the_document_says(office: Office) -> None:
    """What calls everything that the document describes leaves it out, because it has no end."""
    said = office.app.openapi()["paths"]["/v1/events/stream"]["get"]["responses"]
    assert list(said["200"]["content"]) == ["text/event-stream"]
    path = "/v1/events/stream"
    for who, query, headers, status in (
        (None, "", {}, 401),
        ("per_a", "", {}, 403),
        (CRM, "?after=x", {}, 422),
        (CRM, "?after=-1", {}, 422),
        (CRM, f"?customer={'x' * 81}", {}, 422),
        (CRM, "", {"Last-Event-ID": "9" * 41}, 422),
        (CRM, "", {"Last-Event-ID": "x"}, 400),
        (CRM, "", {"On-Behalf-Of": "per_none"}, 400),
    ):
        answer = office.get(who, path + query, headers=headers)
        assert answer.status_code == status, (query, headers, answer.text)
        assert list(said[str(status)]["content"]) == [answer.headers["Content-Type"]]
    answer = office.call(CRM, "POST", path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")


def test_the_value_of_a_deal_is_left_out_unless_it_is_asked_for_and_that_is_noted(
    office: Office,
) -> None:
    """Whoever read the log saw the values that the deals themselves hid from them."""
    customer = office.customer("华星", territory=EAST)
    office.post("per_a", "/v1/claims", {"customer": customer})
    value = {"amount": "1054.00", "currency": "CNY"}
    deal = {"outcome": "won", "value": value, "product": "水泵"}
    made = office.post("per_a", f"/v1/customers/{customer}/deals", deal).json()
    transfer = {"customer": customer, "receiver": "per_b", "value": value}
    office.post("per_a", "/v1/transfers", transfer)
    for who in ("per_auditor", "per_admin", CRM):
        recorded, asked = log(office, who, name=["DealRecorded.v1", "TransferRequested.v1"])
        assert (recorded["body"]["data"]["deal"], asked["body"]["data"]["receiver"]) == (
            made["made"],
            "per_b",
        )
        for each in (recorded, asked):
            assert "value" not in each["body"]["data"]
            assert each["body"]["masked"] == ["value"]
    (recorded,) = log(office, "per_admin", name="DealRecorded.v1", unseal=True)
    assert recorded["body"]["data"]["value"] == value
    with office.services.ledger.pool.connection() as connection:
        noted = connection.execute("SELECT person, subjects, fields FROM api.personal_access")
        assert ("per_admin", [f"customer-{customer}"], ["value"]) in noted.fetchall()
    event = tail.as_sse(stored(office, recorded["position"]))
    assert b"1054.00" not in event


def stored(office: Office, position: int) -> StoredEvent:
    """Return an event as it stands in the log."""
    with office.services.ledger.pool.connection() as connection:
        (found,) = read_at(connection, [position])
    return found
