"""Collaborations over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.http.office import EAST, Office


@pytest.fixture
def customer(office: Office) -> str:
    """A customer of the east, which is per_a's."""
    made = office.customer("华星", territory=EAST)
    assert office.post("per_a", "/v1/claims", {"customer": made}).json()["status"] == "granted"
    return made


def listed(office: Office, path: str) -> list[tuple[str, str]]:
    """Return who is listed, and as what."""
    answer = office.get("per_w", path)
    assert answer.status_code == 200, answer.text
    return [(each["person"], each["status"]) for each in answer.json()["items"]]


def test_the_owner_adds_and_ends_collaborators(office: Office, customer: str) -> None:
    path = f"/v1/customers/{customer}/collaborations"
    terms: dict[str, Any] = {"role": "presales", "share": "12.5", "until_day": "2030-01-01"}
    added = office.post("per_a", path, {"person": "per_b", **terms})
    said = added.json()
    assert (added.status_code, said["status"]) == (201, "done")
    assert added.headers["Location"] == f"/v1/collaborations/{said['made']}"
    position = added.headers["Ledger-Position"]
    found = office.get("per_w", f"{added.headers['Location']}?min_position={position}").json()
    assert (found["customer"], found["person"], found["requester"]) == (customer, "per_b", "per_a")
    assert (found["role"], found["share"], found["status"]) == ("presales", "12.5", "standing")
    assert (found["is_current"], found["until"]) == (True, "2029-12-31T16:00:00Z")
    ended = office.post("per_a", f"{path}/{said['made']}/end", {"reason": "项目结束"})
    assert ended.json()["status"] == "done"
    reflects = f"min_position={ended.headers['Ledger-Position']}"
    assert listed(office, f"{path}?{reflects}") == []
    assert listed(office, f"{path}?current=false") == [("per_b", "ended")]
    again = office.post("per_a", f"{path}/{said['made']}/end", {})
    assert again.json()["decisions"][0]["reason"] == "collaboration_ended"


def test_what_others_ask_for_awaits_an_answer(office: Office, customer: str) -> None:
    path = f"/v1/customers/{customer}/collaborations"
    asked = office.post("per_b", path, {"reason": "我认识他们"})
    assert (asked.status_code, asked.json()["status"]) == (201, "awaiting")
    office.post("per_a", path, {"person": "per_w"})
    last = office.post("per_b", path, {})
    assert last.json()["decisions"][0]["reason"] == "already_collaborates"
    reflects = f"min_position={last.headers['Ledger-Position']}"
    both = [("per_w", "standing"), ("per_b", "asked")]
    assert listed(office, f"{path}?{reflects}") == both
    assert listed(office, "/v1/collaborations") == both
    assert listed(office, "/v1/collaborations?person=per_b") == both[1:]
    assert listed(office, "/v1/collaborations?status=standing") == both[:1]
    first = office.get("per_w", "/v1/collaborations?limit=1").json()
    second = office.get("per_w", f"/v1/collaborations?limit=1&cursor={first['next']}").json()
    assert [each["person"] for each in (*first["items"], *second["items"])] == ["per_w", "per_b"]
    assert second["next"] is None


def test_what_is_malformed_or_not_there_is_refused(office: Office, customer: str) -> None:
    path = f"/v1/customers/{customer}/collaborations"
    for body in (
        {"share": "0"},
        {"share": "NaN"},
        {"person": "per_none"},
        {"from_day": "2030-01-02", "until_day": "2030-01-02"},
        {"reason": "\0"},
        {"colour": "red"},
    ):
        assert office.post("per_a", path, body).status_code == 422, body
    unknown = office.post("per_a", f"{path}/col_none/end", {})
    assert unknown.json()["decisions"][0]["reason"] == "unknown_collaboration"
    assert office.get("per_a", "/v1/collaborations/col_none").status_code == 404
    assert office.get("per_a", "/v1/customers/cus_none/collaborations").status_code == 404
    assert office.get("per_a", "/v1/collaborations?status=odd").status_code == 422
    refused = office.post("per_auditor", path, {})
    assert (refused.status_code, refused.json()["permission"]) == (403, "collaborations:write")
