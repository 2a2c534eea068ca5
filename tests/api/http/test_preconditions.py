"""If-Match and If-None-Match: what a change is based on, and what one has already."""

from __future__ import annotations

from typing import Any

from tests.api.http.office import EAST, Office, read
from tests.api.http.test_conflicts import disputed
from tests.api.http.test_transfers import owned


def tag_of(office: Office, path: str, who: str = "per_east") -> str:
    """Return the ETag of a resource, once all that is recorded now is shown."""
    read(office, who, path)
    tag: str = office.get(who, path).headers["ETag"]
    return tag


def write(
    office: Office, who: str, path: str, body: Any, tag: str, method: str = "POST", **headers: str
) -> tuple[int, Any]:
    given = {"If-Match": tag, "Prefer": "wait=20", **headers}
    answer = office.call(who, method, path, body=body, headers=given)
    return answer.status_code, answer.json()


def heads_of(office: Office, customer: str) -> int:
    """Return how many requests there are about a customer."""
    with office.services.ledger.pool.connection() as connection:
        row = connection.execute(
            "SELECT count(*) FROM ledger.events WHERE stream = %s", (f"customer-{customer}",)
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_all_that_belongs_to_a_customer_has_the_version_of_its_stream(office: Office) -> None:
    customer, conflict = disputed(office)
    path = f"/v1/customers/{customer}"
    deal = office.post("per_a", f"{path}/deals", {"outcome": "won"}).json()["made"]
    note = office.post("per_a", f"{path}/follow-ups", {"note": "谈"}).json()["made"]
    works = office.post("per_a", f"{path}/collaborations", {"person": "per_b"}).json()["made"]
    body = {"customer": customer, "receiver": "per_w"}
    transfer = office.post("per_a", "/v1/transfers", body).json()["made"]
    (claim,) = read(office, "per_a", f"{path}/claims")["items"]
    tags = {
        tag_of(office, each)
        for each in (
            path,
            f"{path}/ownership",
            f"{path}/deals/{deal}",
            f"{path}/follow-ups/{note}",
            f"/v1/collaborations/{works}",
            f"/v1/claims/{claim['claim']}",
            f"/v1/approvals/{transfer}",
            f"/v1/transfers/{transfer}",
            f"/v1/conflicts/{conflict}",
        )
    }
    assert tags == {f'"{heads_of(office, customer)}"'}
    past = office.get("per_a", f"{path}/ownership?as_of=2026-01-01T00:00:00Z")
    assert "ETag" not in past.headers


def test_what_changes_a_customer_is_recorded_only_on_what_it_is_based_on(office: Office) -> None:
    """Each write with a version that has moved on is refused, and has changed nothing."""
    customer, conflict = disputed(office)
    path = f"/v1/customers/{customer}"
    deal = office.post("per_a", f"{path}/deals", {"outcome": "won"}).json()["made"]
    note = office.post("per_a", f"{path}/follow-ups", {"note": "谈"}).json()["made"]
    works = office.post("per_a", f"{path}/collaborations", {"person": "per_b"}).json()["made"]
    stale = tag_of(office, path)
    body = {"customer": customer, "receiver": "per_w"}
    transfer = office.post("per_a", "/v1/transfers", body).json()["made"]
    before = heads_of(office, customer)
    for who, method, where, said in (
        ("per_a", "PATCH", path, {"name": "华星二"}),
        ("per_a", "POST", f"{path}/release", {}),
        ("per_east", "POST", f"{path}/assign", {"assignee": "per_b"}),
        ("per_east", "POST", f"{path}/holds", {"until": "2099-01-01"}),
        ("per_east", "POST", f"{path}/stand-ins", {"person": "per_b", "until": "2099-01-01"}),
        ("per_b", "POST", "/v1/claims", {"customer": customer}),
        ("per_a", "POST", "/v1/transfers", {"customer": customer, "receiver": "per_b"}),
        ("per_a", "POST", f"{path}/deals", {"outcome": "lost"}),
        ("per_a", "PATCH", f"{path}/deals/{deal}", {"outcome": "lost"}),
        ("per_a", "POST", f"{path}/deals/{deal}/void", {}),
        ("per_a", "POST", f"{path}/follow-ups", {"note": "谈"}),
        ("per_a", "PATCH", f"{path}/follow-ups/{note}", {"note": "谈了"}),
        ("per_a", "POST", f"{path}/follow-ups/{note}/void", {}),
        ("per_a", "POST", f"{path}/collaborations", {"person": "per_w"}),
        ("per_a", "POST", f"{path}/collaborations/{works}/end", {}),
        ("per_east", "POST", f"/v1/approvals/{transfer}/approve", {}),
        ("per_east", "POST", f"/v1/approvals/{transfer}/refuse", {}),
        ("per_a", "POST", f"/v1/approvals/{transfer}/withdraw", {}),
        ("per_east", "POST", f"/v1/conflicts/{conflict}/rulings", {"ruling": "keep"}),
    ):
        status, problem = write(office, who, where, said, stale, method)
        assert (status, problem["code"]) == (412, "precondition_failed"), (method, where)
    assert heads_of(office, customer) == before
    tag = tag_of(office, f"/v1/conflicts/{conflict}")
    key = {"Idempotency-Key": "rule-1"}
    rulings = f"/v1/conflicts/{conflict}/rulings"
    status, ruled = write(office, "per_east", rulings, {"ruling": "keep"}, tag, **key)
    assert status == 201
    # What was recorded is answered again, although the customer is not as it was.
    status, again = write(office, "per_east", rulings, {"ruling": "keep"}, tag, **key)
    assert (status, again["request"], again["repeated"]) == (201, ruled["request"], True)


def test_a_hand_over_is_based_on_what_was_asked_about_its_giver(office: Office) -> None:
    owned(office)
    body = {"giver": "per_a", "receivers": ["per_b"]}
    first = office.post("per_east", "/v1/hand-overs", body).json()["made"]
    tag = tag_of(office, f"/v1/hand-overs/{first}")
    assert write(office, "per_east", "/v1/hand-overs", body, tag)[0] == 201
    status, problem = write(office, "per_east", "/v1/hand-overs", body, tag)
    assert (status, problem["code"]) == (412, "precondition_failed")


def test_a_read_has_the_version_that_it_shows_and_not_that_of_the_log(office: Office) -> None:
    """The ETag was the log's, ahead of what was shown: a change overwrote what nobody had seen."""
    customer = office.customer("华星", territory=EAST)
    path = f"/v1/customers/{customer}"
    shown = tag_of(office, path)
    services = office.services
    with services.ledger.pool.connection() as held, held.transaction():
        # The read models stand still meanwhile.
        held.execute("LOCK TABLE projections.tracking IN EXCLUSIVE MODE")
        changed = office.call("per_a", "PATCH", path, body={"name": "华星二"})
        assert changed.status_code == 202, changed.text
        assert office.get("per_a", path).headers["ETag"] == shown
    assert tag_of(office, path) != shown
