"""A customer's past over HTTP: its history, and whose it was on both axes of time."""

from __future__ import annotations

from typing import Any

import httpx

from tests.api.http.office import EAST, Office
from tests.api.http.test_follow_ups import accesses, read


def worked(office: Office) -> tuple[str, httpx.Response]:
    """Return a customer that was claimed, worked and released, and the last answer."""
    customer = office.customer("华星", territory=EAST)
    path = f"/v1/customers/{customer}"
    office.post("per_a", "/v1/claims", {"customer": customer, "note": "老客户"})
    office.post("per_a", f"{path}/follow-ups", {"note": "谈了价格"})
    value = {"amount": "1054.00", "currency": "CNY"}
    office.post("per_b", f"{path}/deals", {"outcome": "won", "value": value})
    return customer, office.post("per_a", f"{path}/release", {"reason": "没有预算"})


def texts(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the texts of those entries that are masked, or have any."""
    return [each["words"] for each in entries if each["masked"] or each["words"]]


def test_a_history_tells_what_was_asked_and_decided(office: Office) -> None:
    customer, last = worked(office)
    entries = read(office, "per_admin", f"/v1/customers/{customer}/history", last)["items"]
    told = [each["event"] for each in entries if not each["event"].startswith("Conflict")]
    assert told == [
        "OwnershipReleased",
        "ReleaseRequested",
        "Noted",
        "DealRecorded",
        "Noted",
        "FollowUpLogged",
        "OwnershipGranted",
        "ClaimFiled",
        "CustomerAdmitted",
        "RegistrationRequested",
    ]
    by_event = {each["event"]: each for each in entries}
    claim, grant = by_event["ClaimFiled"], by_event["OwnershipGranted"]
    assert (claim["actor"], claim["words"], claim["request"]) == ("per_a", {"note": "老客户"}, None)
    assert (grant["actor"], grant["person"]) == ("enforcer", "per_a")
    assert grant["request"] == claim["position"]
    assert by_event["DealRecorded"]["value"] == {"amount": "1054.00", "currency": "CNY"}
    assert not any(each["masked"] for each in entries)
    ((person, route, subjects, fields),) = accesses(office)
    assert (person, route) == ("per_admin", "/v1/customers/{customer}/history")
    assert subjects == [customer]
    assert fields == ["name", "note", "reason", "value"]


def test_texts_and_values_are_seen_within_ones_scope_and_in_own_acts(office: Office) -> None:
    customer, last = worked(office)
    path = f"/v1/customers/{customer}/history"
    # The customer is nobody's now: a former owner sees what they did themselves.
    own = read(office, "per_a", path, last)["items"]
    assert texts(own) == [
        {"reason": "没有预算"},
        {},
        {"note": "谈了价格"},
        {"note": "老客户"},
        {},
    ]
    other = read(office, "per_b", path, last)["items"]
    deal = next(each for each in other if each["event"] == "DealRecorded")
    assert (deal["masked"], deal["value"]["amount"]) == (False, "1054.00")
    assert not any(texts(other))
    for who, sees in (("per_east", True), ("per_west", False), ("per_auditor", False)):
        entries = read(office, who, path, last)["items"]
        assert any(texts(entries)) is sees
        values = [each["value"] for each in entries if each["event"] == "DealRecorded"]
        assert (values != [None]) is sees


def test_a_history_is_read_page_by_page(office: Office) -> None:
    customer, last = worked(office)
    path = f"/v1/customers/{customer}/history"
    whole = [each["position"] for each in read(office, "per_admin", path, last)["items"]]
    found: list[int] = []
    cursor = ""
    while True:
        page = office.get("per_admin", f"{path}?limit=3{cursor}").json()
        found += [each["position"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == whole
    assert found == sorted(found, reverse=True)


def test_ownerships_are_told_on_both_axes_of_time(office: Office) -> None:
    customer, last = worked(office)
    released = last.json()["decisions"][0]
    path = f"/v1/customers/{customer}"
    regained = office.post("per_b", "/v1/claims", {"customer": customer})
    intervals = read(office, "per_w", f"{path}/intervals", regained)["items"]
    assert [each["owner"] for each in intervals] == ["per_a", "per_b"]
    first, second = intervals
    assert (first["begun_by"], first["ended_by"], first["end_reason"]) == (
        "granted",
        "released",
        "released",
    )
    assert (first["to_position"], first["to_recorded"]) == (
        released["position"],
        released["recorded"],
    )
    assert second["from_position"] == regained.json()["decided_position"]
    assert second["from_recorded"] == regained.json()["decided"]
    assert (second["to_position"], second["to_effective"], second["ended_by"]) == (None, None, None)
    # When the first was being worked, nobody knew of its end yet, nor of the second.
    known = office.get("per_w", f"{path}/intervals", params={"known_at": first["from_recorded"]})
    (only,) = known.json()["items"]
    assert only == first | dict.fromkeys(
        ("to_effective", "to_position", "to_recorded", "ended_by", "end_reason"), None
    )
    earlier = {"known_at": "2020-01-01T00:00:00Z"}
    assert office.get("per_w", f"{path}/intervals", params=earlier).json()["items"] == []
    page = office.get("per_w", f"{path}/intervals?limit=1").json()
    rest = office.get("per_w", f"{path}/intervals?limit=1&cursor={page['next']}").json()
    assert (page["items"], rest["items"], rest["next"]) == ([first], [second], None)


def test_the_claims_of_a_customer_are_listed(office: Office) -> None:
    customer, other = office.customer("华星"), office.customer("蓝海")
    office.post("per_a", "/v1/claims", {"customer": other})
    filed = [office.post(who, "/v1/claims", {"customer": customer}) for who in ("per_a", "per_b")]
    claims = [each.json()["claim"] for each in filed]
    path = f"/v1/customers/{customer}/claims"
    items = read(office, "per_w", path, filed[-1])["items"]
    assert [each["claim"] for each in items] == claims[::-1]
    granted = office.get("per_w", f"{path}?status=granted").json()["items"]
    assert [(each["claim"], each["owner"]) for each in granted] == [(claims[0], "per_a")]


def test_what_is_malformed_or_not_there_is_refused(office: Office) -> None:
    customer = office.customer("华星")
    for name in ("history", "intervals", "claims"):
        assert office.get("per_a", f"/v1/customers/cus_none/{name}").status_code == 404
        assert office.get("per_a", f"/v1/customers/%00/{name}").status_code == 422
        assert office.get("per_a", f"/v1/customers/{customer}/{name}?cursor=x").status_code == 422
        assert office.get(None, f"/v1/customers/{customer}/{name}").status_code == 401
    naive = {"known_at": "2026-03-01T09:30:00"}
    answer = office.get("per_a", f"/v1/customers/{customer}/intervals", params=naive)
    assert answer.status_code == 422
