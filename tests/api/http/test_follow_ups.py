"""Follow-ups over HTTP: who logs them, and who sees what was said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.api.http.office import EAST, WEST, Office, make_token

NOTE, AGREED = "谈了价格", "下周签合同"


@pytest.fixture
def customer(office: Office) -> str:
    """A customer of the east, which is per_a's."""
    made = office.customer("华星", territory=EAST)
    assert office.post("per_a", "/v1/claims", {"customer": made}).json()["status"] == "granted"
    return made


def log(office: Office, who: str, customer: str, **fields: Any) -> httpx.Response:
    """Log a follow-up and wait for its decision."""
    given = {"note": NOTE, "agreed": AGREED, **fields}
    answer = office.post(who, f"/v1/customers/{customer}/follow-ups", given)
    assert answer.status_code == 201, answer.text
    return answer


def read(office: Office, who: str, path: str, after: httpx.Response) -> Any:
    """Read as somebody what reflects an answer."""
    answer = office.get(who, f"{path}?min_position={after.headers['Ledger-Position']}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def accesses(office: Office) -> list[tuple[Any, ...]]:
    """Return who has seen what, of whom."""
    with office.services.ledger.pool.connection() as connection:
        rows = connection.execute(
            "SELECT person, route, subjects, fields FROM api.personal_access ORDER BY number"
        )
        return rows.fetchall()


def test_a_follow_up_is_logged_and_read(office: Office, customer: str) -> None:
    logged = log(
        office,
        "per_a",
        customer,
        channel="visit",
        next_on="2030-01-02",
        occurred="2026-03-01T09:30:00+08:00",
        foreign_ids=[{"system": "crm", "value": "7"}],
    )
    said = logged.json()
    path = f"/v1/customers/{customer}/follow-ups/{said['made']}"
    assert (said["status"], logged.headers["Location"]) == ("done", path)
    found = read(office, "per_a", path, logged)
    assert (found["follow_up"], found["customer"]) == (said["made"], customer)
    assert (found["person"], found["actor"]) == ("per_a", "per_a")
    assert (found["channel"], found["next_on"]) == ("visit", "2030-01-02")
    assert (found["note"], found["agreed"], found["masked"]) == (NOTE, AGREED, False)
    assert found["at"] == "2026-03-01T01:30:00Z"
    assert found["foreign_ids"] == [{"system": "crm", "value": "7"}]
    assert (found["voided"], found["corrections"]) == (False, 0)


@pytest.mark.parametrize(
    ("who", "sees"),
    [
        ("per_a", True),  # the owner
        ("per_east", True),  # heads the customer's territory
        ("per_admin", True),
        ("per_b", False),
        ("per_west", False),
        ("per_auditor", False),
        ("int_crm", False),
    ],
)
def test_what_was_said_is_seen_within_ones_scope(
    office: Office, customer: str, who: str, sees: bool
) -> None:
    logged = log(office, "per_a", customer)
    for path in (
        f"/v1/customers/{customer}/follow-ups/{logged.json()['made']}",
        f"/v1/customers/{customer}/follow-ups",
    ):
        found = read(office, who, path, logged)
        each = found["items"][0] if "items" in found else found
        shown = (each["note"], each["agreed"], each["masked"])
        assert shown == ((NOTE, AGREED, False) if sees else (None, None, True))
        assert each["channel"] == "call"
    assert len(accesses(office)) == (2 if sees else 0)


def test_who_sees_what_was_said_is_noted(office: Office, customer: str) -> None:
    logged = log(office, "per_a", customer)
    read(office, "per_east", f"/v1/customers/{customer}/follow-ups", logged)
    route = "/v1/customers/{customer}/follow-ups"
    assert accesses(office) == [("per_east", route, [customer], ["agreed", "note"])]
    # Where nothing was said nobody has seen anything.
    silent = office.post("per_a", f"/v1/customers/{customer}/follow-ups", {})
    path = f"/v1/customers/{customer}/follow-ups/{silent.json()['made']}"
    assert read(office, "per_east", path, silent)["masked"] is False
    assert len(accesses(office)) == 1


def test_own_follow_ups_are_seen_at_customers_of_others(office: Office, customer: str) -> None:
    log(office, "per_a", customer)
    last = log(office, "per_b", customer, note="我也去过")
    items = read(office, "per_b", f"/v1/customers/{customer}/follow-ups", last)["items"]
    assert [each["note"] for each in items] == [None, "我也去过"]
    assert [each["by_owner"] for each in items] == [True, False]
    assert items[1]["remark"] == "follow_up_by_non_owner"
    own = office.get("per_b", "/v1/follow-ups?person=per_b").json()["items"]
    assert [each["note"] for each in own] == ["我也去过"]
    others = office.get("per_b", "/v1/follow-ups?person=per_a").json()["items"]
    assert [each["note"] for each in others] == [None]


def test_a_token_bound_to_other_territories_shows_not_even_own_follow_ups(
    office: Office, customer: str
) -> None:
    logged = log(office, "per_b", customer)
    expires = datetime.now(UTC) + timedelta(hours=1)
    for name, territory in (("west", WEST), ("east", EAST)):
        office.tokens[name] = make_token(
            office.services, "person", "per_b", ("rep",), expires, territories=[territory]
        )
    path = f"/v1/customers/{customer}/follow-ups"
    assert read(office, "west", path, logged)["items"][0]["note"] is None
    assert read(office, "east", path, logged)["items"][0]["note"] == NOTE


def test_collaborators_see_what_was_said(office: Office, customer: str) -> None:
    log(office, "per_a", customer)
    path = f"/v1/customers/{customer}/follow-ups"
    added = office.post(
        "per_a", f"/v1/customers/{customer}/collaborations", {"person": "per_b", "role": "presales"}
    )
    assert read(office, "per_b", path, added)["items"][0]["note"] == NOTE


def test_a_follow_up_is_corrected_and_voided(office: Office, customer: str) -> None:
    logged = log(office, "per_a", customer)
    path = f"/v1/customers/{customer}/follow-ups/{logged.json()['made']}"
    wait = {"Prefer": "wait=20"}
    body = {"note": "谈了交货", "reason": "写错了", "channel": "visit"}
    corrected = office.call("per_a", "PATCH", path, body=body, headers=wait)
    assert (corrected.status_code, corrected.json()["status"]) == (201, "done")
    found = read(office, "per_a", path, corrected)
    assert (found["note"], found["agreed"], found["channel"]) == ("谈了交货", AGREED, "visit")
    assert found["corrections"] == 1
    foreign = office.call("per_b", "PATCH", path, body={"note": "不是我的"}, headers=wait)
    assert foreign.json()["decisions"][0]["reason"] == "not_yours"
    voided = office.post("per_a", f"{path}/void", {"reason_code": "duplicate"})
    assert voided.json()["status"] == "done"
    found = read(office, "per_a", path, voided)
    assert (found["voided"], found["void_code"]) == (True, "duplicate")
    again = office.post("per_a", f"{path}/void", {})
    assert (again.status_code, again.json()["decisions"][0]["reason"]) == (201, "act_voided")


def test_lists_are_pages_in_the_order_of_entry(office: Office, customer: str) -> None:
    logged = [log(office, "per_a", customer, note=f"第{number}次") for number in range(3)]
    ids = [each.json()["made"] for each in logged]
    read(office, "per_a", f"/v1/customers/{customer}/follow-ups", logged[-1])
    for path in (f"/v1/customers/{customer}/follow-ups?", "/v1/follow-ups?person=per_a&"):
        first = office.get("per_a", f"{path}limit=2").json()
        second = office.get("per_a", f"{path}limit=2&cursor={first['next']}").json()
        assert [each["follow_up"] for each in (*first["items"], *second["items"])] == ids
        assert second["next"] is None


def test_what_is_malformed_or_not_there_is_refused(office: Office, customer: str) -> None:
    path = f"/v1/customers/{customer}/follow-ups"
    for body in (
        {"note": "\0"},
        {"channel": "Not A Code"},
        {"next_on": "tomorrow"},
        {"occurred": "2026-03-01T09:30:00"},
        {"occurred": "2999-03-01T09:30:00Z"},
        {"person": "per_none"},
        {"colour": "red"},
    ):
        assert office.post("per_a", path, body).status_code == 422, body
    assert office.post("per_a", "/v1/customers/cus_none/follow-ups", {}).status_code == 404
    assert office.get("per_a", "/v1/customers/cus_none/follow-ups").status_code == 404
    assert office.get("per_a", f"{path}/fup_none").status_code == 404
    assert office.get("per_a", "/v1/follow-ups").status_code == 422
    unknown = office.post("per_a", f"{path}/fup_none/void", {})
    assert unknown.json()["decisions"][0]["reason"] == "unknown_act"
    refused = office.post("per_auditor", path, {})
    assert (refused.status_code, refused.json()["permission"]) == (403, "work:write")
