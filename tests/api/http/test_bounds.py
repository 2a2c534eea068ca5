"""A token that is bound to territories writes there only."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.api.http.office import CRM, EAST, WEST, Office, make_token
from tests.api.http.test_preconditions import heads_of
from tests.api.http.test_transfers import asked, owned


@pytest.fixture
def bound(office: Office) -> Office:
    """An office with tokens of an administrator and of an integration, for the west alone."""
    expires = datetime.now(UTC) + timedelta(hours=1)
    for name, kind, principal, roles in (
        ("bound", "person", "per_admin", ("admin",)),
        ("crm_west", "integration", CRM, ("integration",)),
    ):
        office.tokens[name] = make_token(
            office.services,
            kind,  # type: ignore[arg-type]
            principal,
            roles,
            expires,
            territories=[WEST],
        )
    return office


def test_what_lies_elsewhere_or_nowhere_is_not_written_to(bound: Office) -> None:
    """The bound held for what was read, and for nothing that was written."""
    east, nowhere = owned(bound), bound.customer("无区")
    transfer = asked(bound, east)
    before = heads_of(bound, east)
    path = f"/v1/customers/{east}"
    for where, body in (
        (f"{path}/release", {}),
        (f"{path}/follow-ups", {"note": "谈"}),
        (f"{path}/holds", {"until": "2099-01-01"}),
        ("/v1/claims", {"customer": east}),
        ("/v1/claims", {"customer": nowhere}),
        ("/v1/claims", {"customer": "cus_none"}),
        (f"/v1/approvals/{transfer}/approve", {}),
        ("/v1/hand-overs", {"giver": "per_a", "receivers": ["per_w"]}),
        ("/v1/customers", {"name": "蓝海"}),
        ("/v1/customers", {"name": "蓝海", "territory": EAST}),
    ):
        answer = bound.post("bound", where, body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), where
    answers = {"answers": [{"approval": transfer, "answer": "approve"}]}
    (many,) = bound.post("bound", "/v1/approvals/answers", answers).json()["items"]
    assert (many["status"], many["problem"]["status"]) == ("not_recorded", 403)
    assert heads_of(bound, east) == before


def test_what_lies_there_is(bound: Office) -> None:
    as_rep = {"On-Behalf-Of": "per_w"}
    made = bound.post(
        "crm_west", "/v1/customers", {"name": "蜀", "territory": WEST}, headers=as_rep
    )
    assert made.status_code == 201, made.text
    west, east = made.json()["customer"], bound.customer("华星", territory=EAST)
    lines = b"".join(json.dumps({"customer": each}).encode() + b"\n" for each in (west, east))
    batch = bound.call(
        "crm_west",
        "POST",
        "/v1/claims/batch",
        content=lines,
        headers={"Content-Type": "application/x-ndjson", "Prefer": "wait=20", **as_rep},
    )
    one, other = (json.loads(line) for line in batch.text.splitlines())
    assert (one["status"], one["owner"]) == ("granted", "per_w")
    assert other["problem"]["status"] == 403
    path = f"/v1/customers/{west}"
    moved = bound.call("bound", "PATCH", path, body={"territory": EAST})
    assert moved.status_code == 403
    named = bound.call("bound", "PATCH", path, body={"name": "蜀中"}, headers={"Prefer": "wait=20"})
    assert named.status_code == 201
