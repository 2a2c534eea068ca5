"""What falls due and goes back to the pool, over HTTP."""

from __future__ import annotations

from datetime import timedelta

import pytest

from api.http.cursors import make_cursor
from ledger import commands
from ledger import organisation_commands as facts
from ledger.envelope import Origin
from ledger.policy import Policy
from ledger.recording import Asked, new_request_id
from ledger.recycling_rules import RecycleRule, Recycling
from tests.api.http.office import CRM, Office, read
from tests.api.http.test_orphans import today
from tests.api.http.test_transfers import asked, owned


def recycling(office: Office, days: str = "calendar") -> None:
    rule = RecycleRule(follow_up_days=31)
    policy = Policy(recycling=Recycling(rules=(rule,), days=days))  # type: ignore[arg-type]
    office.state(facts.AdoptPolicy(policy=policy))


def test_what_falls_due_says_what_then_happens_and_whom_it_awaits(office: Office) -> None:
    customers = [owned(office, name=name) for name in ("华星", "蓝海", "恒信")]
    transfers = [asked(office, customer) for customer in customers]
    rows = read(office, "per_w", "/v1/due")["items"]
    assert [each["subject"] for each in rows] == transfers
    assert (rows[0]["then"], rows[0]["words"]) == ("step_reminder", "reminded")
    assert (rows[0]["owner"], rows[0]["awaits"], rows[0]["overdue"]) == (
        "per_a",
        ["per_east"],
        False,
    )
    assert read(office, "per_w", "/v1/due?days=1")["items"] == []
    assert len(read(office, "per_w", "/v1/due?owner=per_a")["items"]) == 3
    assert read(office, "per_w", "/v1/due?owner=per_b")["items"] == []
    first = read(office, "per_w", "/v1/due?limit=2")
    rest = read(office, "per_w", f"/v1/due?limit=2&cursor={first['next']}")
    assert first["items"] + rest["items"] == rows


def test_the_forecast_names_and_counts_what_goes_back_to_the_pool(office: Office) -> None:
    recycling(office)
    customers = [owned(office, name=name) for name in ("华星", "蓝海")]
    customers.append(owned(office, "per_b", "恒信"))
    assert read(office, "per_w", "/v1/recycling/forecast")["items"] == []
    path = "/v1/recycling/forecast?days=32"
    found = read(office, "per_w", path)
    assert [each["customer"] for each in found["items"]] == customers
    day = str(today(office) + timedelta(days=31))
    assert found["items"][0]["because"] == "no_follow_up"
    assert (found["items"][0]["day"], found["items"][0]["then"]) == (day, "recycle_warning")
    assert found["provisional_years"] == []
    first = read(office, "per_w", f"{path}&limit=2")
    rest = read(office, "per_w", f"{path}&limit=2&cursor={first['next']}")
    assert first["items"] + rest["items"] == found["items"]
    assert len(read(office, "per_w", f"{path}&owner=per_a")["items"]) == 2
    counted = "/v1/recycling/forecast/counts?days=32"
    counts = [
        {"day": day, "owner": "per_a", "customers": 2},
        {"day": day, "owner": "per_b", "customers": 1},
    ]
    assert read(office, "per_w", counted)["items"] == counts
    assert read(office, "per_w", f"{counted}&owner=per_b")["items"] == counts[1:]
    one = read(office, "per_w", f"{counted}&limit=1")
    two = read(office, "per_w", f"{counted}&limit=1&cursor={one['next']}")
    assert (one["items"] + two["items"], two["next"]) == (counts, None)


def test_a_forecast_of_working_days_says_of_which_years_no_holidays_are_stated(
    office: Office,
) -> None:
    recycling(office, "working")
    owned(office)
    years = read(office, "per_w", "/v1/recycling/forecast?days=90")["provisional_years"]
    assert today(office).year in years


def test_a_head_holds_a_customer_back(office: Office) -> None:
    recycling(office)
    customer = owned(office)
    path = f"/v1/customers/{customer}/holds"
    until = str(today(office) + timedelta(days=40))
    denied = office.post("per_a", path, {"until": until})
    assert (denied.status_code, denied.json()["permission"]) == (403, "holds:write")
    assert office.post("per_west", path, {"until": until}).json()["status"] == "refused"
    for wrong in ("0001-01-01", "9999-12-31", "soon", 1e300):
        assert office.post("per_east", path, {"until": wrong}).status_code == 422
    held = office.post("per_east", path, {"until": until, "reason": "大单"})
    assert (held.status_code, held.json()["status"]) == (201, "done")
    assert read(office, "per_w", "/v1/recycling/forecast?days=32")["items"] == []


