"""Tokens over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import organisation_commands as facts
from tests.api.http.office import CRM, EAST, WEST, Office, make_token


def test_a_token_is_made_shown_once_used_and_revoked(office: Office) -> None:
    answer = office.post("per_admin", "/v1/tokens", {"person": "per_a", "days": 7})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    made = answer.json()
    assert (made["kind"], made["principal"], made["roles"]) == ("person", "per_a", ["rep"])
    assert made["made_by"] == "person:per_admin"
    assert made["secret"].startswith(f"gs_{made['token']}_")
    left = datetime.fromisoformat(made["expires"]) - datetime.now(UTC)
    assert timedelta(days=6) < left <= timedelta(days=7)
    office.tokens["new"] = made["secret"]
    assert office.get("new", "/v1/people/per_a").status_code == 200
    path = f"/v1/tokens/{made['token']}"
    assert answer.headers["Location"] == path
    told = office.get("per_admin", path)
    assert "secret" not in told.json()
    assert made["secret"] not in told.text
    for _ in range(2):
        revoked = office.call("per_admin", "DELETE", path)
        assert (revoked.status_code, revoked.content) == (204, b"")
    assert office.get("per_admin", path).json()["revoked"] is not None


def test_the_same_key_again_gets_the_token_without_its_secret(office: Office) -> None:
    key = {"Idempotency-Key": "token-1"}
    first = office.post("per_admin", "/v1/tokens", {"integration": "erp"}, headers=key)
    again = office.post("per_admin", "/v1/tokens", {"integration": "erp"}, headers=key)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json() | {"secret": None, "repeated": True}
    other = office.post("per_admin", "/v1/tokens", {"integration": "mrp"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "request_reused")
    assert len(office.get("per_admin", "/v1/tokens?principal=erp").json()["items"]) == 1


def test_nobody_makes_a_token_that_has_more_than_its_person(office: Office) -> None:
    for roles in (["admin"], ["rep", "manager"]):
        more = office.post("per_admin", "/v1/tokens", {"person": "per_a", "roles": roles})
        assert (more.status_code, more.json()["code"]) == (403, "forbidden")
    # Whoever manages a territory is a manager, and may have less.
    office.state(facts.DefineTerritory(territory=WEST, name="华西", head="per_w"))
    for roles in (["manager"], ["rep"]):
        answer = office.post("per_admin", "/v1/tokens", {"person": "per_w", "roles": roles})
        assert answer.status_code == 201, answer.text
    office.state(facts.MarkLeft(person="per_b", left_on=datetime(2026, 1, 1, tzinfo=UTC).date()))
    for person in ("per_b", "per_x"):
        gone = office.post("per_admin", "/v1/tokens", {"person": person})
        assert (gone.status_code, gone.json()["code"]) == (422, "unknown_id")


def test_an_integration_is_granted_what_may_be_granted(office: Office) -> None:
    body = {"integration": "erp", "grants": ["imports:write"], "territories": [EAST]}
    made = office.post("per_admin", "/v1/tokens", body).json()
    assert (made["kind"], made["roles"]) == ("integration", ["integration"])
    assert (made["grants"], made["territories"]) == (["imports:write"], [EAST])
    refused: list[dict[str, Any]] = [
        {"integration": "erp", "grants": ["tokens:write"]},
        {"person": "per_a", "grants": ["imports:write"]},
    ]
    for each in refused:
        answer = office.post("per_admin", "/v1/tokens", each)
        assert (answer.status_code, answer.json()["code"]) == (422, "token")


def test_a_token_for_a_territory_makes_none_for_more(office: Office) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    office.tokens["bound"] = make_token(
        office.services, "person", "per_admin", ["admin"], expires, territories=[EAST]
    )
    narrow = office.post("bound", "/v1/tokens", {"person": "per_a", "territories": [EAST]})
    assert narrow.status_code == 201
    for territories in (None, [WEST], [EAST, WEST]):
        wide = office.post("bound", "/v1/tokens", {"person": "per_a", "territories": territories})
        assert (wide.status_code, wide.json()["code"]) == (403, "forbidden")
    (of_a_rep,) = office.get("per_admin", "/v1/tokens?principal=per_w").json()["items"]
    refused = office.call("bound", "DELETE", f"/v1/tokens/{of_a_rep['token']}")
    assert refused.status_code == 403
    mine = narrow.json()["token"]
    assert office.call("bound", "DELETE", f"/v1/tokens/{mine}").status_code == 204


def test_tokens_are_listed_in_pages(office: Office) -> None:
    listed: list[str] = []
    cursor = ""
    while True:
        page = office.get("per_admin", f"/v1/tokens?limit=3{cursor}").json()
        listed += [each["principal"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert sorted(listed) == sorted(office.tokens)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"person": "per_a", "integration": "erp"},
        {"person": "per_a", "days": 0},
        {"person": "per_a", "days": 10_000},
        {"person": "per_a", "roles": []},
        {"person": "per_a", "roles": ["king"]},
        {"person": "per_a", "territories": []},
        {"person": "per_a", "territories": ["ter_x"]},
        {"person": "\0"},
        {"integration": "an erp"},
        {"integration": "erp", "grants": ["everything"]},
    ],
)
def test_a_token_that_is_none_is_refused(office: Office, body: dict[str, Any]) -> None:
    answer = office.post("per_admin", "/v1/tokens", body)
    assert answer.status_code == 422, answer.text


def test_only_administrators_have_business_with_tokens(office: Office) -> None:
    token = "0" * 32
    for who in ("per_a", "per_east", "per_auditor", CRM):
        for method, path in (
            ("POST", "/v1/tokens"),
            ("GET", "/v1/tokens"),
            ("GET", f"/v1/tokens/{token}"),
            ("DELETE", f"/v1/tokens/{token}"),
        ):
            body = {"person": "per_a"} if method == "POST" else None
            answer = office.call(who, method, path, body=body)
            assert (answer.status_code, answer.json()["permission"]) == (403, "tokens:write")
    for method in ("GET", "DELETE"):
        assert office.call("per_admin", method, f"/v1/tokens/{token}").status_code == 404
        assert office.call("per_admin", method, "/v1/tokens/nothing").status_code == 422
