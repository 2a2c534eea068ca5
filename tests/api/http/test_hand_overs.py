"""Hand-overs over HTTP: ordering, checking, and the receipt."""

from __future__ import annotations

import pytest

from api.http import checks
from tests.api.http.office import CRM, Office, read
from tests.api.http.test_transfers import owned

NAMES = ("华星", "蓝海", "恒信")


def body(**fields: object) -> dict[str, object]:
    return {"giver": "per_a", "receivers": ["per_b"], "reason": "调岗"} | fields


def ordered(office: Office, **fields: object) -> str:
    answer = office.post("per_east", "/v1/hand-overs", body(**fields))
    assert answer.status_code == 201, answer.text
    made: str = answer.json()["made"]
    assert answer.headers["Location"] == f"/v1/hand-overs/{made}"
    return made


def test_a_hand_over_has_a_receipt_with_a_line_for_each_customer(office: Office) -> None:
    customers = [owned(office, name=name) for name in NAMES]
    hand_over = ordered(office)
    found = read(office, "per_a", f"/v1/hand-overs/{hand_over}")
    assert (found["giver"], found["receivers"], found["orderer"]) == (
        "per_a",
        ["per_b"],
        "per_east",
    )
    # The head's own step is done by the order; the receiver has still to accept.
    assert (found["state"], found["waiting"], found["waiting_now"]) == ("done", 3, 3)
    assert found["counts"] == {"customer waiting": 3}
    lines = read(office, "per_w", f"/v1/hand-overs/{hand_over}/receipt")["items"]
    assert {each["customer"] for each in lines} == set(customers)
    (task, *_) = read(office, "per_b", f"/v1/inbox?hand_over={hand_over}")["items"]
    assert task["approval"]["hand_over"] == hand_over
    answers = [{"approval": each["approval"], "answer": "approve"} for each in lines[:2]]
    many = office.post("per_b", "/v1/approvals/answers", {"answers": answers})
    assert [each["status"] for each in many.json()["items"]] == ["done", "done"]
    after = read(office, "per_a", f"/v1/hand-overs/{hand_over}")
    assert after["counts"] == {"customer moved": 2, "customer waiting": 1}
    assert (after["waiting"], after["waiting_now"]) == (3, 1)
    path = f"/v1/hand-overs/{hand_over}/receipt"
    assert len(read(office, "per_w", f"{path}?outcome=moved")["items"]) == 2
    first = read(office, "per_w", f"{path}?limit=2")
    rest = read(office, "per_w", f"{path}?limit=2&cursor={first['next']}")
    assert first["items"] + rest["items"] == read(office, "per_w", path)["items"]


def test_its_reason_is_for_those_concerned(office: Office) -> None:
    owned(office)
    hand_over = ordered(office)
    path = f"/v1/hand-overs/{hand_over}"
    for who in ("per_a", "per_east", "per_admin"):
        assert read(office, who, path)["reason"] == "调岗"
    for who in ("per_b", "per_w", "per_west", "per_auditor", CRM):
        found = read(office, who, path)
        assert (found["reason"], found["masked"]) == (None, True)
        (listed,) = read(office, who, "/v1/hand-overs?giver=per_a")["items"]
        assert listed["reason"] is None
    with office.services.ledger.pool.connection() as connection:
        noted = connection.execute(
            "SELECT person, subjects FROM api.personal_access WHERE fields = '{reason}'"
        ).fetchall()
    assert noted == [(who, ["per_a"]) for who in ("per_a", "per_east", "per_admin")]


def test_a_refused_one_says_why(office: Office) -> None:
    owned(office)
    answer = office.post("per_west", "/v1/hand-overs", body())
    assert (answer.status_code, answer.json()["status"]) == (201, "refused")
    found = read(office, "per_west", f"/v1/hand-overs/{answer.json()['made']}")
    assert found["state"] == "refused"
    assert found["refused_because"] == answer.json()["decisions"][0]["reason"]
    assert found["sentence"]


def test_they_are_listed_page_by_page(office: Office) -> None:
    owned(office)
    made = [ordered(office), ordered(office, giver="per_b", receivers=["per_a"])]
    listed = read(office, "per_w", "/v1/hand-overs")
    assert [each["hand_over"] for each in listed["items"]] == made[::-1]
    (own,) = read(office, "per_w", "/v1/hand-overs?giver=per_b")["items"]
    assert own["hand_over"] == made[1]
    first = read(office, "per_w", "/v1/hand-overs?limit=1")
    rest = read(office, "per_w", f"/v1/hand-overs?limit=1&cursor={first['next']}")
    assert first["items"] + rest["items"] == listed["items"]


def test_a_check_tells_what_would_move_where(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers = [owned(office, name=name) for name in NAMES]
    told = office.post("per_east", "/v1/hand-overs/check", body()).json()
    assert (told["recorded"], told["status"], told["left_out"]) == (False, "awaiting", 0)
    lines = [each for each in told["decisions"] if each["name"] == "ApprovalOpened.v1"]
    assert {each["customer"] for each in lines} == set(customers)
    assert told["decisions"][-1]["name"] == "HandOverCompleted.v1"
    monkeypatch.setattr(checks, "TOLD_MAX", 2)
    short = office.post("per_east", "/v1/hand-overs/check", body()).json()
    assert (len(short["decisions"]), short["left_out"]) == (2, len(told["decisions"]) - 2)
    assert short["decisions"][-1]["name"] == "HandOverCompleted.v1"
    assert read(office, "per_east", "/v1/hand-overs")["items"] == []


def test_who_may_not_and_what_is_wrong(office: Office) -> None:
    for path in ("/v1/hand-overs", "/v1/hand-overs/check"):
        refused = office.post("per_a", path, body())
        assert (refused.status_code, refused.json()["permission"]) == (403, "hand_overs:write")
        assert office.post("per_east", path, body(receivers=["per_a"])).status_code == 422
        assert office.post("per_east", path, body(giver="per_none")).status_code == 422
        assert office.post("per_east", path, body(reason="\0")).status_code == 422
    assert office.get("per_a", "/v1/hand-overs/hov_none").status_code == 404
    assert office.get("per_a", "/v1/hand-overs/hov_none/receipt").status_code == 404
    hand_over = ordered(office)
    lost = office.get("per_a", f"/v1/hand-overs/{hand_over}/receipt?outcome=lost")
    assert lost.status_code == 422