def test_whom_to_follow_up_with_the_words_within_ones_scope(office: Office) -> None:
    customers = [owned(office, name=name) for name in ("华星", "蓝海")]
    for number, customer in enumerate(customers):
        command = commands.LogFollowUp(
            customer=customer,
            person="per_a",
            note="价格谈妥",
            agreed="寄样品",
            next_on=today(office) + timedelta(days=number),
        )
        origin = Origin("test", new_request_id(), "per_a")
        office.services.ledger.recording.record(Asked(command, origin))
    (now,) = read(office, "per_a", "/v1/due/follow-ups")["items"]
    assert (now["customer"], now["note"], now["agreed"], now["overdue"]) == (
        customers[0],
        "价格谈妥",
        "寄样品",
        False,
    )
    path = "/v1/due/follow-ups?days=3&person=per_a"
    for who in ("per_a", "per_east", "per_admin"):
        assert [each["masked"] for each in read(office, who, path)["items"]] == [False, False]
    for who in ("per_b", "per_w", "per_west", "per_auditor", CRM):
        found = read(office, who, path)["items"]
        assert [(each["note"], each["agreed"], each["masked"]) for each in found] == [
            (None, None, True)
        ] * 2
    assert read(office, "per_a", "/v1/due/follow-ups?days=3&person=per_b")["items"] == []
    first = read(office, "per_b", f"{path}&limit=1")
    rest = read(office, "per_b", f"{path}&limit=1&cursor={first['next']}")
    shown = [each["customer"] for each in first["items"] + rest["items"]]
    assert (shown, rest["next"]) == (customers, None)
    with office.services.ledger.pool.connection() as connection:
        noted = connection.execute(
            "SELECT DISTINCT person, fields FROM api.personal_access ORDER BY person"
        ).fetchall()
    assert noted == [(who, ["agreed", "note"]) for who in ("per_a", "per_admin", "per_east")]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/due?days=99999",
        "/v1/due?cursor=WyJkdWUiLCJub3ciLCJjdXNfMSJd",
        "/v1/due?cursor=WyJkdWUiLCIyMDI2LTAxLTAxIiwiY3VzXzEiXQ",
        "/v1/due/follow-ups?cursor=WyJmb2xsb3dfdXBzX2R1ZSIsInNvb24iLDFd",
        "/v1/recycling/forecast?days=-1",
        "/v1/recycling/forecast/counts?cursor=WyJjb3VudHMiLCJzb29uIiwiIl0",
    ],
)
def test_what_cannot_be_is_refused(office: Office, path: str) -> None:
    assert office.get("per_a", path).status_code == 422


def test_a_cursor_may_lie_anywhere_in_time(office: Office) -> None:
    for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"):
        cursor = make_cursor("due", moment, "cus_1")
        assert office.get("per_a", f"/v1/due?cursor={cursor}").status_code == 200


def test_what_is_kept_from_the_pool_says_by_what(office: Office) -> None:
    recycling(office)
    first, second = (owned(office, name=name) for name in ("华星", "蓝海"))
    transfer = asked(office, first)
    until = today(office) + timedelta(days=10)
    office.post("per_east", f"/v1/customers/{second}/holds", {"until": str(until)})
    one, other = read(office, "per_w", "/v1/recycling/kept")["items"]
    assert (one["customer"], one["owner"], one["kept"][0]["by"]) == (
        first,
        "per_a",
        "approval_open",
    )
    assert one["kept"][0]["subject"] == transfer
    assert [each["by"] for each in other["kept"]] == ["on_hold"]
    assert other["kept"][0]["until"] is not None
    assert read(office, "per_w", "/v1/recycling/kept?owner=per_b")["items"] == []
    page = read(office, "per_w", "/v1/recycling/kept?limit=1")
    rest = read(office, "per_w", f"/v1/recycling/kept?cursor={page['next']}")
    assert page["items"] + rest["items"] == [one, other]
