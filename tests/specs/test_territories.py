"""Which territory a customer belongs to, by the name of one, or by rules over its attributes."""

from __future__ import annotations

from typing import Any

import pytest

from ledger import reasons
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import Attribute
from tests.specs.story import START, Story
from tests.specs.test_ownership import claim, company, granted, refused, register

RULES: list[tuple[str, str, str | list[str]]] = [
    ("a", "is", "机床"),
    ("b", "is_not", "small"),
    ("c", "one_of", ["上海", "江苏"]),
    ("d", "starts_with", "3100"),
    ("e", "contains", "vip"),
    ("f", "at_least", "1000000"),
    ("g", "at_most", "2026-03-01"),
]


def ruled() -> Story:
    """A company with a territory for each operator."""
    rules = [
        {
            "territory": f"ter_{name}",
            "conditions": [{"attribute": name, "operator": operator, "value": value}],
        }
        for name, operator, value in RULES
    ]
    return company().given(facts.PolicyAdopted(2, {"territory_rules": rules}))


@pytest.mark.parametrize(
    ("attributes", "territory"),
    [
        ({"a": "机床"}, "ter_a"),
        ({"a": "机床厂"}, None),
        ({"b": "large"}, "ter_b"),
        ({"b": "small"}, None),
        ({"c": "江苏"}, "ter_c"),
        ({"c": "苏"}, None),
        ({"d": "310000"}, "ter_d"),
        ({"d": 310_000}, "ter_d"),
        ({"d": "320000"}, None),
        ({"e": {"set": ["new", "vip"]}}, "ter_e"),
        ({"e": {"set": ["vips"]}}, None),
        ({"e": "vip"}, None),
        ({"f": {"money": {"amount": "1000000.00", "currency": "CNY"}}}, "ter_f"),
        ({"f": {"decimal": "999999.99"}}, None),
        ({"f": 1_000_001}, "ter_f"),
        ({"g": {"date": "2026-03-01"}}, "ter_g"),
        ({"g": {"date": "2026-03-02"}}, None),
        ({}, None),
    ],
)
def test_a_rule_of_every_operator(attributes: dict[str, Attribute], territory: str | None) -> None:
    request = r.RegistrationRequested("cus_1", "organisation", "客户", attributes=attributes)
    ruled().when(request).then(d.CustomerAdmitted("cus_1", "organisation", START, territory))


def test_the_first_rule_that_matches_counts() -> None:
    both: dict[str, Attribute] = {"a": "机床", "b": "large"}
    request = r.RegistrationRequested("cus_1", "organisation", "客户", attributes=both)
    ruled().when(request).then(d.CustomerAdmitted("cus_1", "organisation", START, "ter_a"))


def test_text_that_looks_like_no_number_does_not_stop_a_claim() -> None:
    """Comparing a text ``NaN`` with a bound raised, and parked every request of the customer."""
    request = r.RegistrationRequested(
        "cus_1", "organisation", "客户", attributes={"f": "NaN"}, territory=None
    )
    story = ruled().when(request)
    granted(story.when(claim("per_a")), "per_a", customer_territory=None)


def test_a_change_of_what_a_rule_reads_moves_the_customer() -> None:
    story = company().when(register()).when(claim("per_a"))
    change = r.CustomerChangeRequested("cus_1", attributes={"region": "west"})
    story.when(change, by="per_head").then(d.CustomerChanged("cus_1", "ter_west"))
    # The owner keeps it; once it is free, it is in the pool of the west.
    story.when(r.ReleaseRequested("cus_1", "done"), by="per_a")
    story.then(d.OwnershipReleased("cus_1", "per_a", "done", "ter_west"))
    refused(story.when(claim("per_b")), reasons.OUTSIDE_TERRITORY)
    granted(story.when(claim("per_c")), "per_c", customer_territory="ter_west")


def test_rules_that_change_move_customers_without_a_request() -> None:
    story = company().when(register())
    story.given(facts.PolicyAdopted(2, {"territory_rules": []}))
    granted(story.when(claim("per_c")), "per_c", customer_territory=None)


@pytest.mark.parametrize("removed", [("territory",), ("territory", "attribute:region")])
def test_a_named_territory_that_goes_gives_way_to_the_rules(removed: tuple[str, ...]) -> None:
    story = company().when(register(territory="ter_west"))
    story.when(r.CustomerChangeRequested("cus_1", removed=removed), by="per_boss")
    expected = None if "attribute:region" in removed else "ter_east"
    story.then(d.CustomerChanged("cus_1", expected))


@pytest.mark.parametrize(
    "fields",
    [
        {"territory": "ter_east"},
        {"removed": ("attribute:size",)},
        {"removed": ("attribute:other",), "attributes": {"size": "large"}},
    ],
)
def test_what_is_no_change_of_a_guarded_field_needs_no_head(fields: dict[str, Any]) -> None:
    story = company().when(register(territory="ter_east"))
    story.when(r.CustomerChangeRequested("cus_1", **fields), by="per_b")
    story.then(d.CustomerChanged("cus_1", "ter_east"))


def test_all_guarded_fields_are_named() -> None:
    change = r.CustomerChangeRequested(
        "cus_1", territory="ter_west", attributes={"region": "west", "size": "large"}
    )
    story = company().when(register()).when(change, by="per_a")
    refused(story, reasons.NOT_HEAD, fields=("attribute:region", "territory"))
    # Nothing of it holds.
    assert story.settled.customers["cus_1"].attributes == {"region": "east"}  # type: ignore[union-attr]  # it is admitted
