"""Problems: each says what is wrong where, and a way out, whoever noticed it."""

from __future__ import annotations

from tests.api.http.office import Office


def test_what_a_path_names_and_is_not_there_is_missing_and_in_a_body_it_is_wrong(
    office: Office,
) -> None:
    """Reads said 404 and writes 422 of one and the same path."""
    changed = office.call("per_a", "PATCH", "/v1/customers/cus_none", body={"name": "新名"})
    left = office.post("per_admin", "/v1/people/per_none/left", {"left_on": "2026-01-01"})
    for answer in (changed, left):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), answer.text
    claimed = office.post("per_a", "/v1/claims", {"customer": "cus_none"})
    assert (claimed.status_code, claimed.json()["code"]) == (422, "unknown_id")


def test_a_pointer_says_where_the_field_stands_whoever_looked_at_it(office: Office) -> None:
    """What the ledger itself found wrong was pointed at without ``body/``."""
    customer = office.customer("华星")
    path = f"/v1/customers/{customer}"
    by_shape = office.call("per_a", "PATCH", path, body={"nam": "新名"})
    by_ledger = office.call("per_a", "PATCH", path, body={"removed": ["nonsense"]})
    pointers = [each.json()["errors"][0]["pointer"] for each in (by_shape, by_ledger)]
    assert pointers == ["body/nam", "body/removed/0"]


def test_a_body_that_is_not_called_json_is_told_so(office: Office) -> None:
    """``curl -d`` calls it a form, and was told that a dictionary was wanted."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = office.call("per_a", "POST", "/v1/claims", headers=headers, content=b'{"a": 1}')
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "Content-Type: application/json" in answer.json()["way_out"]
    wrong = office.call("per_a", "POST", "/v1/claims", body=[])
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "body")


def test_an_address_says_which_methods_it_takes(office: Office) -> None:
    """Allow named those of the first of its routes only."""
    answer = office.call("per_a", "DELETE", "/v1/customers")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")
    assert answer.json()["way_out"]
    nowhere = office.get("per_a", "/v1/nothing")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")
    assert "/v1/openapi.json" in nowhere.json()["way_out"]


def test_who_forgot_for_whom_it_writes_is_told_to_name_them(office: Office) -> None:
    """An administrator was to be asked for a token, which would not have helped."""
    answer = office.post("int_crm", "/v1/claims", {"customer": office.customer("华星")})
    assert answer.status_code == 403
    assert "On-Behalf-Of" in answer.json()["way_out"]
