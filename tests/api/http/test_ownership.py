"""Whose every customer is, or was, for the whole organisation."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from api.http.routes import ownership
from tests.api.http.office import EAST, WEST, Office


def lines(office: Office, who: str = "per_auditor", **asked: Any) -> list[dict[str, Any]]:
    answer = office.get(who, "/v1/ownership", params=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    return [json.loads(each) for each in answer.text.splitlines()]


@pytest.fixture
def three(office: Office, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three customers, of which the second is owned, in pages of two."""
    monkeypatch.setattr(ownership, "PAGE", 2)
    names = [office.customer(f"客户{number}", territory=EAST) for number in range(2)]
    names.append(office.customer("西", territory=WEST))
    office.post("per_a", "/v1/claims", {"customer": names[1]})
    return names


def reflected(office: Office) -> int:
    with office.services.ledger.pool.connection() as connection:
        row = connection.execute("SELECT max(position) FROM ledger.events").fetchone()
    assert row is not None
    return int(row[0])


def test_every_customer_is_there_once_with_whose_it_is(office: Office, three: list[str]) -> None:
    found = lines(office, min_position=reflected(office))
    assert [each["customer"] for each in found] == sorted(three)
    owners = {each["customer"]: (each["state"], each["owner"]) for each in found}
    assert owners == {
        three[0]: ("free", None),
        three[1]: ("owned", "per_a"),
        three[2]: ("free", None),
    }


def test_as_of_a_moment_before_nobody_was_known(office: Office, three: list[str]) -> None:
    lines(office, min_position=reflected(office))
    before = datetime(2020, 1, 1, tzinfo=UTC).isoformat()
    assert {each["state"] for each in lines(office, as_of=before)} == {"unknown"}
    assert lines(office, known_at=before) == []


def test_only_some_territories(office: Office, three: list[str]) -> None:
    position = reflected(office)
    found = lines(office, min_position=position, territory=WEST)
    assert [each["customer"] for each in found] == [three[2]]


def test_as_a_table_for_a_spreadsheet(office: Office, three: list[str]) -> None:
    position = reflected(office)
    answer = office.get(
        "per_east",
        f"/v1/ownership?min_position={position}",
        headers={"Accept": "text/csv"},
    )
    assert answer.headers["Content-Disposition"] == 'attachment; filename="ownership.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(each["customer"], each["owner"]) for each in rows if each["owner"]] == [
        (three[1], "per_a")
    ]


def test_moments_are_written_the_same_way_in_every_form(office: Office, three: list[str]) -> None:
    """In the table they ended in +00:00, and in the details of a history too."""
    position = reflected(office)
    table = office.get("per_east", f"/v1/ownership?format=csv&min_position={position}")
    cells = [each["since"] for each in csv.DictReader(io.StringIO(table.text))]
    assert cells
    assert all(each.endswith("Z") for each in cells), cells
    history = office.get("per_east", f"/v1/customers/{three[1]}/history").json()["items"]
    (granted,) = [each for each in history if each["event"] == "OwnershipGranted"]
    assert granted["details"]["protected_until"].endswith("Z")


def test_what_never_was_has_no_past_either(office: Office) -> None:
    """At present it was not found, and at a moment in the past it was unknown."""
    path = "/v1/customers/cus_none/ownership"
    for query in ("", "?as_of=2026-01-01T00:00:00Z", "?known_at=2026-01-01T00:00:00Z"):
        assert office.get("per_a", path + query).status_code == 404


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_no_cell_is_a_formula(cell: str) -> None:
    assert ownership._safe(cell) == f"'{cell}"


def test_who_may_not_and_what_is_not_offered(office: Office) -> None:
    assert office.get("per_a", "/v1/ownership").json()["permission"] == "ownership:export"
    refused = office.get("per_auditor", "/v1/ownership", headers={"Accept": "application/xml"})
    assert refused.json()["code"] == "malformed_header"
    naive = office.get("per_auditor", "/v1/ownership?as_of=2026-01-01T00:00:00")
    assert naive.status_code == 422
