"""Approvals over HTTP: what awaits whom, answering it, many at once, and withdrawing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from api.http.cursors import make_cursor
from api.http.routes import inbox
from tests.api.http.office import CRM, Office, make_token, read
from tests.api.http.test_transfers import VALUE, asked, owned


def test_the_inbox_says_what_awaits_one_and_as_what_and_until_when(office: Office) -> None:
    transfer = asked(office, owned(office), value=VALUE)
    (task,) = read(office, "per_east", "/v1/inbox")["items"]
    assert (task["kind"], task["approval"]["approval"]) == ("transfer", transfer)
    assert [each["words"] for each in task["asked_as"]] == ["head of 华东"]
    assert task["approval"]["value"] == VALUE
    due = datetime.fromisoformat(task["next"]["due"])
    assert task["next"]["then"] == "step_reminder"
    assert due > datetime.now(UTC) + timedelta(days=1)
    for who in ("per_a", "per_b", "per_west", "per_admin", "per_auditor"):
        assert read(office, who, "/v1/inbox")["items"] == []
    office.post("per_east", f"/v1/approvals/{transfer}/approve", {"comment": "同意"})
    (accepts,) = read(office, "per_b", "/v1/inbox?kind=transfer&requester=per_a")["items"]
    assert [each["kind"] for each in accepts["asked_as"]] == ["receiver"]
    assert read(office, "per_b", "/v1/inbox?kind=claim")["items"] == []
    assert read(office, "per_b", "/v1/inbox?requester=per_w")["items"] == []
    assert read(office, "per_b", "/v1/inbox?hand_over=hov_1")["items"] == []


def test_the_inbox_comes_page_by_page_the_oldest_first(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfers = [asked(office, owned(office, name=name)) for name in ("华星", "蓝海", "恒信")]
    first = read(office, "per_east", "/v1/inbox?limit=2")
    rest = read(office, "per_east", f"/v1/inbox?limit=2&cursor={first['next']}")
    shown = [each["approval"]["approval"] for each in first["items"] + rest["items"]]
    assert shown == transfers
    assert rest["next"] is None
    # Who is asked nothing looks through all that is open, and not at one go.
    monkeypatch.setattr(inbox, "LOOKED_AT_MAX", 2)
    looked = read(office, "per_w", "/v1/inbox")
    assert looked["items"] == []
    assert read(office, "per_w", f"/v1/inbox?cursor={looked['next']}")["next"] is None


def test_an_integration_has_the_inbox_of_the_person_it_acts_for(office: Office) -> None:
    asked(office, owned(office))
    assert office.get(CRM, "/v1/inbox").status_code == 403
    answer = office.get(CRM, "/v1/inbox", headers={"On-Behalf-Of": "per_east"})
    assert answer.status_code == 200


def test_agreeing_moves_the_customer_and_refusing_ends_it(office: Office) -> None:
    customer = owned(office)
    transfer = asked(office, customer)
    # Just answered: what is not shown yet is waited for.
    agreed = office.post("per_east", f"/v1/approvals/{transfer}/approve", {"comment": "同意"})
    assert (agreed.status_code, agreed.json()["status"]) == (201, "done")
    accepted = office.post("per_b", f"/v1/approvals/{transfer}/approve", None)
    assert [each["name"] for each in accepted.json()["decisions"]] == [
        "StepAnswered.v1",
        "OwnershipTransferred.v1",
        "ApprovalClosed.v1",
    ]
    assert read(office, "per_a", f"/v1/customers/{customer}/ownership")["owner"] == "per_b"
    other = asked(office, owned(office, name="蓝海"))
    refused = office.post("per_east", f"/v1/approvals/{other}/refuse", {"reason_code": "too_early"})
    assert refused.json()["decisions"][-1]["data"]["outcome"] == "refused"
    assert read(office, "per_a", f"/v1/approvals/{other}")["status"] == "refused"


def test_an_answer_that_does_not_count_is_an_outcome(office: Office) -> None:
    transfer = asked(office, owned(office))
    answer = office.post("per_w", f"/v1/approvals/{transfer}/approve", {})
    assert (answer.status_code, answer.json()["status"]) == (201, "refused")
    assert answer.json()["decisions"][0]["reason"] == "not_asked"


def test_an_integration_answers_only_with_a_grant_of_its_own(office: Office) -> None:
    transfer = asked(office, owned(office))
    path = f"/v1/approvals/{transfer}/approve"
    named = {"On-Behalf-Of": "per_east"}
    for each in (path, f"/v1/approvals/{transfer}/refuse"):
        refused = office.post(CRM, each, {}, headers=named)
        assert (refused.status_code, refused.json()["permission"]) == (403, "approvals:write")
    many = {"answers": [{"approval": transfer, "answer": "approve"}]}
    assert office.post(CRM, "/v1/approvals/answers", many, headers=named).status_code == 403
    expires = datetime.now(UTC) + timedelta(hours=1)
    office.tokens["int_oa"] = make_token(
        office.services,
        "integration",
        "int_oa",
        ["integration"],
        expires,
        grants=["approvals:write"],
    )
    assert office.post("int_oa", path, {}).status_code == 403
    agreed = office.post("int_oa", path, {}, headers=named)
    assert agreed.json()["status"] == "done"
    found = read(office, "per_a", f"/v1/approvals/{transfer}")
    assert found["steps"][0]["answers"][0]["person"] == "per_east"


def test_who_asked_withdraws_it(office: Office) -> None:
    transfer = asked(office, owned(office))
    path = f"/v1/approvals/{transfer}/withdraw"
    assert office.post("per_b", path, {}).json()["status"] == "refused"
    gone = office.post("per_a", path, {"reason": "不转了"})
    assert gone.json()["decisions"][-1]["data"]["outcome"] == "withdrawn"
    assert read(office, "per_a", f"/v1/approvals/{transfer}")["status"] == "withdrawn"


def test_what_is_not_there_is_not_found(office: Office) -> None:
    for act in ("approve", "refuse", "withdraw"):
        answer = office.post("per_east", f"/v1/approvals/trf_none/{act}", {})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert office.post("per_east", f"/v1/approvals/%00/{act}", {}).status_code == 422
    assert office.get("per_east", "/v1/approvals/trf_none").status_code == 404


def test_releases_and_claims_that_await_approval_are_listed_too(office: Office) -> None:
    transfer = asked(office, owned(office))
    found = read(office, "per_auditor", "/v1/approvals?purpose=transfer&status=open")
    assert [each["approval"] for each in found["items"]] == [transfer]
    assert read(office, "per_auditor", "/v1/approvals?purpose=release")["items"] == []
    # A cursor is of its own list.
    cursor = {"cursor": make_cursor("inbox", 1)}
    assert office.get("per_auditor", "/v1/approvals", params=cursor).status_code == 422


# --- many at once --------------------------------------------------------------------------------


def test_many_are_answered_each_with_an_outcome_of_its_own(office: Office) -> None:
    first, second, third = (
        asked(office, owned(office, name=name)) for name in ("华星", "蓝海", "恒信")
    )
    office.post("per_a", f"/v1/approvals/{third}/withdraw", {})
    body = {
        "answers": [
            {"approval": first, "answer": "approve", "comment": "同意"},
            {"approval": "trf_none", "answer": "approve"},
            {"approval": second, "answer": "refuse", "reason_code": "too_early"},
            {"approval": third, "answer": "approve"},
        ]
    }
    key = {"Idempotency-Key": "crm-1"}
    answer = office.post("per_east", "/v1/approvals/answers", body, headers=key)
    assert answer.status_code == 201
    items = answer.json()["items"]
    assert [each["approval"] for each in items] == [first, "trf_none", second, third]
    assert [each["status"] for each in items] == ["done", "not_recorded", "done", "refused"]
    assert items[1]["problem"]["status"] == 404
    assert items[2]["outcome"]["decisions"][-1]["data"]["outcome"] == "refused"
    assert "problem" in items[0]
    assert read(office, "per_a", f"/v1/approvals/{second}")["status"] == "refused"
    again = office.post("per_east", "/v1/approvals/answers", body, headers=key)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert [each["status"] for each in again.json()["items"]] == [
        "done",
        "not_recorded",
        "done",
        "refused",
    ]
    # The same key with other answers is refused, one by one.
    other = {"answers": [{"approval": first, "answer": "refuse"}]}
    (reused,) = office.post("per_east", "/v1/approvals/answers", other, headers=key).json()["items"]
    assert (reused["status"], reused["problem"]["code"]) == ("not_recorded", "request_reused")


def test_without_a_preference_the_answers_are_accepted(office: Office) -> None:
    transfer = asked(office, owned(office))
    body = {"answers": [{"approval": transfer, "answer": "approve"}]}
    answer = office.call("per_east", "POST", "/v1/approvals/answers", body=body)
    assert (answer.status_code, answer.json()["items"][0]["status"]) == (202, "pending")
    assert read(office, "per_a", f"/v1/approvals/{transfer}")["step"] == 1


def test_a_list_of_answers_has_its_bounds(office: Office) -> None:
    one = {"approval": "trf_1", "answer": "approve"}
    for answers in (
        [],
        [one, one],
        [one | {"reason_code": "refused"}],
        [one | {"answer": "perhaps"}],
        [one | {"comment": "\0"}],
        [one | {"approval": f"trf_{number}"} for number in range(501)],
    ):
        answer = office.post("per_east", "/v1/approvals/answers", {"answers": answers})
        assert answer.status_code == 422
