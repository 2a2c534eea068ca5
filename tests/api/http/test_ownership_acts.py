"""Releases and assignments over HTTP."""

from __future__ import annotations

from tests.api.http.office import CRM, EAST, Office


def test_a_customer_is_released_by_its_owner_and_assigned_by_a_manager(office: Office) -> None:
    customer = office.customer("华星", territory=EAST)
    office.post("per_a", "/v1/claims", {"customer": customer})
    released = office.post(
        "per_a",
        f"/v1/customers/{customer}/release",
        {"reason_code": "no_budget", "reason": "没有预算"},
    )
    assert released.status_code == 201
    said = released.json()
    assert (said["status"], said["customer"]) == ("done", customer)
    assert said["decisions"][0]["name"] == "OwnershipReleased.v1"
    assert released.headers["Location"] == f"/v1/requests/{said['request']}"
    assigned = office.post(
        "per_east", f"/v1/customers/{customer}/assign", {"assignee": "per_b", "reason": "熟悉"}
    )
    assert assigned.json()["status"] == "done"
    reflects = f"min_position={assigned.headers['Ledger-Position']}"
    now = office.get("per_a", f"/v1/customers/{customer}/ownership?{reflects}").json()
    assert now["owner"] == "per_b"


def test_what_the_ledger_refuses_is_an_outcome(office: Office) -> None:
    customer = office.customer("华星", territory=EAST)
    free = office.post("per_a", f"/v1/customers/{customer}/release", {})
    assert (free.status_code, free.json()["status"]) == (201, "refused")
    foreign = office.post("per_west", f"/v1/customers/{customer}/assign", {"assignee": "per_w"})
    assert foreign.json()["decisions"][0]["reason"] == "not_manager"


def test_who_lacks_the_permission_is_told_which(office: Office) -> None:
    customer = office.customer("华星")
    path = f"/v1/customers/{customer}"
    refused = office.post("per_a", f"{path}/assign", {"assignee": "per_a"})
    assert (refused.status_code, refused.json()["permission"]) == (403, "assignments:write")
    refused = office.post("per_auditor", f"{path}/release", {})
    assert (refused.status_code, refused.json()["permission"]) == (403, "work:write")
    nobody = office.post(CRM, f"{path}/release", {})
    assert (nobody.status_code, nobody.json()["permission"]) == (403, "On-Behalf-Of")


def test_what_is_malformed_is_refused(office: Office) -> None:
    for path, body in (
        ("/v1/customers/%00/release", {}),
        ("/v1/customers/cus_1/release", {"reason": "\0"}),
        ("/v1/customers/cus_1/release", {"reason_code": "No Code"}),
        ("/v1/customers/cus_1/assign", {}),
        ("/v1/customers/cus_1/assign", {"assignee": "per_a", "colour": "red"}),
    ):
        assert office.post("per_east", path, body).status_code == 422, path
    assert office.post("per_east", "/v1/customers/cus_none/release", {}).status_code == 404
