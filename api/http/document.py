"""The OpenAPI document: what FastAPI makes of the routes, and what it cannot know of them.

Which statuses an operation may answer with follows from what it takes; which headers an answer has,
from what kind of operation it is; how one operation leads to another is said in ``_LINKS``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from api.http import examples
from api.http.problems import MEDIA_TYPE

Operation = dict[str, Any]

SERVERS = [{"url": "/", "description": "Where this document comes from."}]
TAGS: list[dict[str, Any]] = [
    {"name": name, "description": words}
    for name, words in {
        "customers": "Entering, changing and finding customers; whose one is, before the call.",
        "ownership": "Releases, assignments, and whose everything was at any moment.",
        "claims": "Filing claims, one or many; what would come of one; what came of them.",
        "collaborations": "Who works on a customer beside its owner.",
        "follow-ups": "Calls and visits: what was agreed, and when the next one is to be.",
        "deals": "What was won and lost.",
        "history": "All that was asked and decided about a customer, and its owners over time.",
        "transfers": "Asking that somebody else becomes the owner.",
        "approvals": "Answering what awaits approval; what awaits oneself.",
        "conflicts": "Who disputes a customer, what proves it, and rulings.",
        "hand-overs": "What somebody holds goes to others, with a receipt line by line.",
        "orphans": "Customers whose owner has left, and who stands in at them.",
        "due": "What falls due, and what goes back to the pool if nobody acts.",
        "people": "Who works here: territories, roles, absences and delegates.",
        "territories": "The tree of territories with their heads, and figures of each.",
        "policies": "By which rules it is decided, now and before; what others would have brought.",
        "proposals": "What somebody proposed, for somebody else to adopt (four eyes).",
        "calendars": "Which days are worked.",
        "imports": "Files of other systems, filed with their own times and actors by a job.",
        "jobs": "What takes longer than a request.",
        "tokens": "Credentials of people and integrations.",
        "the log": "Every event, in order, by cursor or as it comes.",
        "requests": "What came of any request.",
        "health": "For whoever looks after the process.",
    }.items()
]

PROBLEMS: Mapping[int, str] = {
    400: "A header cannot be understood.",
    401: "No credentials, or some that do not hold.",
    403: "A permission is missing, which is named.",
    404: "There is none of what the path names.",
    408: "The body did not come in time.",
    409: "It does not fit what there is by now.",
    412: "It is not any more as If-Match says.",
    413: "The body is larger than the route takes.",
    422: "What was sent is wrong; the errors point at it.",
    429: "The caller asks too often.",
    503: "Not now: a queue is full, or the database is away.",
}

_HEADERS: Mapping[str, Operation] = {
    "Ledger-Position": {
        "description": "The position of the log that the answer reflects, or at which it stands.",
        "schema": {"type": "string", "pattern": "^-?[0-9]+$"},
    },
    "Location": {
        "description": "Where what was made, or what was asked for, is looked at.",
        "schema": {"type": "string", "pattern": "^/v1/"},
    },
    "ETag": {
        "description": "The version, for If-Match.",
        "schema": {"type": "string", "pattern": '^"[0-9]+"$'},
    },
    "Preference-Applied": {
        "description": "How long the decision was waited for at most, where that was preferred.",
        "schema": {"type": "string", "pattern": "^wait=[0-9]+$"},
    },
    "Idempotency-Replayed": {
        "description": "The key was used before; this is the first answer.",
        "schema": {"type": "string", "const": "true"},
    },
    "Retry-After": {
        "description": "In how many seconds to ask again.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[1-9][0-9]*$"},
    },
    "WWW-Authenticate": {
        "description": "That a bearer token is wanted, and whether the one sent is at fault.",
        "required": True,
        "schema": {"type": "string", "pattern": "^Bearer "},
    },
}
_TAGGED = {
    "get_customer",
    "get_person",
    "list_territories",
    "get_territory",
    "get_policy_in_force",
    "list_proposals",
    "get_proposal",
    "get_four_eyes",
    "list_calendars",
    "get_calendar",
}
"""Reads whose answer has an ETag."""
_AT_A_POSITION = {"export_ownership", "read_log", "check_claim"} | _TAGGED

# What the routes read themselves, and answer with 400 where it is nothing like this.
_ETAGS = r'^(\*|"[0-9]{1,18}"( *, *"[0-9]{1,18}")*)$'

_PROBLEM = "#/components/schemas/Problem"
_MADE, _CUSTOMER = "$response.body#/made", "$response.body#/customer"
_ABOUT, _JOB = "$response.body#/about", "$response.body#/job"
_LINKS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "register_customer": {
        target: {"customer": _CUSTOMER}
        for target in (
            "get_customer",
            "whois",
            "get_history",
            "change_customer",
            "release_customer",
            "assign_customer",
            "log_follow_up",
            "record_deal",
            "request_collaboration",
            "hold_recycling",
        )
    },
    "file_claim": {
        "get_claim": {"claim": "$response.body#/claim"},
        "whois": {"customer": _CUSTOMER},
    },
    "request_transfer": {
        "get_transfer": {"transfer": _MADE},
        "approve": {"approval": _MADE},
        "refuse": {"approval": _MADE},
        "withdraw": {"approval": _MADE},
    },
    "request_collaboration": {
        "get_collaboration": {"collaboration": _MADE},
        "end_collaboration": {"customer": _CUSTOMER, "collaboration": _MADE},
    },
    "log_follow_up": {
        target: {"customer": _CUSTOMER, "follow_up": _MADE}
        for target in ("get_follow_up", "correct_follow_up", "void_follow_up")
    },
    "record_deal": {
        target: {"customer": _CUSTOMER, "deal": _MADE}
        for target in ("get_deal", "correct_deal", "void_deal")
    },
    "order_hand_over": {
        "get_hand_over": {"hand_over": _MADE},
        "get_receipt": {"hand_over": _MADE},
    },
    "name_stand_in": {"end_stand_in": {"stand_in": _MADE}},
    "add_person": {
        target: {"person": _ABOUT}
        for target in ("get_person", "change_person", "list_holdings", "person_away", "person_left")
    },
    "define_territory": {
        target: {"territory": _ABOUT} for target in ("get_territory", "change_territory")
    },
    "ask_what_if": {target: {"job": _JOB} for target in ("get_job", "cancel_job")},
    "ask_import": {target: {"job": _JOB} for target in ("get_job", "cancel_job", "get_rejects")},
    "make_token": {
        target: {"token": "$response.body#/token"} for target in ("get_token", "revoke_token")
    },
}
"""By operation: to which operations what it answers leads, and by which parameters."""


def complete(document: Operation, problem: type[BaseModel]) -> Operation:
    """Return FastAPI's document with what it cannot know; it is changed in place.

    ``problem`` is the shape of problems. They are added here: of those that routes name themselves
    FastAPI makes a model each, for each route, which took it seconds at the first request.
    """
    components = document["components"]
    components["schemas"]["Problem"] = problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    taken = {
        operation["operationId"]: {each["name"] for each in operation.get("parameters", ())}
        for _, _, operation in operations(document)
    }
    for path, method, operation in operations(document):
        _state_parameters(operation)
        _state_statuses(path, method, operation)
        _state_headers(operation)
        _state_links(operation, taken)
        _give_examples(operation)
    components["headers"] = {name: dict(said) for name, said in _HEADERS.items()}
    return document


def operations(document: Operation) -> Iterator[tuple[str, str, Operation]]:
    """Yield path, method and description of each operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _state_parameters(operation: Operation) -> None:
    """Leave out that a parameter may be null: it is left out then, and ``null`` would be a text."""
    for each in operation.get("parameters", ()):
        schema = each["schema"]
        kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
        if len(kinds) == 1:
            del schema["anyOf"]
            schema.update(kinds[0])
        elif kinds:
            schema["anyOf"] = kinds
        if each["in"] == "header":
            # As headers are written everywhere; a program may write them as it likes.
            each["name"] = "-".join(part.capitalize() for part in each["name"].split("-"))
        if each["name"] == "If-Match":
            schema["pattern"] = _ETAGS


