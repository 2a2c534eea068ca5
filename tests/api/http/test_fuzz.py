"""Every operation takes what the document allows, and nothing else; each answer is as it says.

schemathesis calls all that the document describes, with all of its checks: at the bounds of each
parameter (coverage), at random (fuzzing), and along the document's links (stateful).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema
from schemathesis.generation import GenerationMode
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext
from schemathesis.schemas import BaseSchema

from api.http import finding, reflection
from tests.api.http.office import Office

PHASES = ("coverage", "fuzzing", "stateful")
# Of each operation so many cases of one kind, such as a field that is missing: there are thousands.
CASES_OF_A_KIND = 1
EXAMPLES = {"fuzzing": 3, "stateful": 15}
CALLED_MIN = {"coverage": 500, "fuzzing": 150, "stateful": 50}

# It has no end. What it refuses, and how, is tested beside its other tests.
STREAM = "follow_log"

# What JSON Schema has no words for, so that valid data may be refused after all.
BETWEEN_FIELDS = {
    "export_ownership": "Accept names one of two formats",
    "get_figures": "the last day lies behind the first",
    "change_customer": "a change changes something",
    "request_collaboration": "a period has days",
    "rule_on_conflict": "a receiver is named to award, parts to split",
    "order_hand_over": "the plan fits the receivers; the giver is none of them",
    "check_hand_over": "as where it is ordered",
    "request_transfer": "an amount has 20 digits at most, also where it is sent as a number",
    "check_transfer": "as where it is asked for",
    "change_person": "a name is changed by itself; an administrator remains",
    "person_left": "an administrator remains; nobody leaves twice",
    "person_returned": "who returns has left",
    "person_away": "a period has days",
    "name_delegate": "a period has days",
    "answer_approvals": "nothing is answered twice",
    "make_token": "a token is either a person's or an integration's",
    "person_back": "who comes back is away",
    "end_delegate": "somebody acts for the person on that day",
    "adopt_decider": "there is such a version, and none behind it is in force",
    "seed_calendar": "the library knows the year",
    "review": "the customer belongs to a group that is split",
    "unpark": "there is such a version",
    "state_calendar": "the days lie in the year; a holiday on none of its weekends",
    "adopt_policy": "rules fit each other",
    "ask_what_if": "rules fit each other; the past begins in the past",
    "ask_import": "a mapping is TOML and names the files",
    "file_claims": "lines of JSON, of which the document can only say that they are text",
    "file_claim": "what occurred lies in the past",
    "check_claim": "what occurred lies in the past",
    "log_follow_up": "what occurred lies in the past",
    "correct_follow_up": "a correction corrects something, and what occurred lies in the past",
    "record_deal": "what occurred lies in the past",
    "correct_deal": "a correction corrects something",
}
# Where a check is at odds with what is right.
RIGHT: Mapping[str, tuple[str, ...]] = {
    # A token that is revoked is still looked at: by whom it was made, and when it ended.
    "get_token": ("use_after_free",),
    # schemathesis says that it sends an Accept that is too long, and does not.
    "export_ownership": ("negative_data_rejection",),
    # Each line gets a problem of its own, whatever it is; GET at their paths asks for a claim whose
    # position is no number.
    "file_claims": ("negative_data_rejection", "unsupported_method"),
    "check_claim": ("unsupported_method",),
}
# What the schema cannot know: which ids there are, where a page ended, what was said before.
BY_WHAT_THERE_IS = {
    "unknown_id",
    "cursor",
    "check_digit",
    "request_reused",
    "entry_too_large",
    "precondition_failed",
}


def config_of(office: Office, phase: str) -> SchemathesisConfig:
    """Return what is tested: one phase, and all checks."""
    off = {name: {"positive_data_acceptance": {"enabled": False}} for name in BETWEEN_FIELDS}
    for name, checks in RIGHT.items():
        off.setdefault(name, {}).update({check: {"enabled": False} for check in checks})
    return SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "continue-on-failure": True,
            "headers": {"Authorization": f"Bearer {office.tokens['per_admin']}"},
            # A person acts for nobody else: 403 would be all that is ever seen.
            # And no read model reflects what is far ahead, so that 503 would be.
            # What If-Match may be, schemathesis does not read off its pattern.
            "parameters": {
                "header.On-Behalf-Of": "per_admin",
                "header.If-Match": "*",
                "query.min_position": 0,
            },
            "generation": {
                "deterministic": True,
                "database": "none",
                "no-shrink": True,
                "max-examples": EXAMPLES.get(phase, 1),
            },
            "phases": {
                "examples": {"enabled": False},
                **{each: {"enabled": each == phase} for each in PHASES},
            },
            "operations": [
                {"include-operation-id": STREAM, "enabled": False},
                *({"include-operation-id": name, "checks": off[name]} for name in off),
            ],
        }
    )


def prepare(schema: BaseSchema, customer: str) -> None:
    """Have fewer cases at the bounds, existing customers, and no cursors made up."""
    seen: Counter[tuple[str, str, str]] = Counter()

    @schema.hook("filter_case")
    def is_among_the_first(context: HookContext, case: Case[Any]) -> bool:
        if case.meta is None or case.meta.phase.name.value != "coverage":
            return True
        data = case.meta.phase.data
        kind = str(getattr(data, "scenario", None)), str(getattr(data, "parameter_location", ""))
        seen[case.operation.label, *kind] += 1
        return seen[case.operation.label, *kind] <= CASES_OF_A_KIND

    @schema.hook("map_case")
    def make_meet_something(context: HookContext, case: Case[Any]) -> Case[Any]:
        # Too long a one is still sent, and refused.
        if isinstance(case.query, dict) and len(str(case.query.get("cursor", ""))) <= 2_000:
            case.query.pop("cursor", None)
        is_valid = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
        if is_valid and "customer" in (case.path_parameters or {}):
            case.path_parameters["customer"] = customer
        return case

    @schema.hook("filter_failure")
    def is_the_interfaces(
        context: HookContext, failure: Failure, case: Case[Any], response: Response
    ) -> bool:
        if type(failure).__name__ != "RejectedPositiveData":
            return True
        return response.json().get("code") not in BY_WHAT_THERE_IS


def told(event: events.ScenarioFinished) -> Iterator[str]:
    """Yield what is wrong with the answers of a scenario."""
    for case, checks in event.recorder.checks.items():
        for check in checks:
            if check.failure_info is None:
                continue
            failure = check.failure_info.failure
            label = event.recorder.cases[case].value.operation.label
            yield (
                f"{label}: {check.name}: {failure.title}\n{failure.message[:600]}\n"
                + (check.failure_info.code_sample[:600])
            )
            response = event.recorder.interactions[case].response
            if response is not None:
                yield f"{response.status_code} {response.content[:300]!r}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("phase", PHASES)
def test_the_document_holds(office: Office, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    # What is not there yet is not waited for.
    monkeypatch.setattr(reflection, "REFLECT_SECONDS_MAX", 0.0)
    monkeypatch.setattr(finding, "SOON_SECONDS_MAX", 0.0)
    monkeypatch.setattr(office.services.throttle, "admit", lambda caller: None)
    customer = office.customer("华星")
    schema: Any = schemathesis.openapi.from_asgi(
        "/v1/openapi.json", office.app, config=config_of(office, phase)
    )
    prepare(schema, customer)
    wrong: list[str] = []
    called: Counter[str] = Counter()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            wrong.append(repr(event))
        elif isinstance(event, events.ScenarioFinished):
            wrong += told(event)
            called.update(each.value.operation.label for each in event.recorder.cases.values())
    assert not wrong, "\n\n".join([f"{len(wrong)} are wrong", *wrong])
    assert called.total() > CALLED_MIN[phase], called
    if phase != "stateful":
        found = {each.ok().label for each in schema.get_all_operations()}
        assert called.keys() == found - {"GET /v1/events/stream"}
