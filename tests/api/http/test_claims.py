"""Claims over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from api.http import decisions
from ledger.envelope import decode
from tests.api.http.office import CRM, EAST, Office, read


def test_a_claim_is_decided_while_its_caller_waits(office: Office) -> None:
    customer = office.customer("华星")
    answer = office.post("per_a", "/v1/claims", {"customer": customer})
    assert answer.status_code == 201
    claim = answer.json()
    assert (claim["status"], claim["owner"], claim["customer"]) == ("granted", "per_a", customer)
    assert answer.headers["Location"] == f"/v1/claims/{claim['claim']}"
    assert answer.headers["Preference-Applied"] == "wait=20"
    position = answer.headers["Ledger-Position"]
    read = office.get("per_b", f"/v1/claims/{claim['claim']}?min_position={position}")
    assert int(read.headers["Ledger-Position"]) >= int(position)
    assert read.json()["status"] == "granted"


def test_a_refused_claim_is_an_outcome_and_no_error(office: Office) -> None:
    customer = office.customer("华星")
    office.post("per_a", "/v1/claims", {"customer": customer})
    answer = office.post("per_b", "/v1/claims", {"customer": customer})
    assert answer.status_code == 201
    refused = answer.json()
    assert (refused["status"], refused["reason"]) == ("refused", "owned_by_another")
    assert refused["owner"] == "per_a"
    assert refused["sentence"] == "The customer belongs to somebody else."


def test_without_a_preference_the_claim_is_accepted_and_named(office: Office) -> None:
    customer = office.customer("华星")
    answer = office.call("per_a", "POST", "/v1/claims", body={"customer": customer})
    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"
    assert answer.headers["Location"].startswith("/v1/claims/")


def test_the_same_key_again_gets_the_first_answer_and_another_body_none(office: Office) -> None:
    customer, other = office.customer("华星"), office.customer("蓝海")
    key = {"Idempotency-Key": "crm-1"}
    first = office.post("per_a", "/v1/claims", {"customer": customer}, headers=key)
    again = office.post("per_a", "/v1/claims", {"customer": customer}, headers=key)
    assert again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json() | {"repeated": True}
    reused = office.post("per_a", "/v1/claims", {"customer": other}, headers=key)
    assert reused.status_code == 422
    assert reused.json()["type"] == "urn:guishu:problem:request_reused"
    # A key is its caller's own.
    assert office.post("per_b", "/v1/claims", {"customer": other}, headers=key).status_code == 201


def test_nobody_gets_in_without_a_token_that_holds(office: Office) -> None:
    office.tokens["per_x"] = "gs_nothing_atall"
    for who in (None, "per_x"):
        answer = office.post(who, "/v1/claims", {"customer": "cus_1"})
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.headers["Content-Type"] == "application/problem+json"
    refused = office.post("per_auditor", "/v1/claims", {"customer": "cus_1"})
    assert refused.status_code == 403
    assert refused.json()["permission"] == "claims:write"


def test_what_is_wrong_is_pointed_at(office: Office) -> None:
    answer = office.post("per_a", "/v1/claims", {"customer": "", "colour": "red"})
    assert answer.status_code == 422
    pointers = {each["pointer"] for each in answer.json()["errors"]}
    assert pointers == {"body/customer", "body/colour"}
    unknown = office.post("per_a", "/v1/claims", {"customer": "cus_none"})
    assert unknown.status_code == 422
    assert unknown.json()["code"] == "unknown_id"


def test_claims_are_listed_by_customer_claimant_and_status_page_by_page(office: Office) -> None:
    customers = [office.customer(f"客户{number}") for number in range(3)]
    filed = [
        office.post(who, "/v1/claims", {"customer": customer})
        for customer in customers
        for who in ("per_a", "per_b")
    ]
    claims = [each.json()["claim"] for each in filed]
    reflects = f"min_position={filed[-1].headers['Ledger-Position']}"

    def listed(query: str) -> list[int]:
        found = office.get("per_w", f"/v1/claims?{query}&{reflects}")
        assert found.status_code == 200, found.text
        return [each["claim"] for each in found.json()["items"]]

    assert listed("") == claims[::-1]
    assert listed(f"customer={customers[1]}") == [claims[3], claims[2]]
    assert listed("claimant=per_b") == [claims[5], claims[3], claims[1]]
    assert listed("status=granted") == [claims[4], claims[2], claims[0]]
    assert listed(f"customer={customers[1]}&claimant=per_b&status=refused") == [claims[3]]
    assert listed(f"customer={customers[1]}&claimant=per_b&status=granted") == []
    assert listed("claimant=per_nobody") == []
    first = office.get("per_w", f"/v1/claims?limit=4&{reflects}").json()
    second = office.get("per_w", f"/v1/claims?limit=4&cursor={first['next']}").json()
    assert [each["claim"] for each in (*first["items"], *second["items"])] == claims[::-1]
    assert second["next"] is None


def test_a_list_refuses_what_it_does_not_understand(office: Office) -> None:
    for query in ("status=odd", "cursor=abc", "limit=0", "customer=%00", "customer="):
        assert office.get("per_a", f"/v1/claims?{query}").status_code == 422, query


def test_a_check_says_what_would_be_decided_and_records_nothing(office: Office) -> None:
    customer = office.customer("华星")
    free = office.post("per_a", "/v1/claims/check", {"customer": customer})
    assert free.status_code == 200
    assert (free.json()["status"], free.json()["owner"]) == ("granted", "per_a")
    granted = office.post("per_a", "/v1/claims", {"customer": customer})
    taken = office.post("per_b", "/v1/claims/check", {"customer": customer, "note": "为什么"})
    said = taken.json()
    assert (said["status"], said["reason"], said["owner"]) == (
        "refused",
        "owned_by_another",
        "per_a",
    )
    assert said["sentence"] == "The customer belongs to somebody else."
    assert str(said["position"]) == granted.headers["Ledger-Position"]
    assert said["is_behind"] is False
    for_another = {"customer": customer, "claimant": "per_a"}
    assert office.post("per_b", "/v1/claims/check", for_another).json()["reason"] == "already_yours"


def test_a_check_refuses_what_a_claim_refuses(office: Office) -> None:
    unknown = office.post("per_a", "/v1/claims/check", {"customer": "cus_none"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_id")
    refused = office.post("per_auditor", "/v1/claims/check", {"customer": "cus_1"})
    assert refused.json()["permission"] == "claims:write"
    nobody = office.post(CRM, "/v1/claims/check", {"customer": office.customer("华星")})
    assert (nobody.status_code, nobody.json()["permission"]) == (403, "On-Behalf-Of")


def test_what_cannot_be_read_keeps_nobody_else_waiting(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the thread that looks for decisions, and all who waited went on in vain."""
    bad, good = office.customer("坏"), office.customer("好")

    def decoded(catalogue: Any, stored: Any) -> Any:
        if stored.stream == f"ownership-{bad}":
            raise ValueError("not to be read")
        return decode(catalogue, stored)

    monkeypatch.setattr(decisions, "decode", decoded)
    assert office.post("per_a", "/v1/claims", {"customer": bad}).json()["code"] == "defect"
    answer = office.post("per_a", "/v1/claims", {"customer": good})
    assert (answer.status_code, answer.json()["status"]) == (201, "granted")


def test_a_grant_is_read_as_it_was_answered(office: Office) -> None:
    """Until when it protects was told by the answer only, and not by the claim that it named."""
    customer = office.customer("华星", territory=EAST)
    answer = office.post("per_a", "/v1/claims", {"customer": customer})
    filed = answer.json()
    assert filed["protected_until"] is not None
    told = read(office, "per_a", answer.headers["Location"])
    assert told["filed"] is not None
    assert told | {"filed": None} == filed
    assert read(office, "per_a", f"/v1/customers/{customer}/claims")["items"] == [told]
