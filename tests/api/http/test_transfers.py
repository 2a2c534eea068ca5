"""Transfers over HTTP: asking, looking, checking."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.http.office import EAST, Office, read

VALUE = {"amount": "88000.00", "currency": "CNY"}


def owned(office: Office, owner: str = "per_a", name: str = "华星") -> str:
    customer = office.customer(name, territory=EAST)
    claim = office.post(owner, "/v1/claims", {"customer": customer})
    assert claim.json()["status"] == "granted", claim.text
    return customer


def asked(office: Office, customer: str, receiver: str = "per_b", **fields: Any) -> str:
    body = {"customer": customer, "receiver": receiver, **fields}
    answer = office.post("per_a", "/v1/transfers", body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["status"] == "awaiting", answer.text
    made: str = answer.json()["made"]
    assert answer.headers["Location"] == f"/v1/transfers/{made}"
    return made


def test_a_transfer_names_its_steps_and_whom_it_awaits(office: Office) -> None:
    customer = owned(office)
    transfer = asked(office, customer, "per_w")
    found = read(office, "per_b", f"/v1/transfers/{transfer}")
    assert (found["status"], found["purpose"], found["step"]) == ("open", "transfer", 0)
    assert (found["owner"], found["receiver"], found["requester"]) == ("per_a", "per_w", "per_a")
    assert found["awaits"] == ["per_east"]
    assert found["next"]["then"] == "step_reminder"
    words = [[each["words"] for each in step["approvers"]] for step in found["steps"]]
    assert words == [["head of 华东"], ["head of 华西"], ["receiver"]]
    given = office.post("per_east", f"/v1/approvals/{transfer}/approve", {})
    assert given.status_code == 201
    after = read(office, "per_b", f"/v1/transfers/{transfer}")
    assert after["steps"][0]["answers"] == [{"approver": 0, "person": "per_east", "agreed": True}]
    assert (after["step"], after["awaits"]) == (1, ["per_west"])


def test_the_value_is_for_those_within_their_scope_and_those_who_judge(office: Office) -> None:
    customer = owned(office)
    transfer = asked(office, customer, "per_w", value=VALUE)
    path = f"/v1/transfers/{transfer}"
    for who in ("per_a", "per_east", "per_admin"):
        assert read(office, who, path)["value"] == VALUE
    # Neither the receiver to come, nor a colleague, nor who looks from outside.
    for who in ("per_w", "per_b", "per_west", "per_auditor", "int_crm"):
        found = read(office, who, path)
        assert (found["value"], found["masked"]) == (None, True)
        (listed,) = read(office, who, "/v1/transfers")["items"]
        assert listed["value"] is None
    # Whoever is asked to judge has to know.
    office.post("per_east", f"/v1/approvals/{transfer}/approve", {})
    assert read(office, "per_west", path)["value"] == VALUE
    with office.services.ledger.pool.connection() as connection:
        noted = connection.execute(
            "SELECT person, fields FROM api.personal_access WHERE %s = ANY(subjects)", (customer,)
        ).fetchall()
    assert {person for person, _ in noted} == {"per_a", "per_east", "per_admin", "per_west"}
    assert all(fields == ["value"] for _, fields in noted)


def test_transfers_are_listed_by_how_they_stand_and_page_by_page(office: Office) -> None:
    customers = [owned(office, name=name) for name in ("华星", "蓝海", "恒信")]
    transfers = [asked(office, customer) for customer in customers]
    office.post("per_a", f"/v1/approvals/{transfers[0]}/withdraw", {})
    read(office, "per_a", f"/v1/transfers/{transfers[0]}")

    def ids(query: str) -> list[str]:
        items = read(office, "per_auditor", f"/v1/transfers?{query}")["items"]
        return [each["approval"] for each in items]

    assert ids("") == transfers[::-1]
    assert ids("status=open") == transfers[:0:-1]
    assert ids("status=ended") == ids("status=withdrawn") == transfers[:1]
    assert ids("status=completed") == []
    assert ids(f"customer={customers[1]}") == [transfers[1]]
    assert ids("requester=per_a&receiver=per_b&owner=per_a") == transfers[::-1]
    assert ids("receiver=per_w") == []
    first = read(office, "per_a", "/v1/transfers?limit=2")
    rest = read(office, "per_a", f"/v1/transfers?limit=2&cursor={first['next']}")
    assert [each["approval"] for each in first["items"] + rest["items"]] == transfers[::-1]
    assert rest["next"] is None


def test_a_transfer_refused_at_the_door_is_an_outcome(office: Office) -> None:
    customer = office.customer("华星")
    answer = office.post("per_a", "/v1/transfers", {"customer": customer, "receiver": "per_b"})
    assert answer.status_code == 201
    assert (answer.json()["status"], answer.json()["decisions"][0]["reason"]) == (
        "refused",
        "not_owned",
    )
    found = read(office, "per_a", f"/v1/transfers/{answer.json()['made']}")
    assert (found["status"], found["reason"], found["steps"]) == ("not_opened", "not_owned", [])
    assert found["awaits"] == []


def test_a_check_tells_what_would_be_decided_and_records_nothing(office: Office) -> None:
    customer = owned(office)
    body = {"customer": customer, "receiver": "per_b", "reason": "更近", "value": VALUE}
    before = int(office.get("per_a", "/v1/transfers").headers["Ledger-Position"])
    told = office.post("per_a", "/v1/transfers/check", body)
    assert told.status_code == 200
    assert told.json()["recorded"] is False
    assert told.json()["status"] == "awaiting"
    assert told.json()["head"] >= before
    opened = told.json()["decisions"][0]
    assert (opened["name"], opened["data"]["asked"]) == ("ApprovalOpened.v1", ["per_east"])
    free = office.customer("蓝海")
    refused = office.post("per_a", "/v1/transfers/check", body | {"customer": free}).json()
    assert (refused["status"], refused["decisions"][0]["reason"]) == ("refused", "not_owned")
    assert read(office, "per_a", "/v1/transfers")["items"] == []
    unknown = office.post("per_a", "/v1/transfers/check", body | {"customer": "cus_none"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_id")
    assert office.post("per_auditor", "/v1/transfers/check", body).status_code == 403
    # An integration of its own acts for nobody.
    assert office.post("int_crm", "/v1/transfers/check", body).status_code == 403
    named = {"On-Behalf-Of": "per_a"}
    assert office.post("int_crm", "/v1/transfers/check", body, headers=named).status_code == 200


@pytest.mark.parametrize(
    "query",
    ["cursor=abc", "cursor=%00", "status=lost", "customer=%00", "limit=0", "min_position=-1"],
)
def test_a_list_refuses_what_it_does_not_know(office: Office, query: str) -> None:
    assert office.get("per_a", f"/v1/transfers?{query}").status_code == 422


def test_what_is_not_there_is_not_found(office: Office) -> None:
    assert office.get("per_a", "/v1/transfers/trf_none").status_code == 404
    assert office.get("per_a", "/v1/transfers/%00").status_code == 422
    nul = {"customer": "cus_1", "receiver": "per_b", "reason": "\0"}
    assert office.post("per_a", "/v1/transfers", nul).status_code == 422
    surrogate = b'{"customer": "cus_1", "receiver": "per_b", "reason": "\\ud800"}'
    answer = office.call(
        "per_a",
        "POST",
        "/v1/transfers",
        content=surrogate,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
