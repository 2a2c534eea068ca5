"""Jobs and what-ifs over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.jobs import table
from tests.api.http.office import CRM, EAST, Office, make_token
from tests.support.processes import wait_until

SINCE = "2020-01-01T00:00:00+08:00"


def ask(office: Office, who: str = "per_admin", **policy: Any) -> dict[str, Any]:
    answer = office.post(who, "/v1/what-if", {"policy": policy, "since": SINCE})
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


def ended(office: Office, job: str, who: str = "per_admin") -> dict[str, Any]:
    path = f"/v1/jobs/{job}"
    wait_until(lambda: office.get(who, path).json()["state"] in table.OVER)
    told: dict[str, Any] = office.get(who, path).json()
    return told


def test_a_what_if_tells_what_would_be_different(office: Office) -> None:
    customer = office.customer("华星", territory=EAST)
    claim = office.post("per_a", "/v1/claims", {"customer": customer})
    told = ended(office, ask(office, "per_auditor", holding_limit=0)["job"], "per_auditor")
    assert told["state"] == "done", told
    assert told["parameters"]["policy"]["holding_limit"] == 0
    assert told["parameters"]["since"] == "2019-12-31T16:00:00.000000Z"
    result = told["result"]
    assert result["decisions"] == {"total": 1, "customers": {customer: 1}}
    assert result["owners"] == [{"customer": customer, "owner": "per_a", "would_be": None}]
    (change,) = result["changes"]
    assert (change["would_be"], change["total"]) == ("ClaimRefused: holding_limit", 1)
    assert result["left_out"] == {}
    assert told["progress"]["done"] == told["progress"]["total"] == result["upto"]
    # Nothing was written.
    assert result["upto"] == int(claim.headers["Ledger-Position"])


def test_a_long_list_is_cut_and_counted(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.what_ifs.LISTED_MAX", 1)
    for name in ("华星", "蓝海", "远山"):
        customer = office.customer(name, territory=EAST)
        office.post("per_a", "/v1/claims", {"customer": customer})
    result = ended(office, ask(office, holding_limit=0)["job"])["result"]
    assert result["decisions"]["total"] == 3
    assert [len(result[each]) for each in ("owners", "changes")] == [1, 1]
    assert len(result["decisions"]["customers"]) == len(result["changes"][0]["customers"]) == 1
    assert set(result["left_out"].values()) == {2}
    assert {"decisions", "owners"} < set(result["left_out"])


def test_the_same_key_again_gets_the_first_job(office: Office) -> None:
    key = {"Idempotency-Key": "if-1"}
    body = {"policy": {"holding_limit": 1}, "since": SINCE}
    first = office.post("per_admin", "/v1/what-if", body, headers=key)
    again = office.post("per_admin", "/v1/what-if", body, headers=key)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.json()["job"], again.json()["repeated"]) == (first.json()["job"], True)
    other = office.post(
        "per_admin", "/v1/what-if", {**body, "policy": {"holding_limit": 2}}, headers=key
    )
    assert (other.status_code, other.json()["code"]) == (422, "request_reused")


@pytest.mark.parametrize(
    "body",
    [
        {"policy": {}, "since": "2026-03-01T00:00:00"},
        {"policy": {}, "since": "0001-01-01T00:00:00+14:00"},
        {"policy": {}},
        {"policy": {"holding_limit": 2**70}, "since": SINCE},
        {"policy": {"colour": "red"}, "since": SINCE},
        {
            "policy": {
                "territory_rules": [
                    {
                        "territory": EAST,
                        "conditions": [{"attribute": "a", "operator": "is", "value": "\0"}],
                    }
                ]
            },
            "since": SINCE,
        },
        {
            "policy": {
                "territory_rules": [
                    {
                        "territory": "ter_x",
                        "conditions": [{"attribute": "a", "operator": "is", "value": "b"}],
                    }
                ]
            },
            "since": SINCE,
        },
    ],
)
def test_a_what_if_that_is_none_is_refused(office: Office, body: dict[str, Any]) -> None:
    answer = office.post("per_admin", "/v1/what-if", body)
    assert answer.status_code == 422, answer.text
    assert office.get("per_admin", "/v1/jobs").json()["items"] == []


def test_only_who_may_asks_what_if(office: Office) -> None:
    body = {"policy": {}, "since": SINCE}
    for who in ("per_a", "per_east", CRM):
        answer = office.post(who, "/v1/what-if", body)
        assert (answer.status_code, answer.json()["permission"]) == (403, "what_if:run")
    expires = datetime.now(UTC) + timedelta(hours=1)
    office.tokens["bound"] = make_token(
        office.services, "person", "per_admin", ["admin"], expires, territories=[EAST]
    )
    assert office.post("bound", "/v1/what-if", body).status_code == 403


def test_one_sees_ones_own_jobs_and_administrators_everybodys(office: Office) -> None:
    mine, admins = ask(office, "per_auditor")["job"], ask(office)["job"]
    both = office.get("per_admin", "/v1/jobs?limit=1").json()
    rest = office.get("per_admin", f"/v1/jobs?limit=1&cursor={both['next']}").json()
    assert [each["job"] for each in (*both["items"], *rest["items"])] == [admins, mine]
    own = office.get("per_auditor", "/v1/jobs").json()["items"]
    assert [each["job"] for each in own] == [mine]
    assert office.get("per_a", "/v1/jobs").json()["items"] == []
    for method, path in (("GET", ""), ("POST", "/cancel")):
        answer = office.call("per_auditor", method, f"/v1/jobs/{admins}{path}")
        assert answer.status_code == 404
    assert office.get("per_admin", "/v1/jobs?kind=import").json()["items"] == []
    ended(office, mine)
    done = office.get("per_auditor", "/v1/jobs?state=done").json()["items"]
    assert [each["job"] for each in done] == [mine]
    assert office.get("per_admin", "/v1/jobs/job_x").status_code == 404
    assert office.get("per_admin", "/v1/jobs?cursor=x").status_code == 422


@pytest.fixture
def held(office: Office, monkeypatch: pytest.MonkeyPatch) -> Office:
    """The office, where nobody takes jobs."""
    monkeypatch.setattr(table, "take", lambda *_: None)
    return office


def test_more_jobs_than_one_may_have_are_refused_for_a_while(held: Office) -> None:
    for _ in range(table.OPEN_OF_CALLER_MAX):
        last = ask(held)["job"]
    body = {"policy": {}, "since": SINCE}
    refused = held.post("per_admin", "/v1/what-if", body)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
    assert int(refused.headers["Retry-After"]) > 0
    assert ask(held, "per_auditor")["state"] == "waiting"
    cancelled = held.call("per_admin", "POST", f"/v1/jobs/{last}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert ask(held)["state"] == "waiting"
    again = held.call("per_admin", "POST", f"/v1/jobs/{last}/cancel")
    assert (again.status_code, again.json()["state"]) == (202, "cancelled")


def test_a_full_queue_is_busy(held: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "OPEN_MAX", 1)
    ask(held)
    busy = held.post("per_auditor", "/v1/what-if", {"policy": {}, "since": SINCE})
    assert (busy.status_code, busy.json()["code"]) == (503, "busy")
    assert int(busy.headers["Retry-After"]) > 0
