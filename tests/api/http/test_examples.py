"""The document's examples: each is sent, and what the document says comes back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok

from api.http import examples
from api.http.document import operations
from ledger import organisation_commands as facts
from tests.api.http.office import EAST, Office, make_token, read
from tests.api.http.test_conflicts import disputed
from tests.api.http.test_orphans import today
from tests.support.processes import wait_until

# What is left out has no end; its own tests follow it.
STREAM = "follow_log"
# Asked for behind all others, because others build on what they change.
LAST = (
    "get_calendar",
    "person_left",
    "person_returned",
    "name_stand_in",
    "end_stand_in",
    "get_proposal",
    "adopt_proposal",
    "withdraw_proposal",
    "require_four_eyes",
)
# Nobody adopts what they proposed themselves.
BY = {"adopt_proposal": "per_second"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


GOOD = (200, 201, 202, 204)
# Nothing could not be decided here; tests/api/http/test_parked.py brings that about.
NOTHING_IS_PARKED = {"unpark"}


def made(office: Office, who: str, path: str, body: Any) -> str:
    """Ask for something that makes something; return its id."""
    answer = office.post(who, path, body)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["made"]
    return found


def prepare(office: Office) -> dict[Any, Any]:
    """Make what the examples name; return it by the ids of the examples."""
    office.state(facts.AddPerson(person="per_second", name="second", roles=("admin",)))
    expires = datetime.now(UTC) + timedelta(hours=1)
    office.tokens["per_second"] = make_token(
        office.services, "person", "per_second", ("admin",), expires
    )
    office.state(facts.AdoptDecider(version=2))
    customer, conflict = disputed(office)
    about = f"/v1/customers/{customer}"
    orphan = office.customer("远山")
    office.post("per_w", "/v1/claims", {"customer": orphan})
    transfer = {"customer": customer, "receiver": "per_b"}
    claim = read(office, "per_a", f"/v1/claims?customer={customer}")["items"][0]["claim"]
    of_paths = examples.OF_PATHS
    return {
        examples.CUSTOMER: customer,
        examples.OWNER: "per_a",
        examples.COLLEAGUE: "per_b",
        examples.TERRITORY: EAST,
        examples.TRANSFER: made(office, "per_a", "/v1/transfers", transfer),
        of_paths["claim"]: claim,
        of_paths["conflict"]: conflict,
        of_paths["follow_up"]: made(office, "per_a", f"{about}/follow-ups", {}),
        of_paths["deal"]: made(office, "per_a", f"{about}/deals", {"outcome": "won"}),
        of_paths["collaboration"]: made(
            office, "per_a", f"{about}/collaborations", {"person": "per_w"}
        ),
        "orphan": orphan,
    }


def placed(example: Any, ids: dict[Any, Any]) -> Any:
    """Return an example with ids that exist in place of those that are made up."""
    if isinstance(example, dict):
        return {name: placed(each, ids) for name, each in example.items()}
    if isinstance(example, list):
        return [placed(each, ids) for each in example]
    return ids.get(example, example)


def in_order(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each operation with its label, those of LAST at the end."""
    found = {
        operation["operationId"]: (f"{method.upper()} {path}", operation)
        for path, method, operation in operations(document)
    }
    first = [name for name in found if name not in LAST and name != STREAM]
    yield from (found[name] for name in (*first, *LAST))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_example_gets_what_the_document_says(office: Office) -> None:
    ids = prepare(office)
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", office.app)
    found = {
        each.ok().label: each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)
    }
    wrong: list[str] = []
    sent = 0
    for label, described in in_order(office.app.openapi()):
        name = described["operationId"]
        _become_true(office, name, ids)
        path = {
            each["name"]: ids.get(each["example"], each["example"])
            for each in described.get("parameters", ())
            if each["in"] == "path"
        }
        bodies = described.get("requestBody", {}).get("content", {})
        media_type = next(iter(bodies), None)
        body = {"body": placed(bodies[media_type]["example"], ids)} if media_type else {}
        query = {"person": "per_a"} if name in {"list_follow_ups", "list_deals"} else {}
        case = found[label].Case(
            path_parameters=path, query=query, media_type=media_type, headers={}, **body
        )
        who = BY.get(name, "per_admin")
        headers = {"Authorization": f"Bearer {office.tokens[who]}", "Prefer": "wait=20"}
        answer = case.call(headers=headers)
        sent += 1
        try:
            assert answer.status_code in GOOD or name in NOTHING_IS_PARKED, answer.content
            case.validate_response(answer, checks=CHECKS)
        except (AssertionError, FailureGroup) as error:
            wrong.append(f"{label}: {error}")
        else:
            _remember(name, answer, ids)
    assert not wrong, "\n\n".join(wrong)
    assert sent > 90


def _become_true(office: Office, name: str, ids: dict[Any, Any]) -> None:
    """Bring about what an operation needs that none before it did."""
    if name == "get_rejects":
        job = f"/v1/jobs/{ids[examples.OF_PATHS['job']]}"
        wait_until(lambda: office.get("per_admin", job).json()["state"] == "done")
    elif name == "name_stand_in":
        office.state(facts.MarkLeft(person="per_w", left_on=today(office)))
        ids[examples.CUSTOMER] = ids["orphan"]
        ids[examples.OF_BODIES[name]["until"]] = str(today(office) + timedelta(days=30))
    elif name in {"get_proposal", "withdraw_proposal"}:
        if name == "get_proposal":
            office.state(facts.RequireFourEyes(required=True))
        proposed = office.post("per_admin", "/v1/policies", {"policy": {}, "comment": name})
        assert proposed.status_code == 202, proposed.text
        ids[examples.OF_PATHS["proposal"]] = proposed.json()["proposal"]


def _remember(name: str, answer: Any, ids: dict[Any, Any]) -> None:
    """Keep the id of what an operation made, for those that look at it."""
    field, named = {
        "ask_import": ("job", "job"),
        "make_token": ("token", "token"),
        "order_hand_over": ("made", "hand_over"),
        "name_stand_in": ("made", "stand_in"),
    }.get(name, (None, None))
    if field is not None and named is not None:
        ids[examples.OF_PATHS[named]] = answer.json()[field]