def _state_statuses(path: str, method: str, operation: Operation) -> None:
    """Add the problems that may be, and say of all that they are problems."""
    parameters = {each["name"].lower() for each in operation.get("parameters", ())}
    is_secured, has_body = "security" in operation, "requestBody" in operation
    may_be = {
        400: is_secured,
        401: is_secured,
        403: is_secured,
        404: "{" in path,
        408: has_body,
        409: method != "get",
        412: "if-match" in parameters,
        413: has_body,
        422: bool(parameters) or has_body,
        429: is_secured,
        503: is_secured,
    }
    answers: dict[str, Operation] = {
        str(status): {"description": words} for status, words in PROBLEMS.items() if may_be[status]
    }
    for status, answer in operation["responses"].items():
        if not _is_frameworks(answer):
            answers[status] = answer
    for status, answer in answers.items():
        if int(status) >= 400:
            answer.setdefault("content", {MEDIA_TYPE: {"schema": {"$ref": _PROBLEM}}})
    operation["responses"] = dict(sorted(answers.items()))


def _is_frameworks(answer: Operation) -> bool:
    """Say whether it is FastAPI's own word for what is wrong, in place of which is a problem."""
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return bool(schema.get("$ref", "").endswith("/HTTPValidationError"))


def _state_headers(operation: Operation) -> None:
    parameters = {each["name"].lower() for each in operation.get("parameters", ())}
    name = operation["operationId"]
    good: list[str] = []
    if "min_position" in parameters or name in _AT_A_POSITION or "prefer" in parameters:
        good.append("Ledger-Position")
    if name in _TAGGED or "if-match" in parameters:
        good.append("ETag")
    if "idempotency-key" in parameters:
        good += ["Location", "Idempotency-Replayed"]
    if "prefer" in parameters:
        good.append("Preference-Applied")
    for status, answer in operation["responses"].items():
        headers = good if status.startswith("2") else []
        if status == "401":
            headers = ["WWW-Authenticate"]
        elif status in {"429", "503"} and MEDIA_TYPE in answer.get("content", {}):
            headers = ["Retry-After"]
        if headers:
            answer.setdefault("headers", {}).update(
                {each: {"$ref": f"#/components/headers/{each}"} for each in headers}
            )


def _give_examples(operation: Operation) -> None:
    for each in operation.get("parameters", ()):
        if each["in"] == "path":
            each["example"] = examples.OF_PATHS[each["name"]]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        # Where the body is a stream of lines, the route has an example itself.
        if operation["operationId"] in examples.OF_BODIES:
            content["example"] = examples.OF_BODIES[operation["operationId"]]


def _state_links(operation: Operation, taken: Mapping[str, set[str]]) -> None:
    for status, answer in operation["responses"].items():
        if not status.startswith("2"):
            continue
        targets = dict(_LINKS.get(operation["operationId"], {}))
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        if schema.get("$ref", "").endswith("/Outcome"):
            targets["get_request"] = {"request": "$response.body#/request"}
        for target, parameters in targets.items():
            if not parameters.keys() <= taken[target]:
                raise AssertionError(f"{target} does not take {sorted(parameters)}")
            answer.setdefault("links", {})[target] = {
                "operationId": target,
                "parameters": dict(parameters),
            }
