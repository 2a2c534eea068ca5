"""Every route takes what its own description allows, and what it does not, without a defect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from api.http import services
from tests.api.http.office import Office

EXAMPLES = 12
# One has no end, the other takes lines of JSON, which nobody makes up here.
LEFT_OUT = {"/v1/events/stream", "/v1/claims/batch"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def operations(office: Office) -> Iterator[Any]:
    """Yield every operation that the document describes."""
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", office.app)
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if operation.path not in LEFT_OUT:
            yield operation


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_call_is_a_defect(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "REFLECT_SECONDS_MAX", 0.0)
    office.customer("华星")
    headers = {"Authorization": f"Bearer {office.tokens['per_admin']}"}
    called = 0
    for operation in operations(office):
        called += 1

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def call(case: Any) -> None:
            answer = case.call(headers=headers)
            # A read that is to reflect a position far ahead says that it does not yet.
            if answer.status_code == 503 and answer.json()["code"] == "not_reflected":
                return
            case.validate_response(answer, checks=CHECKS)

        call()
    assert called > 80
