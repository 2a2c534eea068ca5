"""What comes as JSON is taken as it is written, and not as what it may have been meant to be."""

from __future__ import annotations

from typing import Any

import pytest

from ledger import commands
from ledger import organisation_commands as facts
from ledger.commands import Command, InvalidRequestError, parse
from ledger.policy import Policy

CUSTOMER = {"customer": "cus_1"}
PERIOD = {"person": "per_a", "from_day": "2026-03-01", "until_day": "2026-03-02"}


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (commands.ChangeCustomer, {**CUSTOMER, "closed": "true"}),
        (commands.ChangeCustomer, {**CUSTOMER, "closed": 1}),
        (commands.RegisterCustomer, {"name": "华星", "opening": "yes"}),
        (facts.RequireFourEyes, {"required": "on"}),
        (commands.HoldRecycling, {**CUSTOMER, "until": 1_772_323_200}),
        (commands.HoldRecycling, {**CUSTOMER, "until": "1772323200"}),
        (commands.HoldRecycling, {**CUSTOMER, "until": "2026-03-01T00:00:00Z"}),
        (facts.MarkAway, {**PERIOD, "from_day": 1_728_000_000}),
        (facts.EndAbsence, {"person": "per_a", "back_on": "1728000000"}),
        (facts.StateCalendar, {"year": "2026"}),
        (facts.StateCalendar, {"year": 2026, "holidays": [1_767_225_600]}),
        (facts.AdoptPolicy, {"policy": {"cooldown_days": "3"}}),
        (facts.AdoptPolicy, {"policy": {"claims_may_await": "no"}}),
        (commands.CorrectFollowUp, {**CUSTOMER, "follow_up": "fol_1", "at": 1_772_323_200}),
        (commands.CorrectFollowUp, {**CUSTOMER, "follow_up": "fol_1", "at": "1772323200"}),
    ],
)
def test_what_is_of_another_kind_is_refused(kind: type[Command], given: dict[str, Any]) -> None:
    """pydantic took "true" and 1 for a truth, and a number for a day or a moment."""
    with pytest.raises(InvalidRequestError):
        parse(kind, given)


def test_what_is_as_it_is_written_is_taken() -> None:
    held = parse(commands.HoldRecycling, {**CUSTOMER, "until": "2026-03-01"})
    assert held.until.isoformat() == "2026-03-01"
    at = {"follow_up": "fol_1", "at": "2026-03-01T09:30:00+08:00"}
    assert parse(commands.CorrectFollowUp, CUSTOMER | at).at is not None
    assert parse(commands.ChangeCustomer, {**CUSTOMER, "closed": True}).closed is True
    assert Policy.model_validate(Policy().as_rules()) == Policy()
