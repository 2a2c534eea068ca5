"""Versions of the decider over HTTP: which one is in force since when, and adopting another."""

from __future__ import annotations

from ledger import deciders
from tests.api.http.office import Office


def test_a_version_is_adopted_and_those_before_stay_known(office: Office) -> None:
    told = office.get("per_a", "/v1/deciders")
    first = told.json()["items"]
    assert (first[0]["in_force"], told.json()["known"]) == (True, sorted(deciders.deciders()))
    based = {"If-Match": told.headers["ETag"]}
    body = {"version": max(deciders.deciders())}
    adopted = office.post("per_admin", "/v1/deciders", body, headers=based)
    assert adopted.status_code == 201, adopted.text
    assert office.post("per_admin", "/v1/deciders", body, headers=based).status_code == 412
    now = office.get("per_a", "/v1/deciders", headers={"If-None-Match": told.headers["ETag"]})
    assert now.status_code == 200
    newest, *rest = now.json()["items"]
    assert (newest["version"], newest["in_force"]) == (body["version"], True)
    assert newest["position"] == adopted.json()["position"]
    assert rest == [each | {"in_force": False} for each in first]
    has = {"If-None-Match": now.headers["ETag"]}
    assert office.get("per_a", "/v1/deciders", headers=has).status_code == 304


def test_none_that_is_lacking_or_older_is_adopted(office: Office) -> None:
    office.post("per_admin", "/v1/deciders", {"version": 2})
    for version, code in ((99, "decider_missing"), (1, "invalid_request"), (0, "invalid_request")):
        answer = office.post("per_admin", "/v1/deciders", {"version": version})
        assert (answer.status_code, answer.json()["code"]) == (422, code), version
    assert office.post("per_east", "/v1/deciders", {"version": 3}).status_code == 403
