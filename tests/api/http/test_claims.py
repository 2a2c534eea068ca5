"""Claims over HTTP."""

from __future__ import annotations

from tests.api.http.office import Office


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
