"""What could not be decided is told as parked, and nobody waits longer for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from ledger import commands
from ledger.canonical import canonical_bytes
from ledger.deciders import Decider, deciders
from ledger.deciders.drafts import Draft
from ledger.envelope import Event, Origin
from ledger.events.requests import ClaimFiled
from ledger.organisation import OrganisationAt
from ledger.recording import Asked
from ledger.settled import Settled
from ledger.store.appending import Append, NewEvent
from tests.api.http.office import Office


@dataclass
class Defects:
    """Customers whose claims nobody can decide."""

    customers: set[str] = field(default_factory=set)

    def deciders(self) -> dict[int, Decider]:
        """Return the deciders with a defect."""
        return {version: self._failing(decide) for version, decide in deciders().items()}

    def _failing(self, right: Decider) -> Decider:
        def decide(settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
            data = request.data
            if isinstance(data, ClaimFiled) and data.customer in self.customers:
                raise ZeroDivisionError("the words of a defect")
            return right(settled, request, organisation)

        return decide


@pytest.fixture
def defects(monkeypatch: pytest.MonkeyPatch) -> Defects:
    """Has to stand in front of the office, whose enforcer it is for."""
    made = Defects()
    monkeypatch.setattr("consumers.enforcer.deciders", made.deciders)
    return made


def test_a_parked_claim_is_not_waited_for_nor_is_what_stands_behind_it(
    defects: Defects, office: Office
) -> None:
    """They were told as pending for ever, and held their callers for as long as these waited."""
    customer, other = office.customer("华星"), office.customer("蓝海")
    defects.customers.add(customer)
    first = office.post("per_a", "/v1/claims", {"customer": customer})
    behind = office.post("per_b", "/v1/claims", {"customer": customer})
    assert (first.status_code, behind.status_code) == (202, 202)
    assert (first.json()["status"], behind.json()["status"]) == ("parked", "parked")
    assert office.post("per_b", "/v1/claims", {"customer": other}).json()["status"] == "granted"
    position = behind.json()["claim"]
    request = office.get("per_b", f"/v1/requests/{position}").json()
    assert (request["status"], request["request"]) == ("parked", position)
    (event,) = request["decisions"]
    assert event["name"] == "RequestParked.v1"
    assert event["data"] == {
        "customer": customer,
        "request": first.json()["claim"],
        "error": "ZeroDivisionError",
    }


def test_parked_claims_are_listed_apart_until_they_are_decided_after_all(
    defects: Defects, office: Office
) -> None:
    customer = office.customer("华星")
    defects.customers.add(customer)
    filed = [
        office.post(who, "/v1/claims", {"customer": customer}).json()["claim"]
        for who in ("per_a", "per_b")
    ]
    reflects = f"min_position={filed[-1]}"

    def listed(status: str) -> list[int]:
        found = office.get("per_a", f"/v1/claims?status={status}&{reflects}").json()
        assert {each["status"] for each in found["items"]} <= {status}
        return [each["claim"] for each in found["items"]]

    assert listed("parked") == filed[::-1]
    assert listed("pending") == []
    read = office.get("per_a", f"/v1/claims/{filed[0]}?{reflects}").json()
    assert read["status"] == "parked"
    # What would be decided cannot be said either.
    check = office.post("per_a", "/v1/claims/check", {"customer": customer})
    assert (check.status_code, check.json()["code"]) == (409, "would_wait")

    (told,) = office.get("per_auditor", "/v1/requests/parked").json()["items"]
    assert told == {
        "request": filed[0],
        "customer": customer,
        "error": "ZeroDivisionError",
        "behind": 1,
    }

    defects.customers.clear()
    unpark = commands.UnparkRequest(customer=customer, request=filed[0], decider=1)
    services = office.services
    recorded = services.ledger.recording.record(
        Asked(unpark, Origin("test", "req_unpark", "per_admin"))
    )
    (noted,) = asyncio.run(services.decisions.of(recorded.positions, 20))
    reflects = f"min_position={noted.position}"
    assert listed("parked") == []
    assert (listed("granted"), listed("refused")) == ([filed[0]], [filed[1]])
    assert office.get("per_a", f"/v1/requests/{filed[0]}").json()["status"] == "done"


def test_an_administrator_has_what_is_parked_decided_after_all(
    defects: Defects, office: Office
) -> None:
    customer = office.customer("华星")
    defects.customers.add(customer)
    claim = office.post("per_a", "/v1/claims", {"customer": customer}).json()["claim"]
    path, body = f"/v1/requests/{claim}/unpark", {"decider": 1}
    defects.customers.clear()
    lacking = office.post("per_admin", path, {"decider": 99})
    assert (lacking.status_code, lacking.json()["code"]) == (422, "decider_missing")
    key = {"Idempotency-Key": "unpark-1"}
    first = office.post("per_admin", path, body, headers=key)
    assert (first.status_code, first.json()["status"]) == (201, "done")
    assert office.get("per_a", f"/v1/requests/{claim}").json()["status"] == "done"
    again = office.post("per_admin", path, body, headers=key)
    assert (again.json()["request"], again.json()["repeated"]) == (first.json()["request"], True)
    other = office.post("per_b", "/v1/claims", {"customer": customer}).json()["claim"]
    assert office.post("per_admin", f"/v1/requests/{other}/unpark", body).status_code == 404


def test_what_nobody_can_read_is_told_as_parked(office: Office) -> None:
    """The route decoded the request, and answered with a defect."""
    customer = office.customer("华星")
    body = {"request_id": "req_1", "caller": "test", "actor": "per_a", "index": 0, "data": {}}
    new = NewEvent(f"customer-{customer}", "ClaimFiled.v1", canonical_bytes(body))
    position = office.services.ledger.committer.append(Append((new,))).first_position
    behind = office.post("per_a", "/v1/claims", {"customer": customer}).json()
    assert behind["status"] == "parked"
    request = office.get("per_a", f"/v1/requests/{position}").json()
    assert (request["status"], request["customer"]) == ("parked", customer)
