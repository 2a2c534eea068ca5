"""Policies, proposals, four eyes and calendars over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import organisation_commands as facts
from tests.api.http.office import CRM, EAST, Office, make_token

LIMITED = {"policy": {"holding_limit": 7}, "comment": "少而精"}


def with_two_administrators(office: Office) -> None:
    """Make another administrator, and require four eyes."""
    office.state(
        facts.ChangePerson(person="per_east", territory=EAST, roles=("manager", "admin")),
        facts.RequireFourEyes(required=True),
    )


def test_a_policy_is_adopted_and_those_before_stay_known(office: Office) -> None:
    default = office.get("per_a", "/v1/policies/current")
    assert (default.json()["number"], default.json()["in_force"]) == (0, True)
    assert default.json()["rules"]["holding_limit"] == 999
    based = {"If-Match": default.headers["ETag"]}
    first = office.post("per_admin", "/v1/policies", LIMITED, headers=based)
    assert (first.status_code, first.json()["about"]) == (201, "1")
    assert first.headers["Location"] == "/v1/policies/1"
    late = office.post("per_admin", "/v1/policies", LIMITED, headers=based)
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    second = office.post("per_admin", "/v1/policies", {"policy": {}})
    after = f"min_position={second.headers['Ledger-Position']}"
    told = office.get("per_a", f"/v1/policies/current?{after}")
    assert told.headers["ETag"] == second.headers["ETag"]
    assert (told.json()["number"], told.json()["rules"]["holding_limit"]) == (2, 999)
    one = office.get("per_a", f"/v1/policies/1?{after}").json()
    assert (one["rules"]["holding_limit"], one["comment"], one["in_force"]) == (7, "少而精", False)
    assert office.get("per_a", "/v1/policies/0").json()["in_force"] is False
    page = office.get("per_a", f"/v1/policies?limit=1&{after}").json()
    assert [(each["number"], each["in_force"]) for each in page["items"]] == [(2, True)]
    rest = office.get("per_a", f"/v1/policies?cursor={page['next']}").json()
    assert [each["number"] for each in rest["items"]] == [1]
    assert rest["next"] is None


def test_a_policy_that_cannot_hold_is_pointed_at(office: Office) -> None:
    rule = {
        "territory": "ter_x",
        "conditions": [{"attribute": "city", "operator": "is", "value": "上海"}],
    }
    for policy, status in (
        ({"holding_limit": -1}, 422),
        ({"colour": "red"}, 422),
        ({"territory_rules": [rule]}, 422),
        ({"territory_rules": [{**rule, "territory": "\0"}]}, 422),
        (
            {
                "territory_rules": [
                    {
                        "territory": EAST,
                        "conditions": [{**rule["conditions"][0], "value": "\0"}],  # type: ignore[dict-item]
                    }
                ]
            },
            422,
        ),
    ):
        answer = office.post("per_admin", "/v1/policies", {"policy": policy})
        assert answer.status_code == status, answer.text
    for number in ("3", "-1", "99999999999"):
        assert office.get("per_a", f"/v1/policies/{number}").status_code in {404, 422}
    for who in ("per_a", "per_east", "per_auditor", CRM):
        refused = office.post(who, "/v1/policies", LIMITED)
        assert (refused.status_code, refused.json()["permission"]) == (403, "organisation:write")


def test_what_one_proposes_another_adopts(office: Office) -> None:
    with_two_administrators(office)
    key = {"Idempotency-Key": "policy-1"}
    proposed = office.post("per_admin", "/v1/policies", LIMITED, headers=key)
    assert (proposed.status_code, proposed.json()["about"]) == (202, None)
    proposal = proposed.json()["proposal"]
    again = office.post("per_admin", "/v1/policies", LIMITED, headers=key)
    assert again.json() == proposed.json() | {"repeated": True}
    (waiting,) = office.get("per_a", "/v1/proposals").json()["items"]
    assert (waiting["proposal"], waiting["kind"]) == (proposal, "policy")
    assert waiting["fact"]["policy"]["holding_limit"] == 7
    path = f"/v1/proposals/{proposal}"
    own = office.post("per_admin", f"{path}/adopt", None)
    assert (own.status_code, own.json()["code"]) == (409, "four_eyes")
    shown = office.get("per_east", path)
    adopted = office.post(
        "per_east", f"{path}/adopt", None, headers={"If-Match": shown.headers["ETag"]}
    )
    assert (adopted.status_code, adopted.json()["about"]) == (201, "1")
    told = office.get("per_a", path).json()
    assert (told["state"], told["decided_by"]) == ("adopted", "per_east")
    assert office.get("per_a", "/v1/proposals").json()["items"] == []
    over = office.post("per_admin", f"{path}/withdraw", None)
    assert (over.status_code, over.json()["code"]) == (422, "unknown_id")


def test_a_proposal_is_withdrawn(office: Office) -> None:
    with_two_administrators(office)
    made = [office.post("per_admin", "/v1/policies", LIMITED).json()["proposal"] for _ in range(3)]
    withdrawn = office.post("per_admin", f"/v1/proposals/{made[0]}/withdraw", None)
    assert (withdrawn.status_code, withdrawn.json()["about"]) == (201, made[0])
    page = office.get("per_a", "/v1/proposals?limit=1").json()
    rest = office.get("per_a", f"/v1/proposals?cursor={page['next']}").json()
    assert [each["proposal"] for each in (*page["items"], *rest["items"])] == made[1:]
    (gone,) = office.get("per_a", "/v1/proposals?state=withdrawn").json()["items"]
    assert gone["decided_by"] == "per_admin"
    assert office.get("per_a", "/v1/proposals/pro_x").status_code == 404


def test_who_may_adopt(office: Office) -> None:
    with_two_administrators(office)
    proposal = office.post("per_admin", "/v1/policies", LIMITED).json()["proposal"]
    for who in ("per_a", "per_auditor", CRM):
        refused = office.post(who, f"/v1/proposals/{proposal}/adopt", None)
        assert (refused.status_code, refused.json()["permission"]) == (403, "proposals:adopt")
    # A manager would where the proposer is the only administrator; here there is another.
    manager = office.post("per_west", f"/v1/proposals/{proposal}/adopt", None)
    assert (manager.status_code, manager.json()["code"]) == (409, "four_eyes")
    expires = datetime.now(UTC) + timedelta(hours=1)
    office.tokens["bound"] = make_token(
        office.services, "person", "per_east", ["admin"], expires, territories=[EAST]
    )
    for method, path, body in (
        ("POST", f"/v1/proposals/{proposal}/adopt", None),
        ("POST", f"/v1/proposals/{proposal}/withdraw", None),
        ("POST", "/v1/policies", LIMITED),
        ("PUT", "/v1/four-eyes", {"required": False}),
        ("PUT", "/v1/calendars/2026", {}),
    ):
        answer = office.call("bound", method, path, body=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_four_eyes_are_required_by_one_and_ended_by_two(office: Office) -> None:
    assert office.get("per_a", "/v1/four-eyes").json() == {"required": False}
    alone = office.call("per_admin", "PUT", "/v1/four-eyes", body={"required": True})
    assert (alone.status_code, alone.json()["code"]) == (422, "invalid_request")
    office.state(facts.ChangePerson(person="per_east", territory=EAST, roles=("manager", "admin")))
    begun = office.call("per_admin", "PUT", "/v1/four-eyes", body={"required": True})
    assert begun.status_code == 201
    assert office.get("per_a", "/v1/four-eyes").json() == {"required": True}
    ended = office.call("per_admin", "PUT", "/v1/four-eyes", body={"required": False})
    assert ended.status_code == 202
    proposal = ended.json()["proposal"]
    assert office.post("per_east", f"/v1/proposals/{proposal}/adopt", None).status_code == 201
    assert office.get("per_a", "/v1/four-eyes").json() == {"required": False}


def test_a_calendar_is_stated_and_listed(office: Office) -> None:
    days = {"holidays": ["2026-10-01", "2026-10-02"], "workdays": ["2026-10-10"]}
    for year in ("2026", "2027"):
        body = days if year == "2026" else {}
        stated = office.call("per_admin", "PUT", f"/v1/calendars/{year}", body=body)
        assert (stated.status_code, stated.json()["about"]) == (201, year)
    told = office.get("per_a", "/v1/calendars/2026")
    assert told.json() == {"year": 2026, **days, "source": None}
    page = office.get("per_a", "/v1/calendars?limit=1").json()
    rest = office.get("per_a", f"/v1/calendars?cursor={page['next']}").json()
    assert [each["year"] for each in (*page["items"], *rest["items"])] == [2026, 2027]
    assert office.get("per_a", "/v1/calendars/2028").status_code == 404
    based = {"If-Match": told.headers["ETag"]}
    office.call("per_admin", "PUT", "/v1/calendars/2026", body=days)
    late = office.call("per_admin", "PUT", "/v1/calendars/2026", body=days, headers=based)
    assert late.status_code == 412


@pytest.mark.parametrize(
    ("year", "body"),
    [
        ("1899", {}),
        ("2201", {}),
        ("2026", {"holidays": ["2026-10-03"]}),
        ("2026", {"holidays": ["2027-10-01"]}),
        ("2026", {"workdays": ["2026-10-01"]}),
        ("2026", {"holidays": ["2026-10-01", "2026-10-01"]}),
        ("2026", {"holidays": "soon"}),
    ],
)
def test_a_calendar_that_is_none_is_refused(
    office: Office, year: str, body: dict[str, Any]
) -> None:
    answer = office.call("per_admin", "PUT", f"/v1/calendars/{year}", body=body)
    assert answer.status_code == 422, answer.text


def test_what_somebody_has_already_is_not_sent_again(office: Office) -> None:
    for path in ("/v1/policies/current", "/v1/policies/0", "/v1/four-eyes"):
        told = office.get("per_a", path)
        tag = told.headers["ETag"]
        for has in (tag, f'"99", W/{tag}', "*"):
            same = office.get("per_b", path, headers={"If-None-Match": has})
            assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
            assert "Ledger-Position" in same.headers
        other = office.get("per_b", path, headers={"If-None-Match": '"99"'})
        assert (other.status_code, other.json()) == (200, told.json())
    missing = office.get("per_a", "/v1/policies/9", headers={"If-None-Match": "*"})
    assert missing.status_code == 404
    tag = office.get("per_a", "/v1/policies/current").headers["ETag"]
    adopted = office.post("per_admin", "/v1/policies", LIMITED)
    after = f"min_position={adopted.headers['Ledger-Position']}"
    now = office.get("per_a", f"/v1/policies/current?{after}", headers={"If-None-Match": tag})
    assert (now.status_code, now.json()["number"]) == (200, 1)


def test_a_calendar_that_is_proposed_is_listed(office: Office) -> None:
    """It was of a kind that the list did not know, and the list was a defect from then on."""
    with_two_administrators(office)
    days = {"holidays": ["2024-10-01"]}
    proposed = office.call("per_admin", "PUT", "/v1/calendars/2024", body=days)
    assert (proposed.status_code, proposed.headers["Location"]) == (
        202,
        f"/v1/proposals/{proposed.json()['proposal']}",
    )
    (found,) = office.get("per_a", "/v1/proposals").json()["items"]
    assert (found["kind"], found["fact"]["year"]) == ("calendar", 2024)


def test_a_year_is_stated_as_the_library_knows_it(office: Office) -> None:
    seeded = office.post("per_admin", "/v1/calendars/2024/seed", None)
    assert (seeded.status_code, seeded.json()["about"]) == (201, "2024")
    told = office.get("per_a", "/v1/calendars/2024").json()
    assert "2024-10-01" in told["holidays"]
    assert told["source"].startswith("chinesecalendar ")
    unknown = office.post("per_admin", "/v1/calendars/2199/seed", None)
    assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_request")
    assert office.post("per_east", "/v1/calendars/2024/seed", None).status_code == 403
