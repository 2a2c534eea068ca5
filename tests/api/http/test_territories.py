"""Territories over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ledger import organisation_commands as facts
from tests.api.http.office import EAST, WEST, Office, make_token


def define(office: Office, **fields: Any) -> tuple[str, str]:
    """Define a territory; return its id and the position."""
    answer = office.post("per_admin", "/v1/territories", fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["about"], answer.headers["Ledger-Position"]


def test_territories_are_listed_as_a_tree_in_pages(office: Office) -> None:
    low, _ = define(office, name="上海", parent=EAST, foreign_ids=[{"system": "hr", "value": "S"}])
    lowest, position = define(office, name="浦东", parent=low)
    listed: list[tuple[str, int]] = []
    cursor = f"min_position={position}"
    while True:
        page = office.get("per_a", f"/v1/territories?limit=1&{cursor}").json()
        listed += [(each["territory"], each["depth"]) for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"cursor={page['next']}"
    assert listed == [(EAST, 0), (low, 1), (lowest, 2), (WEST, 0)]
    told = office.get("per_a", f"/v1/territories/{low}").json()
    assert (told["name"], told["parent"]) == ("上海", EAST)
    assert told["foreign_ids"] == [{"system": "hr", "value": "S"}]
    east = office.get("per_a", f"/v1/territories/{EAST}").json()
    assert (east["head"], east["managers"], east["orphaned"]) == ("per_east", ["per_east"], 0)


def test_a_territory_changes_as_a_whole_and_only_on_what_it_is_based_on(office: Office) -> None:
    tag = office.get("per_admin", f"/v1/territories/{WEST}").headers["ETag"]
    body = {"name": "西部", "parent": EAST, "managers": ["per_w"]}
    based = {"If-Match": tag}
    path = f"/v1/territories/{WEST}"
    changed = office.call("per_admin", "PUT", path, body=body, headers=based)
    assert (changed.status_code, changed.json()["about"]) == (201, WEST)
    late = office.call("per_admin", "PUT", path, body=body, headers=based)
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    position = changed.headers["Ledger-Position"]
    told = office.get("per_a", f"{path}?min_position={position}")
    assert told.headers["ETag"] == changed.headers["ETag"]
    assert (told.json()["name"], told.json()["head"]) == ("西部", None)
    assert (told.json()["managers"], told.json()["depth"]) == (["per_w"], 1)


def test_what_makes_no_tree_is_refused(office: Office) -> None:
    low, _ = define(office, name="上海", parent=EAST)
    circle = office.call(
        "per_admin", "PUT", f"/v1/territories/{EAST}", body={"name": "华东", "parent": low}
    )
    assert (circle.status_code, circle.json()["code"]) == (422, "invalid_request")
    for body in ({"name": "x", "parent": "ter_x"}, {"name": "x", "head": "per_x"}):
        answer = office.post("per_admin", "/v1/territories", body)
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_id")
    unknown = office.call("per_admin", "PUT", "/v1/territories/ter_x", body={"name": "x"})
    assert unknown.status_code == 404
    assert office.get("per_a", "/v1/territories/ter_x").status_code == 404
    for who in ("per_a", "per_east", "per_auditor"):
        answer = office.post(who, "/v1/territories", {"name": "x"})
        assert (answer.status_code, answer.json()["permission"]) == (403, "organisation:write")


def test_a_token_for_a_territory_defines_nothing_above_or_beside_it(office: Office) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    office.tokens["bound"] = make_token(
        office.services, "person", "per_admin", ["admin"], expires, territories=[EAST]
    )
    below = office.post("bound", "/v1/territories", {"name": "上海", "parent": EAST})
    assert below.status_code == 201
    east = {"name": "华东", "head": "per_east"}
    renamed = office.call("bound", "PUT", f"/v1/territories/{EAST}", body={**east, "name": "东"})
    assert renamed.status_code == 201
    for answer in (
        office.post("bound", "/v1/territories", {"name": "华南"}),
        office.call("bound", "PUT", f"/v1/territories/{WEST}", body={"name": "x"}),
        office.call("bound", "PUT", f"/v1/territories/{EAST}", body={**east, "parent": WEST}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    figures = office.get("bound", "/v1/territories/figures").json()["territories"]
    assert EAST in [each["territory"] for each in figures]
    assert WEST not in [each["territory"] for each in figures]


def test_another_head_is_proposed_where_four_eyes_are_required(office: Office) -> None:
    office.state(
        facts.ChangePerson(person="per_east", territory=EAST, roles=("manager", "admin")),
        facts.RequireFourEyes(required=True),
    )
    body = {"name": "华西", "head": "per_a"}
    answer = office.call("per_admin", "PUT", f"/v1/territories/{WEST}", body=body)
    assert (answer.status_code, answer.json()["about"]) == (202, None)
    assert answer.json()["proposal"].startswith("pro_")
    renamed = office.call(
        "per_admin", "PUT", f"/v1/territories/{WEST}", body={"name": "西", "head": "per_west"}
    )
    assert renamed.status_code == 201


def test_figures_tell_of_a_period(office: Office) -> None:
    customer = office.customer("华星", territory=EAST)
    office.post("per_a", "/v1/claims", {"customer": customer})
    rival = office.post("per_b", "/v1/claims", {"customer": customer})
    position = rival.headers["Ledger-Position"]
    told = office.get("per_east", f"/v1/territories/figures?min_position={position}").json()
    (east,) = [each for each in told["territories"] if each["territory"] == EAST]
    assert (east["name"], east["conflicts_opened"], east["conflicts_open"]) == ("华东", 1, 1)
    assert (east["approvals"], east["ruled"], east["gone"]) == ([], {}, 0)
    before = office.get(
        "per_auditor", "/v1/territories/figures?since=2020-01-01&until=2020-02-01"
    ).json()
    assert (before["since"], before["until"]) == ("2020-01-01", "2020-02-01")
    assert {each["conflicts_opened"] for each in before["territories"]} == {0}
    for query in (
        "since=2026-03-01&until=2026-03-01",
        "since=0001-01-01",
        "until=9999-12-31",
        "since=soon",
    ):
        answer = office.get("per_east", f"/v1/territories/figures?{query}")
        assert answer.status_code == 422, answer.text
    refused = office.get("per_a", "/v1/territories/figures")
    assert (refused.status_code, refused.json()["permission"]) == (403, "figures:read")
