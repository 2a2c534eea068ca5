"""Claims in batches: a line in, a line out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest

from api.http import claim_batch
from api.http.ndjson import LINE_BYTES_MAX
from api.http.serving import listen, serving
from ledger.errors import BusyError
from ledger.recording import Asked
from tests.api.http.office import CRM, Office

PATH = "/v1/claims/batch"


def lines(given: Iterable[Any]) -> bytes:
    """Return a body; bytes stand for themselves."""
    return b"\n".join(
        each if isinstance(each, bytes) else json.dumps(each).encode() for each in given
    )


def send(office: Office, who: str, given: Iterable[Any], **headers: str) -> httpx.Response:
    """Send a batch, and wait for its decisions; ``headers`` by their names with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    standard = {"Content-Type": "application/x-ndjson", "Prefer": "wait=20"}
    return office.call(who, "POST", PATH, content=lines(given), headers=standard | named)


def answers(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the lines of an answer."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert response.text.endswith("\n")
    return [json.loads(each) for each in response.text.splitlines()]


def codes(response: httpx.Response) -> list[str]:
    """Return what each line of an answer says: a status, or the code of a problem."""
    return [
        each["problem"]["code"] if "problem" in each else each["status"]
        for each in answers(response)
    ]


def test_each_line_is_answered_in_order_as_a_single_claim_would_be(office: Office) -> None:
    first, second = office.customer("华星"), office.customer("蓝海")
    single = office.post("per_b", "/v1/claims", {"customer": second})
    response = send(
        office,
        "per_a",
        [
            {"customer": first, "key": "a"},
            {"customer": second, "note": "老客户"},
            {"customer": first, "claimant": "per_b", "occurred": "2026-03-01T09:30:00+08:00"},
        ],
    )
    said = answers(response)
    assert [(each["line"], each["key"]) for each in said] == [(1, "a"), (2, None), (3, None)]
    assert [each["status"] for each in said] == ["granted", "refused", "refused"]
    assert [each["claimant"] for each in said] == ["per_a", "per_a", "per_b"]
    assert [each["owner"] for each in said] == ["per_a", "per_b", "per_a"]
    assert all(set(each) == {*single.json(), "line", "key"} for each in said)
    assert response.headers["Preference-Applied"] == "wait=20"
    assert response.headers["Ledger-Position"] == str(said[-1]["claim"])
    decided = said[-1]["decided_position"]
    read = office.get("per_a", f"/v1/claims/{said[0]['claim']}?min_position={decided}")
    assert read.json()["status"] == "granted"


def test_without_a_preference_the_claims_are_recorded_and_pending(office: Office) -> None:
    customer = office.customer("华星")
    response = send(office, "per_a", [{"customer": customer}], Prefer="respond-async")
    (said,) = answers(response)
    assert (said["status"], said["customer"], said["repeated"]) == ("pending", customer, False)
    assert "Preference-Applied" not in response.headers


def test_a_bad_line_does_not_stop_the_others(office: Office) -> None:
    customer = office.customer("华星")
    bad: list[Any] = [
        b"{",
        b"\xff",
        b"[]",
        b'{"customer": "\\ud800"}',
        {"customer": "cus_\0"},
        {"customer": customer, "note": "\0"},
        {"customer": customer, "colour": "red"},
        {"customer": customer, "key": "two words"},
        {"customer": customer, "occurred": "2026-03-01T09:30:00"},
        {"customer": customer, "occurred": 10**30},
        {"customer": customer, "occurred": "2999-01-01T00:00:00Z"},
        {"customer": customer, "claimant": 7},
        {},
        b'{"customer": "' + b"x" * LINE_BYTES_MAX + b'"}',
    ]
    response = send(office, "per_a", [*bad, {"customer": "cus_none"}, {"customer": customer}])
    assert codes(response) == [*["invalid_request"] * len(bad), "unknown_id", "granted"]
    problem = answers(response)[6]["problem"]
    assert problem["status"] == 422
    assert problem["errors"][0]["pointer"] == "colour"


def test_blank_lines_and_the_ends_of_other_systems_do_no_harm(office: Office) -> None:
    customer = office.customer("华星")
    said = answers(
        send(office, "per_a", [b"", b" \r", lines([{"customer": customer}]) + b"\r", b""])
    )
    assert [(each["line"], each["status"]) for each in said] == [(3, "granted")]


def test_a_batch_that_was_cut_off_is_sent_again_under_its_key(office: Office) -> None:
    """Those that were recorded get their first answers, and the rest is recorded."""
    customers = [office.customer(f"客户{number}") for number in range(3)]
    given = [{"customer": each, "key": f"row-{each}"} for each in customers]
    first = answers(send(office, "per_a", given[:2], Idempotency_Key="import-7"))
    again = answers(send(office, "per_a", given[::-1], Idempotency_Key="import-7"))
    assert [each["repeated"] for each in again] == [False, True, True]
    assert [each["claim"] for each in again[:0:-1]] == [each["claim"] for each in first]
    assert [each["status"] for each in again] == ["granted"] * 3
    # The number of a line stands for its key where it has none.
    by_number = [{"customer": customers[0]}, {"customer": customers[1]}]
    send(office, "per_b", by_number, Idempotency_Key="import-8")
    swapped = send(office, "per_b", by_number[::-1], Idempotency_Key="import-8")
    assert codes(swapped) == ["request_reused", "request_reused"]
    # And a single claim has the same ids.
    key = {"Idempotency-Key": f"import-7/row-{customers[0]}"}
    single = office.post("per_a", "/v1/claims", {"customer": customers[0]}, headers=key)
    assert (single.json()["repeated"], single.json()["claim"]) == (True, first[0]["claim"])


def test_more_lines_than_a_batch_may_have_are_left(office: Office) -> None:
    customer = office.customer("华星")
    blank = [b""] * (claim_batch.LINES_MAX - 1)
    response = send(office, "per_a", [{"customer": customer}, *blank, {"customer": customer}, b""])
    assert codes(response) == ["granted", "batch_too_large"]
    assert answers(response)[1]["line"] == claim_batch.LINES_MAX + 1


def test_a_batch_may_be_larger_than_other_bodies_and_is_bounded_itself(office: Office) -> None:
    customer = office.customer("华星")
    line = lines([{"customer": customer}])
    large = [line + b" " * 60_000] * 20
    assert codes(send(office, "per_a", large)) == ["granted", *["refused"] * 19]
    too_large = send(office, "per_a", [b" " * (16 * 1_048_576 + 1)])
    assert too_large.status_code == 413


def test_a_batch_that_is_none_is_refused_as_a_whole(office: Office) -> None:
    line = {"customer": office.customer("华星")}
    for given in ([], [b"", b"  "]):
        empty = send(office, "per_a", given)
        assert (empty.status_code, empty.json()["code"]) == (422, "invalid_request")
    other = send(office, "per_a", [line], Content_Type="application/json")
    assert (other.status_code, other.json()["code"]) == (415, "unsupported_media_type")
    assert send(office, "per_auditor", [line]).json()["permission"] == "claims:write"
    nobody = send(office, CRM, [line])
    assert (nobody.status_code, nobody.json()["permission"]) == (403, "On-Behalf-Of")
    for_somebody = send(office, CRM, [line], On_Behalf_Of="per_b")
    assert answers(for_somebody)[0]["owner"] == "per_b"


def test_lines_are_recorded_in_slices(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    customer = office.customer("华星")
    monkeypatch.setattr(claim_batch, "SLICE_MAX", 2)
    sizes: list[int] = []
    record_many = office.services.intake.record_many

    async def recording(asked: list[Asked]) -> Any:
        sizes.append(len(asked))
        return await record_many(asked)

    monkeypatch.setattr(office.services.intake, "record_many", recording)
    claims = [{"customer": customer}] * 3
    assert codes(send(office, "per_a", [*claims, b"{", *claims[:1]])) == [
        "granted",
        "refused",
        "refused",
        "invalid_request",
        "refused",
    ]
    assert sizes == [2, 1, 1]


def test_a_slice_that_cannot_be_recorded_is_told_line_by_line(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the very first the whole batch is told, for nothing was recorded."""
    customer = office.customer("华星")
    monkeypatch.setattr(claim_batch, "SLICE_MAX", 1)
    record_many = office.services.intake.record_many
    tries = iter([False, True, False, True])

    async def busy(asked: list[Asked]) -> Any:
        if next(tries):
            raise BusyError(1)
        return await record_many(asked)

    monkeypatch.setattr(office.services.intake, "record_many", busy)
    claims = [{"customer": customer}] * 3
    assert codes(send(office, "per_a", claims)) == ["granted", "busy", "refused"]
    refused = send(office, "per_a", claims)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")


def test_a_client_that_goes_away_leaves_what_was_recorded(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers = [office.customer(f"客户{number}") for number in range(3)]
    monkeypatch.setattr(claim_batch, "SLICE_MAX", 2)
    body = lines({"customer": each} for each in customers)
    incoming = [
        {"type": "http.request", "body": body, "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def take(message: Any) -> None:
        sent.append(message)

    headers = {
        "authorization": f"Bearer {office.tokens['per_a']}",
        "content-type": "application/x-ndjson",
        "idempotency-key": "cut-off",
    }
    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(office.app(scope, receive, take))
    assert sent[0]["status"] == 400
    given = [{"customer": each} for each in customers]
    again = answers(send(office, "per_a", given, Idempotency_Key="cut-off"))
    assert [each["repeated"] for each in again] == [True, True, False]
    assert [each["status"] for each in again] == ["granted"] * 3


def test_a_batch_of_several_slices_comes_through_a_real_server(office: Office) -> None:
    """The answer begins when all has come: a client may send everything before it reads."""
    customer = office.customer("华星")
    many = 2 * claim_batch.SLICE_MAX + 500

    def body() -> Iterator[bytes]:
        for number in range(many):
            yield lines([{"customer": customer, "key": f"row-{number}"}]) + b"\n"

    headers = {
        "Authorization": f"Bearer {office.tokens['per_a']}",
        "Content-Type": "application/x-ndjson",
        "Prefer": "wait=30",
    }
    with serving(office.app, listen("127.0.0.1", 0)) as address:
        response = httpx.post(f"{address}{PATH}", content=body(), headers=headers, timeout=60)
    said = answers(response)
    assert [each["key"] for each in said] == [f"row-{number}" for number in range(many)]
    assert [each["status"] for each in said] == ["granted", *["refused"] * (many - 1)]
    claims = [each["claim"] for each in said]
    assert claims == sorted(claims)
