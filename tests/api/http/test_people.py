"""People over HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.responses import Response

from api.http.services import Reads
from api.http.writing import reflected_etag
from ledger import organisation_commands as facts
from tests.api.http.office import CRM, EAST, WEST, Office, make_token

JOINING = {
    "name": "王芳",
    "territory": EAST,
    "phone": "13800000001",
    "email": "wang@example.com",
    "joined_on": "2026-03-01",
    "foreign_ids": [{"system": "hr", "value": "E-17"}],
}


def add(office: Office, **fields: Any) -> tuple[str, str]:
    """Add somebody; return the id and the position."""
    answer = office.post("per_admin", "/v1/people", {**JOINING, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()["about"], answer.headers["Ledger-Position"]


def noted(office: Office) -> list[tuple[str, str, list[str], list[str]]]:
    """Who has seen which personal fields of whom."""
    with office.services.ledger.pool.connection() as connection:
        rows = connection.execute(
            "SELECT caller, route, subjects, fields FROM api.personal_access ORDER BY number"
        ).fetchall()
    return [(caller, route, subjects, fields) for caller, route, subjects, fields in rows]


def test_who_joins_is_found_by_name_number_and_territory(office: Office) -> None:
    person, position = add(office)
    after = f"min_position={position}"
    for text in ("王芳", "E-17", "hr:E-17", person):
        found = office.get("per_a", f"/v1/people?text={text}&{after}").json()["items"]
        assert [(each["person"], each["near"]) for each in found] == [(person, False)]
    near = office.get("per_a", f"/v1/people?text=王芬&{after}").json()
    assert person in [each["person"] for each in near["items"]]
    assert all(each["near"] for each in near["items"])
    west = office.get("per_a", f"/v1/people?territory={WEST}&{after}").json()["items"]
    assert [each["person"] for each in west] == ["per_west", "per_w"]


def test_people_are_listed_in_pages(office: Office) -> None:
    add(office)
    _, position = add(office, foreign_ids=[])
    listed: list[str] = []
    cursor = ""
    while True:
        page = office.get("per_a", f"/v1/people?limit=4&min_position={position}{cursor}").json()
        listed += [each["person"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert len(listed) == len(set(listed)) == 9
    two = office.get("per_a", f"/v1/people?text=王芳&limit=1&min_position={position}").json()
    (first,) = two["items"]
    rest = office.get("per_a", f"/v1/people?text=王芳&limit=1&cursor={two['next']}").json()
    assert [each["name"] for each in (first, *rest["items"])] == ["王芳", "王芳"]
    assert rest["next"] is None
    for wrong in ("x", two["next"]):
        assert office.get("per_a", f"/v1/people?cursor={wrong}").json()["code"] == "cursor"


def test_phones_and_mails_are_seen_by_who_manages_them_and_it_is_noted(office: Office) -> None:
    person, position = add(office)
    path = f"/v1/people/{person}?min_position={position}"
    for who, is_seen in (
        ("per_admin", True),
        ("per_east", True),
        ("per_west", False),
        ("per_a", False),
        ("per_auditor", False),
        (CRM, False),
    ):
        told = office.get(who, path).json()
        assert (told["phone"], told["email"]) == (
            ("13800000001", "wang@example.com") if is_seen else (None, None)
        )
        assert told["masked"] is not is_seen
        assert told["name"] == "王芳"
        (listed,) = office.get(who, "/v1/people?text=E-17").json()["items"]
        assert listed["masked"] is not is_seen
    expires = datetime.now(UTC) + timedelta(hours=1)
    office.tokens[person] = make_token(office.services, "person", person, ["rep"], expires)
    assert office.get(person, path).json()["phone"] == "13800000001"
    seen = noted(office)
    assert {caller for caller, *_ in seen} == {
        "person:per_admin",
        "person:per_east",
        f"person:{person}",
    }
    assert all(each[2:] == ([person], ["email", "phone"]) for each in seen)


def test_the_workload_is_for_oneself_and_for_who_reads_figures(office: Office) -> None:
    customer = office.customer("华星")
    claimed = office.post("per_a", "/v1/claims", {"customer": customer})
    path = f"/v1/people/per_a?min_position={claimed.headers['Ledger-Position']}"
    for who in ("per_a", "per_east", "per_auditor"):
        assert office.get(who, path).json()["workload"]["held"] == 1
    assert office.get("per_b", path).json()["workload"] is None
    east = office.get("per_b", "/v1/people/per_east").json()
    assert (east["manages"], east["heads"], east["workload"]) == ([EAST], [EAST], None)
    assert office.get("per_admin", "/v1/people/per_b").json()["workload"]["held"] == 0


def test_holdings_are_listed_now_then_and_ever(office: Office) -> None:
    first, second = office.customer("华星"), office.customer("蓝海")
    for customer in (first, second):
        last = office.post("per_a", "/v1/claims", {"customer": customer})
    path = f"/v1/people/per_a/holdings?min_position={last.headers['Ledger-Position']}"
    held = office.get("per_b", path).json()["items"]
    assert [each["customer"] for each in held] == [second, first]
    assert {each["begun_by"] for each in held} == {"granted"}
    page = office.get("per_b", f"{path}&limit=1").json()
    rest = office.get("per_b", f"{path}&limit=1&cursor={page['next']}").json()
    assert [each["customer"] for each in rest["items"]] == [first]
    assert rest["next"] is None
    then = held[0]["since"].replace("+", "%2B")
    as_of = office.get("per_b", f"{path}&as_of={then}").json()["items"]
    assert [each["customer"] for each in as_of] == [second, first]
    before = office.get("per_b", f"{path}&as_of=2020-01-01T00:00:00Z").json()["items"]
    assert before == []
    ever = office.get("per_b", f"{path}&history=true").json()["items"]
    assert [each["customer"] for each in ever] == [second, first]
    # A cursor of somebody else's holdings is none of these.
    other = office.get("per_b", f"/v1/people/per_b/holdings?cursor={page['next']}")
    assert other.json()["code"] == "cursor"


@pytest.mark.parametrize(
    "query",
    [
        "as_of=2026-03-01",
        "as_of=2026-03-01T00:00:00",
        "as_of=0001-01-01T00:00:00%2B14:00",
        "as_of=9999-12-31T23:59:59-14:00",
        "limit=0",
        "limit=501",
        "cursor=%00",
        "min_position=-1",
    ],
)
def test_a_malformed_query_is_pointed_at(office: Office, query: str) -> None:
    answer = office.get("per_a", f"/v1/people/per_a/holdings?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_who_is_unknown_is_not_found(office: Office) -> None:
    for path in ("/v1/people/per_x", "/v1/people/per_x/holdings"):
        assert office.get("per_a", path).status_code == 404
    left = office.post("per_admin", "/v1/people/per_x/left", {"left_on": "2026-03-01"})
    assert (left.status_code, left.json()["code"]) == (404, "not_found")
    assert office.get("per_a", "/v1/people?text=%00").status_code == 200


def test_a_person_changes_is_away_leaves_and_returns(office: Office) -> None:
    person, _ = add(office)
    path = f"/v1/people/{person}"
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", path, {"territory": WEST, "roles": ["rep", "manager"], "name": "王方"}),
        ("POST", f"{path}/absences", {"from_day": "2026-03-01", "until_day": "2026-03-08"}),
        (
            "POST",
            f"{path}/delegates",
            {"from_day": "2026-03-01", "until_day": "2026-03-08", "delegate": "per_a"},
        ),
        ("POST", f"{path}/left", {"left_on": "2026-04-01"}),
    ]
    for method, where, body in changes:
        answer = office.call("per_admin", method, where, body=body)
        assert (answer.status_code, answer.json()["about"]) == (201, person), answer.text
    position = answer.headers["Ledger-Position"]
    told = office.get("per_a", f"{path}?min_position={position}").json()
    assert (told["name"], told["territory"]) == ("王方", WEST)
    assert told["roles"] == ["rep", "manager"]
    assert told["left_on"] == "2026-04-01"
    period = {"from_day": "2026-03-01", "until_day": "2026-03-08"}
    assert told["absences"] == [period]
    assert told["delegations"] == [{**period, "delegate": "per_a"}]
    back = office.post("per_admin", f"{path}/returned", {"returned_on": "2026-05-01"})
    after = back.headers["Ledger-Position"]
    told = office.get("per_a", f"{path}?min_position={after}").json()
    assert (told["left_on"], told["joined_on"]) == (None, "2026-05-01")


def test_what_contradicts_is_refused(office: Office) -> None:
    refused: list[tuple[str, str, dict[str, Any], str]] = [
        ("POST", "/absences", {"from_day": "2026-03-08", "until_day": "2026-03-08"}, "body"),
        (
            "POST",
            "/delegates",
            {"from_day": "2026-03-01", "until_day": "2026-03-08", "delegate": "per_a"},
            "body/delegate",
        ),
        ("POST", "/returned", {"returned_on": "2026-03-08"}, "path/person"),
        ("PUT", "", {"roles": ["rep"]}, "body/territory"),
        ("PUT", "", {"territory": EAST, "roles": ["king"]}, "body/roles/0"),
        ("PUT", "", {"territory": EAST, "roles": [], "name": "\ud800"}, "body/name"),
        ("PUT", "", {"territory": EAST, "roles": [], "name": "\0"}, "body/name"),
    ]
    for method, path, body, pointer in refused:
        answer = office.call(
            "per_admin",
            method,
            f"/v1/people/per_a{path}",
            content=_ascii(body),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
    last = office.post("per_admin", "/v1/people/per_admin/left", {"left_on": "2026-03-01"})
    assert (last.status_code, last.json()["code"]) == (422, "invalid_request")


def _ascii(body: dict[str, Any]) -> bytes:
    """A body as JSON; httpx would write a lone surrogate as it is, and fail."""
    return json.dumps(body).encode()


def test_only_administrators_change_who_is_there(office: Office) -> None:
    for who in ("per_a", "per_east", "per_auditor", CRM):
        answer = office.post(who, "/v1/people", JOINING)
        assert (answer.status_code, answer.json()["permission"]) == (403, "organisation:write")


def test_a_token_for_a_territory_changes_nobody_elsewhere(office: Office) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    office.tokens["bound"] = make_token(
        office.services, "person", "per_admin", ["admin"], expires, territories=[EAST]
    )
    assert office.post("bound", "/v1/people", JOINING).status_code == 201
    for answer in (
        office.post("bound", "/v1/people", {**JOINING, "territory": WEST}),
        office.post("bound", "/v1/people", {"name": "王芳"}),
        office.post("bound", "/v1/people/per_w/left", {"left_on": "2026-03-01"}),
        office.call("bound", "PUT", "/v1/people/per_w", body={"territory": EAST, "roles": ["rep"]}),
        office.call("bound", "PUT", "/v1/people/per_a", body={"territory": WEST, "roles": ["rep"]}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert office.get("bound", "/v1/people/per_w").json()["masked"] is True


def test_a_change_is_recorded_only_on_what_it_is_based_on(office: Office) -> None:
    tag = office.get("per_admin", "/v1/people/per_a").headers["ETag"]
    body = {"territory": WEST, "roles": ["rep"]}
    based = {"If-Match": tag}
    key = {"Idempotency-Key": "move-1"}
    first = office.call("per_admin", "PUT", "/v1/people/per_a", body=body, headers=based | key)
    assert first.status_code == 201
    moved = office.call("per_admin", "PUT", "/v1/people/per_a", body=body, headers=based)
    assert (moved.status_code, moved.json()["code"]) == (412, "precondition_failed")
    # What was recorded is answered again, although the organisation is not as it was.
    again = office.call("per_admin", "PUT", "/v1/people/per_a", body=body, headers=based | key)
    assert again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json() | {"repeated": True}
    assert again.headers["ETag"] == first.headers["ETag"] != tag
    on_that = office.call(
        "per_admin",
        "POST",
        "/v1/people/per_a/left",
        body={"left_on": "2026-03-01"},
        headers={"If-Match": first.headers["ETag"]},
    )
    assert on_that.status_code == 201
    weak = office.call(
        "per_admin", "PUT", "/v1/people/per_a", body=body, headers={"If-Match": 'W/"1"'}
    )
    assert (weak.status_code, weak.json()["code"]) == (400, "malformed_header")


def test_the_etag_is_of_what_was_shown_and_not_of_what_the_log_has_meanwhile(
    office: Office,
) -> None:
    """The log is ahead of the read models: by its version a change would undo what nobody saw."""
    shown = office.get("per_admin", "/v1/people/per_a")
    services = office.services
    office.state(facts.MarkLeft(person="per_b", left_on=datetime.now(UTC).date()))
    with services.ledger.pool.connection() as connection:
        behind = Reads(Response())
        behind.reached = int(shown.headers["Ledger-Position"])
        assert reflected_etag(connection, behind) == shown.headers["ETag"]


def test_where_four_eyes_are_required_roles_are_proposed(office: Office) -> None:
    office.state(
        facts.ChangePerson(person="per_east", territory=EAST, roles=("manager", "admin")),
        facts.RequireFourEyes(required=True),
    )
    key = {"Idempotency-Key": "boss-1"}
    body = {"territory": EAST, "roles": ["rep", "manager"]}
    answer = office.call("per_admin", "PUT", "/v1/people/per_a", body=body, headers=key)
    assert answer.status_code == 202
    proposal = answer.json()["proposal"]
    assert answer.headers["Location"] == f"/v1/proposals/{proposal}"
    again = office.call("per_admin", "PUT", "/v1/people/per_a", body=body, headers=key)
    assert again.json() == answer.json() | {"repeated": True}
    other = office.call("per_admin", "PUT", "/v1/people/per_b", body=body, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "request_reused")
    joins = office.post("per_admin", "/v1/people", {**JOINING, "roles": ["manager"]})
    assert (joins.status_code, joins.json()["code"]) == (409, "four_eyes")


def test_an_absence_and_a_delegation_end_before_their_day(office: Office) -> None:
    path = "/v1/people/per_a"
    days = {"from_day": "2099-01-01", "until_day": "2099-02-01"}
    office.post("per_admin", f"{path}/absences", days)
    office.post("per_admin", f"{path}/delegates", days | {"delegate": "per_b"})
    back = office.post("per_admin", f"{path}/absences/end", {"back_on": "2099-01-11"})
    ended = office.post("per_admin", f"{path}/delegates/end", {"ended_on": "2099-01-21"})
    assert (back.status_code, ended.status_code) == (201, 201)
    after = f"min_position={ended.headers['Ledger-Position']}"
    told = office.get("per_a", f"{path}?{after}").json()
    assert told["absences"] == [{"from_day": "2099-01-01", "until_day": "2099-01-11"}]
    (delegation,) = told["delegations"]
    assert delegation["until_day"] == "2099-01-21"
    over = office.post("per_admin", f"{path}/absences/end", {"back_on": "2099-01-21"})
    assert over.status_code == 422
