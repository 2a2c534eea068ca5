"""Policies: what a condition matches, what may be adopted, and what stays of old ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ledger.conditions import Condition
from ledger.events.values import Attribute
from ledger.policy import LATE_FOLLOW_UP_DAYS_MAX, Policy, TerritoryRule, without_limits

MONEY: Attribute = {"money": {"amount": "1054.00", "currency": "CNY"}}
TAGS: Attribute = {"set": ["key account", "vip"]}


def condition(operator: Any, value: str | tuple[str, ...]) -> Condition:
    return Condition(attribute="a", operator=operator, value=value)


@pytest.mark.parametrize(
    ("operator", "value", "attribute", "matches"),
    [
        ("is", "机床", "机床", True),
        ("is", "机床", "机床厂", False),
        ("is", "12", 12, True),
        ("is", "1.50", {"decimal": "1.50"}, True),
        ("is", "2026-03-01", {"date": "2026-03-01"}, True),
        ("is", "1054.00", MONEY, True),
        ("is_not", "机床", "软件", True),
        ("is_not", "机床", "机床", False),
        ("one_of", ("上海", "江苏"), "江苏", True),
        ("one_of", ("上海", "江苏"), "浙江", False),
        ("one_of", (), "浙江", False),
        ("starts_with", "3100", "310000", True),
        ("starts_with", "3100", "13100", False),
        ("contains", "vip", TAGS, True),
        ("contains", "account", TAGS, False),
        ("contains", "vip", "vip", False),
        ("contains", "vip", {"decimal": "1"}, False),
        ("at_least", "10", 10, True),
        ("at_least", "10", 9, False),
        ("at_least", "-1.5", {"decimal": "-1.49"}, True),
        ("at_least", "1054", MONEY, True),
        ("at_least", "1054.01", MONEY, False),
        ("at_least", "9", {"decimal": "10"}, True),
        ("at_least", "2026-03-01", {"date": "2026-03-01"}, True),
        ("at_least", "2026-03-01", {"date": "2026-02-28"}, False),
        ("at_most", "10", 10, True),
        ("at_most", "10", 11, False),
        ("at_most", "2026-03-01", {"date": "2026-03-02"}, False),
        ("at_most", "Infinity", 11, True),
        # What cannot be compared is neither above nor below.
        ("at_least", "2026-03-01", 20_260_301, False),
        ("at_most", "2026-03-01", "soon", False),
        ("at_least", "10", {"date": "2026-03-01"}, False),
        ("at_most", "10", "ten", False),
        ("at_most", "10", TAGS, False),
    ],
)
def test_what_a_condition_matches(
    operator: str, value: str | tuple[str, ...], attribute: Attribute, matches: bool
) -> None:
    assert condition(operator, value).matches({"a": attribute}) is matches


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        ("is", "x"),
        ("is_not", "x"),
        ("one_of", ("x",)),
        ("starts_with", ""),
        ("contains", "x"),
        ("at_least", "0"),
        ("at_most", "0"),
    ],
)
def test_an_absent_attribute_never_matches(operator: str, value: str | tuple[str, ...]) -> None:
    assert not condition(operator, value).matches({"b": "x"})


@pytest.mark.parametrize("text", ["NaN", "sNaN", "-nan"])
@pytest.mark.parametrize("operator", ["at_least", "at_most"])
def test_a_text_that_means_no_number_is_not_compared(operator: str, text: str) -> None:
    """``NaN`` is a decimal for Python but raises when compared, so requests were parked."""
    assert not condition(operator, "10").matches({"a": text})


@pytest.mark.parametrize("operator", ["is", "is_not", "starts_with"])
def test_a_set_is_no_text(operator: str) -> None:
    """A set was compared as Python shows it, so ``is_not`` and ``starts_with [`` matched it."""
    assert not condition(operator, "[").matches({"a": TAGS})
    assert not condition("one_of", ("vip", "['key account', 'vip']")).matches({"a": TAGS})


@pytest.mark.parametrize(
    ("operator", "value"),
    [("one_of", "华东"), *((each, ("a",)) for each in ("is", "is_not", "contains", "at_least"))],
)
def test_an_operator_and_its_value_must_fit(operator: str, value: str | tuple[str, ...]) -> None:
    """``one_of`` with a text instead of a list matched every part of the text: 东 was in 华东."""
    with pytest.raises(ValidationError, match="one_of takes a list"):
        condition(operator, value)


@pytest.mark.parametrize("bound", ["many", "", "NaN", "2026-02-30"])
@pytest.mark.parametrize("operator", ["at_least", "at_most"])
def test_a_bound_that_nothing_could_be_compared_with_is_refused(operator: str, bound: str) -> None:
    with pytest.raises(ValidationError, match="takes a number, or a date"):
        condition(operator, bound)


attributes = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.text(max_size=8)
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False).map(lambda x: {"decimal": f"{x:f}"})
    | st.dates().map(lambda x: {"date": x.isoformat()})
    | st.lists(st.text(max_size=3), max_size=3).map(lambda x: {"set": x})
    | st.just(MONEY),
)
values = st.text(max_size=8) | st.sampled_from(["1", "-5.5", "2026-03-01", "Infinity", "vip"])


@given(
    st.sampled_from(["is", "is_not", "contains", "at_least", "at_most", "starts_with"]),
    values,
    attributes,
)
def test_matching_answers_whatever_a_customer_is_like(
    operator: str, value: str, given_attributes: dict[str, Attribute]
) -> None:
    try:
        rule = condition(operator, value)
    except ValidationError:
        return
    assert rule.matches(given_attributes) in (True, False)


# --- territories --------------------------------------------------------------------------------


def rule(territory: str, *conditions: tuple[str, str, str]) -> TerritoryRule:
    return TerritoryRule(
        territory=territory,
        conditions=tuple(
            Condition.model_validate({"attribute": name, "operator": operator, "value": value})
            for name, operator, value in conditions
        ),
    )


RULED = Policy(
    territory_rules=(
        rule("ter_big", ("region", "is", "east"), ("size", "at_least", "500")),
        rule("ter_east", ("region", "is", "east")),
        rule("ter_rest", ("region", "is_not", "east")),
    )
)


@pytest.mark.parametrize(
    ("explicit", "attributes", "territory"),
    [
        (None, {"region": "east", "size": 500}, "ter_big"),
        (None, {"region": "east", "size": 499}, "ter_east"),
        (None, {"region": "east"}, "ter_east"),
        (None, {"region": "west", "size": 900}, "ter_rest"),
        (None, {"size": 900}, None),
        ("ter_named", {"region": "east"}, "ter_named"),
    ],
)
def test_the_first_rule_whose_conditions_all_match_says_the_territory(
    explicit: str | None, attributes: dict[str, Attribute], territory: str | None
) -> None:
    assert RULED.territory_of(explicit, attributes) == territory


def test_the_attributes_that_rules_read_are_guarded() -> None:
    assert RULED.guarded_attributes == {"region", "size", "grade"}
    assert Policy().guarded_attributes == {"grade"}


def test_a_rule_without_conditions_is_refused() -> None:
    with pytest.raises(ValidationError):
        TerritoryRule(territory="ter_1", conditions=())


# --- policies as data ---------------------------------------------------------------------------


def test_the_defaults() -> None:
    """A change of a default changes what old policies mean that do not state it: never do it.

    What is added to one must be unknown to every version of the decider that has landed.
    """
    assert Policy().as_rules() == {
        "holding_limit": 999,
        "won_customers_count": True,
        "daily_claim_limit": 50,
        "cooldown_days": 3,
        "protection_days": 30,
        "claim_scope": "subtree",
        "claims_may_await": False,
        "claims_in_others_groups": "allow",
        "territory_rules": [],
        "guarded_changes_by": "head",
        "late_follow_up_days": 7,
        "approval_rules": [
            approval_rule("transfer", "same", ["head"]),
            approval_rule("transfer", "different", ["head", "head:receiving"]),
            approval_rule("transfer", "any", ["common_head"], KEY),
            approval_rule("transfer", "any", ["receiver"]),
            approval_rule("release", "any", ["head"], KEY),
            approval_rule("collaboration", "any", ["head"]),
            approval_rule("claim", "any", ["head:customer"]),
            approval_rule("claim", "different", ["head:receiving"]),
        ],
        "approval_deadlines": {"remind_days": 2, "pass_on_days": 4, "expire_days": 14},
        "collaborator_share_max": "50",
        "collaborators_max": 20,
        "stand_in_days_max": 92,
        "conflict_kinds": ["competing_claims", "follow_up", "deal", "group", "identifier"],
        "conflict_window_hours": 24,
        "conflicts_in_imports": False,
        "recycling": {
            "rules": [],
            "warnings": [
                {"days_before": 3, "to": ["owner"]},
                {"days_before": 1, "to": ["owner", "head"]},
            ],
            "days": "calendar",
            "token_follow_up_minutes": 10,
            "hold_days_max": 92,
        },
    }


KEY = [{"attribute": "grade", "operator": "is", "value": "key"}]


def approval_rule(
    purpose: str, territories: str, steps: list[str], conditions: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    approvers = [each.partition(":") for each in steps]
    return {
        "purposes": [purpose],
        "territories": territories,
        "conditions": conditions or [],
        "value_at_least": None,
        "steps": [
            {
                "approvers": [
                    {"kind": kind, "of": of or "releasing", "role": None, "person": None}
                ],
                "needed": "all",
            }
            for kind, _, of in approvers
        ],
    }


def test_a_policy_survives_its_json() -> None:
    policy = RULED.model_copy(update={"holding_limit": None, "daily_claim_limit": 0})
    assert Policy.model_validate(policy.as_rules()) == policy


@pytest.mark.parametrize(
    "fields",
    [
        {"holding_limit": -1},
        {"daily_claim_limit": "many"},
        {"cooldown_days": None},
        {"claim_scope": "nowhere"},
        {"guarded_changes_by": "nobody"},
        {"holdings_limit": 5},
        {"territory_rules": [{"territory": "ter_1", "conditions": [{"attribute": "a"}]}]},
        {"approval_rules": [{"steps": []}]},
        {"approval_rules": [{"steps": [{"approvers": []}]}]},
        {"approval_rules": [{"steps": [{"approvers": [{"kind": "anybody"}]}]}]},
        {"approval_rules": [{"steps": [{"approvers": [{"kind": "role"}]}]}]},
        {"approval_rules": [{"steps": [{"approvers": [{"kind": "head", "person": "per_1"}]}]}]},
        {"approval_rules": [{"steps": [{"approvers": [{"kind": "head"}], "needed": 2}]}]},
    ],
)
def test_a_policy_that_says_nothing_sensible_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate(fields)


def test_how_late_a_follow_up_may_come_is_bounded_by_what_is_remembered() -> None:
    assert Policy(late_follow_up_days=LATE_FOLLOW_UP_DAYS_MAX).late_follow_up_days == 92
    with pytest.raises(ValidationError):
        Policy(late_follow_up_days=LATE_FOLLOW_UP_DAYS_MAX + 1)


@pytest.mark.parametrize("period", ["cooldown_days", "protection_days", "late_follow_up_days"])
def test_periods_are_bounded(period: str) -> None:
    """A period of ten million days reached behind the year 9999, and every grant was parked."""
    with pytest.raises(ValidationError):
        Policy.model_validate({period: 10_000_000})


def test_an_import_waives_limits_and_keeps_territories() -> None:
    waived = without_limits(RULED)
    assert waived.territory_rules == RULED.territory_rules
    assert waived.guarded_attributes == RULED.guarded_attributes
    assert (waived.holding_limit, waived.daily_claim_limit) == (None, None)
    assert (waived.cooldown_days, waived.protection_days) == (0, 0)
    assert (waived.claim_scope, waived.guarded_changes_by) == ("everywhere", "anyone")
    assert RULED.holding_limit == 999
