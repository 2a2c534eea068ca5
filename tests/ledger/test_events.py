"""The events: what was ever written is read to the same for ever, and written to the same bytes.

The files in tests/fixtures/events are never rewritten: where a test here fails, logs of users can
no longer be read, and the way out is a new version with an upcaster.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any, get_args

import orjson
import pytest
import rfc8785
from pydantic import ValidationError

from ledger.canonical import canonical_bytes
from ledger.envelope import Event, StoredEvent, decode
from ledger.events import decisions, organisation, requests
from ledger.events.catalogue import Catalogue, EventType, UnknownEventError, catalogue
from ledger.events.values import ForeignId
from tests.fixtures.event_bodies import (
    EARLIER,
    EXAMPLES,
    FOLDER,
    MOMENT,
    OLD,
    body_of,
    event_name,
)

FROZEN = {path.name.removesuffix(".json"): path for path in FOLDER.glob("*.json")}
EXPECTED = EXAMPLES | EARLIER | OLD


def read(name: str, body: bytes) -> Event:
    return decode(catalogue(), StoredEvent(1, MOMENT, "stream", 1, event_name(name), body))


def test_every_name_has_its_frozen_body_and_every_body_is_known() -> None:
    known = catalogue().request_names | catalogue().decision_names | catalogue().fact_names
    assert FROZEN.keys() == EXPECTED.keys()
    assert known == {event_name(each) for each in FROZEN}
    assert known == {event_name(each) for each in EXAMPLES | OLD}


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_a_frozen_body_is_read_to_the_same_data(name: str) -> None:
    assert read(name, FROZEN[name].read_bytes()).data == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(set(FROZEN) - set(OLD)))
def test_a_frozen_body_is_written_to_the_same_bytes(name: str) -> None:
    frozen = FROZEN[name].read_bytes()
    assert body_of(catalogue(), EXPECTED[name]) == frozen
    event = read(name, frozen)
    again: dict[str, Any] = {**event.envelope, "data": catalogue().dump(event.data)}
    assert canonical_bytes(again) == frozen


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_a_frozen_body_is_canonical(name: str) -> None:
    frozen = FROZEN[name].read_bytes()
    assert rfc8785.dumps(orjson.loads(frozen)) == frozen


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_says_something_in_every_field(name: str) -> None:
    """A field that its example leaves out would be frozen nowhere."""
    example = EXAMPLES[name]
    dumped = catalogue().dump(example)
    fields = {field.name for field in dataclasses.fields(example)}
    assert dumped.keys() == fields
    assert not [key for key, value in dumped.items() if value in ([], {})]


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_event_that_says_only_what_it_must_survives_as_well(name: str) -> None:
    example = EXAMPLES[name]
    defaults: dict[str, Any] = {}
    for each in dataclasses.fields(example):
        if each.default is not dataclasses.MISSING:
            defaults[each.name] = each.default
        elif each.default_factory is not dataclasses.MISSING:
            defaults[each.name] = each.default_factory()
    least = dataclasses.replace(example, **defaults)
    body = body_of(catalogue(), least)
    assert read(name, body).data == least
    # What is None takes no room in the log.
    none = {key for key, value in defaults.items() if value is None}
    assert none.isdisjoint(orjson.loads(body)["data"])


def test_no_limit_is_written_and_not_left_out() -> None:
    """In a policy None says that there is no limit; left out it would mean the default."""
    rules = orjson.loads(FROZEN["PolicyAdopted.v1"].read_bytes())["data"]["rules"]
    assert rules["holding_limit"] is None


# --- the envelope -------------------------------------------------------------------------------


def test_the_envelope_of_a_request() -> None:
    event = read("ClaimFiled.v1", FROZEN["ClaimFiled.v1"].read_bytes())
    assert (event.actor, event.caller, event.import_id) == ("per_1", "cli:wang", "imp_1")
    assert (event.causation, event.ordinal) == (None, None)
    assert event.occurred == event.effective == MOMENT
    assert event.envelope["source"] == {
        "system": "crm",
        "reference": "opportunities.csv",
        "row": 42,
    }
    assert (event.envelope["index"], event.envelope["request_id"]) == (1, "req_01997d2e")


def test_the_envelope_of_a_decision() -> None:
    event = read("Noted.v1", FROZEN["Noted.v1"].read_bytes())
    assert (event.actor, event.caller) == ("enforcer", "enforcer")
    assert (event.causation, event.ordinal, event.effective) == (17, 0, MOMENT)
    assert event.envelope["guards"] == {"grants": 4, "held": 12, "held_won": 2, "ownership": 7}


def test_what_states_no_time_happened_when_it_was_recorded() -> None:
    body = canonical_bytes({"actor": "per_1", "data": {"customer": "cus_1", "claimant": "per_1"}})
    recorded = datetime(2026, 3, 5, tzinfo=UTC)
    event = decode(
        catalogue(), StoredEvent(1, recorded, "customer-cus_1", 1, "ClaimFiled.v1", body)
    )
    assert event.occurred == event.effective == recorded


# --- the catalogue ------------------------------------------------------------------------------


def test_kinds() -> None:
    assert catalogue().kind_of("ClaimFiled.v1") == "request"
    assert catalogue().kind_of("ClaimRefused.v1") == "decision"
    assert catalogue().kind_of("PersonLeft.v1") == "fact"
    assert len(catalogue().request_names) == len(get_args(requests.Request))
    assert len(catalogue().decision_names) == len(get_args(decisions.Decision)) + 1
    assert len(catalogue().fact_names) == len(get_args(organisation.OrganisationFact))


@pytest.mark.parametrize("name", ["ClaimFiled.v2", "ClaimFiled", "ledger.events.ClaimFiled", ""])
def test_a_name_of_another_version_of_guishu_is_no_event(name: str) -> None:
    with pytest.raises(UnknownEventError) as unknown:
        catalogue().load(name, {})
    assert unknown.value.code == "unknown_event"
    assert "Upgrade" in unknown.value.way_out
    with pytest.raises(UnknownEventError):
        catalogue().kind_of(name)


def test_data_of_another_shape_is_refused() -> None:
    with pytest.raises(ValidationError):
        catalogue().load("ClaimFiled.v1", {"customer": "cus_1"})


def test_an_old_version_is_lifted_on_reading() -> None:
    """No event has an old version yet; this is how the first one will be read."""
    types = [
        dataclasses.replace(
            each,
            name="ClaimFiled.v2",
            upcasters={"ClaimFiled.v1": lambda data: {**data, "claimant": data["who"]}},
        )
        if each.name == "ClaimFiled.v1"
        else each
        for each in catalogue().types
    ]
    newer = Catalogue(types)
    lifted = newer.load("ClaimFiled.v1", {"customer": "cus_1", "who": "per_1"})
    assert lifted == requests.ClaimFiled("cus_1", "per_1")
    assert newer.load("ClaimFiled.v2", newer.dump(lifted)) == lifted
    assert newer.name_of(lifted) == "ClaimFiled.v2"
    assert newer.kind_of("ClaimFiled.v1") == newer.kind_of("ClaimFiled.v2") == "request"


def test_types_of_the_catalogue_are_frozen() -> None:
    """What was read must be what is in the log, whoever holds it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        ForeignId("a", "b").system = "c"  # type: ignore[misc]  # that it is refused is the point
    for each in catalogue().types:
        assert isinstance(each, EventType)
        assert each.data_class.__dataclass_params__.frozen
