"""Orphaned customers and stand-ins over HTTP."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from api.http.routes import orphans
from ledger import organisation_commands as facts
from tests.api.http.office import EAST, WEST, Office, read
from tests.api.http.test_transfers import owned

CONTACTS = {"contacts": [{"name": "李雷"}]}


def today(office: Office) -> date:
    return office.services.directory.organisation().day(datetime.now(UTC))


def orphaned(office: Office) -> list[str]:
    """Return the customers of per_a, who has left; heads act for leavers since version 2."""
    office.state(facts.AdoptDecider(version=2))
    customers = [owned(office, name=name) for name in ("华星", "蓝海", "恒信")]
    office.state(facts.MarkLeft(person="per_a", left_on=today(office)))
    return sorted(customers)


def test_they_are_listed_with_who_looks_after_them(office: Office) -> None:
    customers = orphaned(office)
    found = read(office, "per_w", "/v1/orphans")["items"]
    assert [each["customer"] for each in found] == customers
    assert found[0]["looked_after_by"] == ["per_east"]
    assert (found[0]["owner"], found[0]["since"]) == ("per_a", str(today(office)))
    for query in ("owner=per_a", f"territory={EAST}", "in_care_of=per_east"):
        assert len(read(office, "per_w", f"/v1/orphans?{query}")["items"]) == 3
    for query in ("owner=per_b", f"territory={WEST}", "in_care_of=per_west"):
        assert read(office, "per_w", f"/v1/orphans?{query}")["items"] == []


def test_they_come_page_by_page(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    customers = orphaned(office)
    first = read(office, "per_w", "/v1/orphans?limit=2")
    rest = read(office, "per_w", f"/v1/orphans?limit=2&cursor={first['next']}")
    assert [each["customer"] for each in first["items"] + rest["items"]] == customers
    assert rest["next"] is None
    monkeypatch.setattr(orphans, "LOOKED_AT_MAX", 2)
    looked = read(office, "per_w", "/v1/orphans?in_care_of=per_west")
    assert (looked["items"], bool(looked["next"])) == ([], True)
    assert office.get("per_w", "/v1/orphans?cursor=x").status_code == 422


def test_a_head_names_a_stand_in_who_may_end_it(office: Office) -> None:
    customer, *_ = orphaned(office)
    until = str(today(office) + timedelta(days=7))
    path = f"/v1/customers/{customer}/stand-ins"
    named = office.post("per_east", path, {"person": "per_b", "until": until})
    assert (named.status_code, named.json()["status"]) == (201, "done")
    stand_in = named.json()["made"]
    (found,) = read(office, "per_w", "/v1/orphans?limit=1")["items"]
    assert found["stand_in"] == "per_b"
    (told,) = read(office, "per_w", path)["items"]
    assert (told["stand_in"], told["named_by"], told["ended"]) == (stand_in, "per_east", None)
    ended = office.post("per_b", f"/v1/stand-ins/{stand_in}/end", {"reason": "已交接"})
    assert (ended.status_code, ended.json()["status"]) == (201, "done")
    (over,) = read(office, "per_w", path)["items"]
    assert over["end_reason"] == "ended"
    again = office.post("per_b", f"/v1/stand-ins/{stand_in}/end", None)
    assert (again.status_code, again.json()["status"]) == (201, "refused")


def test_who_stands_in_sees_what_the_work_needs_for_so_long(office: Office) -> None:
    """They were to call the customer, and its contacts were masked for them."""
    customer, *_ = orphaned(office)
    office.call("per_admin", "PATCH", f"/v1/customers/{customer}", body=CONTACTS)
    path = f"/v1/customers/{customer}"
    assert read(office, "per_b", path)["contacts"] is None
    until = str(today(office) + timedelta(days=7))
    named = office.post("per_east", f"{path}/stand-ins", {"person": "per_b", "until": until})
    (contact,) = read(office, "per_b", path)["contacts"]
    assert contact["name"] == "李雷"
    office.post("per_b", f"/v1/stand-ins/{named.json()['made']}/end", {})
    assert read(office, "per_b", path)["contacts"] is None


def test_who_may_not_and_what_is_wrong(office: Office) -> None:
    customer, *_ = orphaned(office)
    path = f"/v1/customers/{customer}/stand-ins"
    good = {"person": "per_b", "until": str(today(office) + timedelta(days=7))}
    denied = office.post("per_b", path, good)
    assert (denied.status_code, denied.json()["permission"]) == (403, "assignments:write")
    assert office.post("per_west", path, good).json()["status"] == "refused"
    for wrong in (
        good | {"until": "0001-01-01"},
        good | {"until": "soon"},
        good | {"person": "per_none"},
        good | {"reason": "\0"},
    ):
        assert office.post("per_east", path, wrong).status_code == 422
    assert office.post("per_east", "/v1/customers/cus_none/stand-ins", good).status_code == 404
    assert office.get("per_east", "/v1/customers/cus_none/stand-ins").status_code == 404
    assert office.post("per_b", "/v1/stand-ins/sti_none/end", {}).status_code == 404
    assert office.post("per_auditor", "/v1/stand-ins/sti_none/end", {}).status_code == 403
