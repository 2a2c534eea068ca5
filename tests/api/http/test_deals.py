"""Deals over HTTP: who records them, and who sees their values."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.http.office import EAST, Office
from tests.api.http.test_follow_ups import accesses, read

VALUE = {"amount": "1054.00", "currency": "CNY"}


@pytest.fixture
def customer(office: Office) -> str:
    """A customer of the east, which is per_a's."""
    made = office.customer("华星", territory=EAST)
    assert office.post("per_a", "/v1/claims", {"customer": made}).json()["status"] == "granted"
    return made


def record(office: Office, who: str, customer: str, **fields: Any) -> httpx.Response:
    """Record a deal and wait for its decision."""
    given = {"outcome": "won", "value": VALUE, "product": "水泵", **fields}
    answer = office.post(who, f"/v1/customers/{customer}/deals", given)
    assert answer.status_code == 201, answer.text
    return answer


def test_a_deal_is_recorded_and_read(office: Office, customer: str) -> None:
    recorded = record(office, "per_a", customer, occurred="2026-03-01T01:30:00Z")
    said = recorded.json()
    path = f"/v1/customers/{customer}/deals/{said['made']}"
    assert (said["status"], recorded.headers["Location"]) == ("done", path)
    found = read(office, "per_a", path, recorded)
    assert (found["deal"], found["customer"], found["person"]) == (said["made"], customer, "per_a")
    assert (found["outcome"], found["value"], found["product"]) == ("won", VALUE, "水泵")
    assert (found["at"], found["counts"], found["by_owner"]) == ("2026-03-01T01:30:00Z", True, True)


@pytest.mark.parametrize(
    ("who", "sees"),
    [
        ("per_a", True),
        ("per_east", True),
        ("per_admin", True),
        ("per_b", False),
        ("per_west", False),
        ("per_auditor", False),
    ],
)
def test_the_value_is_seen_within_ones_scope(
    office: Office, customer: str, who: str, sees: bool
) -> None:
    recorded = record(office, "per_a", customer)
    for path in (
        f"/v1/customers/{customer}/deals/{recorded.json()['made']}",
        f"/v1/customers/{customer}/deals",
    ):
        found = read(office, who, path, recorded)
        each = found["items"][0] if "items" in found else found
        assert (each["value"], each["masked"]) == ((VALUE, False) if sees else (None, True))
    noted = [fields for _, _, _, fields in accesses(office)]
    assert noted == ([["value"]] * 2 if sees else [])


def test_own_deals_are_seen_at_customers_of_others(office: Office, customer: str) -> None:
    record(office, "per_a", customer)
    last = record(office, "per_b", customer, outcome="lost", value=None)
    own = read(office, "per_b", f"/v1/customers/{customer}/deals", last)["items"]
    assert [(each["masked"], each["by_owner"]) for each in own] == [(True, True), (False, False)]
    of_person = office.get("per_b", "/v1/deals?person=per_b").json()["items"]
    assert [each["outcome"] for each in of_person] == ["lost"]


def test_a_deal_is_corrected_and_voided(office: Office, customer: str) -> None:
    recorded = record(office, "per_a", customer)
    path = f"/v1/customers/{customer}/deals/{recorded.json()['made']}"
    value = {"amount": "900.5", "currency": "CNY"}
    wait = {"Prefer": "wait=20"}
    corrected = office.call("per_a", "PATCH", path, body={"value": value}, headers=wait)
    assert (corrected.status_code, corrected.json()["status"]) == (201, "done")
    found = read(office, "per_a", path, corrected)
    assert (found["value"], found["outcome"], found["corrections"]) == (value, "won", 1)
    foreign = office.call("per_b", "PATCH", path, body={"outcome": "lost"}, headers=wait)
    assert foreign.json()["decisions"][0]["reason"] == "not_yours"
    voided = office.post("per_a", f"{path}/void", {"reason": "客户退货"})
    found = read(office, "per_a", path, voided)
    assert (found["voided"], found["counts"], found["void_code"]) == (True, False, "voided")


def test_lists_are_pages_in_the_order_of_entry(office: Office, customer: str) -> None:
    recorded = [record(office, "per_a", customer) for _ in range(3)]
    ids = [each.json()["made"] for each in recorded]
    read(office, "per_a", f"/v1/customers/{customer}/deals", recorded[-1])
    for path in (f"/v1/customers/{customer}/deals?", "/v1/deals?person=per_a&"):
        first = office.get("per_a", f"{path}limit=2").json()
        second = office.get("per_a", f"{path}limit=2&cursor={first['next']}").json()
        assert [each["deal"] for each in (*first["items"], *second["items"])] == ids
        assert second["next"] is None


def test_what_is_malformed_or_not_there_is_refused(office: Office, customer: str) -> None:
    path = f"/v1/customers/{customer}/deals"
    for body in (
        {},
        {"outcome": "drawn"},
        {"outcome": "won", "value": {"amount": "NaN", "currency": "CNY"}},
        {"outcome": "won", "value": {"amount": "1" * 40, "currency": "CNY"}},
        {"outcome": "won", "value": {"amount": "1", "currency": "yuan"}},
        {"outcome": "won", "product": "\0"},
        {"outcome": "won", "person": "per_none"},
    ):
        assert office.post("per_a", path, body).status_code == 422, body
    assert office.get("per_a", "/v1/customers/cus_none/deals").status_code == 404
    assert office.get("per_a", f"{path}/dea_none").status_code == 404
    assert office.get("per_a", f"{path}?cursor=xyz").status_code == 422
    refused = office.post("per_auditor", path, {"outcome": "won"})
    assert (refused.status_code, refused.json()["permission"]) == (403, "work:write")
