"""The OpenAPI document: what programs that make clients of it, and people who read it, rely on."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import MagicMock

import pytest
import schemathesis

from api.http import examples
from api.http.app import create_app
from api.http.document import TAGS, operations
from tests.api.http.office import Office


@pytest.fixture(scope="module")
def undone() -> Office:
    """An application without a ledger, for what is answered before one is asked."""
    services = MagicMock()
    return Office(services, create_app(services))


@pytest.fixture(scope="module")
def document(undone: Office) -> dict[str, Any]:
    found: dict[str, Any] = undone.get(None, "/v1/openapi.json").json()
    return found


def test_it_is_valid_and_says_what_clients_need(document: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(document).validate()
    assert document["openapi"].startswith("3.1")
    assert document["servers"]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", name) for name in names)
    tags = {tag for _, _, operation in operations(document) for tag in operation["tags"]}
    assert tags == {each["name"] for each in TAGS}


def test_problems_are_problems_and_nothing_else_is(document: dict[str, Any]) -> None:
    """FastAPI listed each under application/json as well, and a 422 of its own."""
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for _, _, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status < "400" or (operation["operationId"], status) == (
                "get_readiness",
                "503",
            ):
                assert "application/problem+json" not in answer.get("content", {})
            else:
                assert answer["content"] == {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                }, (operation["operationId"], status)


def test_no_parameter_is_null(document: dict[str, Any]) -> None:
    """Clients would have sent ``If-Match: null``, as schemathesis did, and got 400."""
    for _, _, operation in operations(document):
        for each in operation.get("parameters", ()):
            assert {"type": "null"} not in each["schema"].get("anyOf", ()), each["name"]


def test_no_operation_claims_what_cannot_be(document: dict[str, Any]) -> None:
    said = {
        operation["operationId"]: operation["responses"].keys()
        for _, _, operation in operations(document)
    }
    assert said["get_liveness"] == {"200"}
    assert "404" not in said["list_claims"]
    assert "412" not in said["register_customer"]
    assert "412" in said["change_customer"]
    assert "413" not in said["get_customer"]
    assert {"408", "413"} <= said["file_claim"]


def test_every_body_and_every_id_has_an_example(document: dict[str, Any]) -> None:
    lacking = []
    for _, _, operation in operations(document):
        bodies = operation.get("requestBody", {}).get("content", {}).values()
        paths = [each for each in operation.get("parameters", ()) if each["in"] == "path"]
        lacking += [
            operation["operationId"]
            for each in (*bodies, *paths)
            if "example" not in each and "examples" not in each
        ]
    assert lacking == []
    names = {operation["operationId"] for _, _, operation in operations(document)}
    assert examples.OF_BODIES.keys() <= names


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/customers/cus_1", "GET, PATCH"),
        ("PUT", "/v1/claims", "GET, POST"),
        ("OPTIONS", "/v1/calendars/2026", "GET, PUT"),
        # A path that is also what a name in braces matches, of which there is none.
        ("PUT", "/v1/approvals/answers", "GET, POST"),
    ],
)
def test_what_is_no_method_of_a_path_is_told_which_are(
    undone: Office, method: str, path: str, allowed: str
) -> None:
    """Allow named the methods of one route only, where several share the path."""
    answer = undone.call(None, method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "method_not_allowed"
