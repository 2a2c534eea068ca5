"""The same identifier under two customers: specifications, by the stories that they tell."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest

from ledger import reasons
from ledger.conflicts import Conflict
from ledger.customer import Admitted
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import Identifier, Part
from tests.specs.story import START, Story
from tests.specs.test_conflicts import last
from tests.specs.test_ownership import NAME, claim, company, register

NUMBER = (Identifier("uscc", "91350100M000100Y43"),)
OTHER = (Identifier("uscc", "91110000802100433B"),)
TAKEN = d.RegistrationRefused("cus_2", reasons.IDENTIFIER_TAKEN, "cus_1", "uscc")
NOT_CHANGED = d.ChangeRefused("cus_2", reasons.IDENTIFIER_TAKEN, ("identifier:uscc",), "cus_1")


def owned(**rules: Any) -> Story:
    """A customer with a number that a owns."""
    story = company(
        **{"conflict_kinds": ["identifier"], "protection_days": 0, "cooldown_days": 0, **rules}
    )
    story.when(register(identifiers=NUMBER)).when(claim("per_a"), by="per_a")
    return story.later(hours=1)


def entered_again(story: Story, by: str = "per_b", **how: Any) -> Story:
    return story.when(register("cus_2", identifiers=NUMBER), by=by, **how)


def opened(story: Story, person: str = "per_b", asked: str = "per_head") -> d.ConflictOpened:
    position = last(story)
    parties = ("per_a", person)
    return d.ConflictOpened(
        "cus_1", f"cft_{position}", "identifier", parties, (position,), (asked,)
    )


def disputed() -> tuple[Story, str]:
    story = entered_again(owned())
    return story.then(TAKEN, opened(story)), f"cft_{last(story)}"


def conflicts_at(story: Story, customer: str = "cus_1") -> tuple[Conflict, ...]:
    found = story.settled.customers[customer]
    assert isinstance(found, Admitted)
    return found.conflicts


def gone(conflict: str, reason: str) -> d.ConflictClosed:
    return d.ConflictClosed("cus_1", conflict, "gone", reason)


# --- what opens one ----------------------------------------------------------------------------


def test_who_enters_anew_what_somebody_else_owns_is_after_the_same_customer() -> None:
    story, conflict = disputed()
    (found,) = conflicts_at(story)
    assert found.evidence[0].act == f"uscc:{NUMBER[0].key}"
    # Entered once more, it is proved further, and by somebody else.
    story.given(facts.PersonJoined("per_d", NAME, "ter_east"))
    story.when(register("cus_3", identifiers=NUMBER), by="per_d")
    story.then(
        d.RegistrationRefused("cus_3", reasons.IDENTIFIER_TAKEN, "cus_1", "uscc"),
        d.ConflictEvidenceAdded("cus_1", conflict, (last(story),), ("per_d",), ("per_head",)),
    )


def test_neither_the_owner_nor_who_does_not_sell_nor_a_head_above_is_a_rival() -> None:
    for person in ("per_a", "per_head", "per_admin"):
        entered_again(owned(), by=person).then(TAKEN)


def test_what_nobody_owns_is_in_nobodys_way() -> None:
    story = owned().when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    entered_again(story).then(TAKEN)


def test_an_identifier_that_is_free_or_another_refusal_opens_none() -> None:
    story = owned()
    story.when(register("cus_2", identifiers=OTHER), by="per_b")
    assert isinstance(story.decided, d.CustomerAdmitted)
    story.when(register("cus_2", identifiers=NUMBER), by="per_b")
    story.then(d.RegistrationRefused("cus_2", reasons.ALREADY_REGISTERED))
    change = r.CustomerChangeRequested("cus_2", closed=True)
    story.when(change, by="per_b").then(d.ChangeRefused("cus_2", reasons.NOT_OWNER, ("closed",)))


def test_a_customer_that_is_to_have_anothers_number_brings_its_owner_in() -> None:
    story = owned().when(register("cus_2")).when(claim("per_b", "cus_2"), by="per_b")
    story.when(r.CustomerChangeRequested("cus_2", identifiers=NUMBER))
    story.then(NOT_CHANGED, opened(story))


def test_a_free_one_brings_in_whoever_asked() -> None:
    story = owned().when(register("cus_2"))
    story.when(r.CustomerChangeRequested("cus_2", identifiers=NUMBER)).then(NOT_CHANGED)
    story.when(r.CustomerChangeRequested("cus_2", identifiers=NUMBER), by="per_b")
    story.then(NOT_CHANGED, opened(story))


def test_two_customers_of_one_owner_are_a_slip_whoever_makes_it() -> None:
    story = owned().when(register("cus_2")).when(claim("per_a", "cus_2"), by="per_a")
    for person in ("per_a", "per_b"):
        story.when(r.CustomerChangeRequested("cus_2", identifiers=NUMBER), by=person)
        story.then(NOT_CHANGED)


def test_a_policy_says_whether_it_is_one() -> None:
    entered_again(owned(conflict_kinds=["follow_up"])).then(TAKEN)


def test_version_1_knows_of_none() -> None:
    story = owned()
    story.version = 1
    entered_again(story).then(TAKEN)


def importing(story: Story, **rules: Any) -> Story:
    adopted = story.organisation.latest.policy.policy.as_rules() | rules
    return story.given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", adopted))


@pytest.mark.parametrize("said", [False, True])
@pytest.mark.parametrize("version", [2, 3])
def test_an_import_may_bring_it(version: int, said: bool) -> None:
    """It was told only where a policy sees all quarrels of an imported past."""
    story = importing(owned(), conflicts_in_imports=said)
    story.version = version
    entered_again(story, on=story.now, under="imp_1")
    story.then(*([TAKEN, opened(story)] if said or version == 3 else [TAKEN]))


def brought(story: Story, person: str = "per_b", on: datetime = START) -> Story:
    """Let an import bring the customer a second time, as that of ``person`` since long ago."""
    entered_again(story, by="per_admin", on=on, under="imp_1").then(TAKEN)
    return story.when(claim(person, "cus_2"), by=person, on=on, under="imp_1")


def lost(reason: str, person: str = "per_b") -> d.ClaimRefused:
    return d.ClaimRefused("cus_1", person, reason, "per_a")


def test_whose_it_is_in_an_import_and_whose_in_the_ledger_are_told_apart() -> None:
    """An import brought customers of other owners a second time, and nobody heard of it."""
    long_ago = START.replace(year=2025)
    story = brought(importing(owned()), on=long_ago)
    story.then(lost(reasons.HISTORY_OUT_OF_ORDER), opened(story))
    assert story.effective == START
    conflict = f"cft_{last(story)}"
    # What another row brings later is one more proof.
    story.when(claim("per_c", "cus_2"), by="per_c", on=story.now, under="imp_1").then(
        lost(reasons.OWNED_BY_ANOTHER, "per_c"),
        d.ConflictEvidenceAdded("cus_1", conflict, (last(story),), ("per_c",), ("per_boss",)),
    )
    # Whichever number it has by now: it will be the same customer for ever.
    story.when(r.CustomerChangeRequested("cus_1", identifiers=OTHER), by="per_a")
    story.then(d.CustomerChanged("cus_1", "ter_east"))
    rule(story, conflict, "keep", by="per_boss")
    assert conflicts_at(story) == ()


def test_an_import_that_says_the_same_of_it_brings_no_dispute() -> None:
    brought(importing(owned()), "per_a").then(lost(reasons.ALREADY_YOURS, "per_a"))


def test_nor_one_with_somebody_who_has_left_or_does_not_sell() -> None:
    story = importing(owned()).given(facts.PersonLeft("per_b", date(2026, 3, 1)))
    early = START - timedelta(days=9)
    brought(story, on=early).then(lost(reasons.HISTORY_OUT_OF_ORDER))
    brought(importing(owned()), "per_head").then(lost(reasons.OWNED_BY_ANOTHER, "per_head"))


def test_nor_does_a_row_about_the_customer_itself() -> None:
    story = importing(owned())
    story.when(claim("per_b"), by="per_b", on=START, under="imp_1")
    story.then(lost(reasons.OWNED_BY_ANOTHER))


def test_version_2_tells_nobody_of_what_an_import_claims_twice() -> None:
    story = importing(owned())
    story.version = 2
    brought(story).then(lost(reasons.OWNED_BY_ANOTHER))


def test_a_row_that_is_older_than_what_the_customer_saw_brings_nothing_there() -> None:
    story = owned().later(days=1)
    rules = story.organisation.latest.policy.policy.as_rules() | {"conflicts_in_imports": True}
    story.given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", rules))
    early = START.replace(year=2025)
    entered_again(story, on=early, under="imp_1").then(TAKEN)
    assert story.effective == early


def test_it_holds_no_earlier_than_what_the_customer_saw_last() -> None:
    story = owned().later(hours=5)
    story.when(r.FollowUpLogged("cus_1", "fol_1", "per_a", "call"), by="per_a")
    seen = story.now
    story.later(hours=-2)
    entered_again(story)
    story.then(TAKEN, opened(story))
    assert story.effective == seen


# --- how it ends -------------------------------------------------------------------------------


def rule(story: Story, conflict: str, what: str, by: str = "per_head", **terms: Any) -> Story:
    return story.when(r.RulingGiven("cus_1", conflict, what, "first", **terms), by=by)


def test_awarded_the_customer_goes_to_who_entered_it_again() -> None:
    rules = [{"purposes": ["transfer"], "steps": [{"approvers": [{"kind": "head"}]}]}]
    story = entered_again(owned(approval_rules=rules))
    rule(story, f"cft_{last(story)}", "award", receiver="per_b")
    found = story.settled.customers["cus_1"]
    assert isinstance(found, Admitted)
    assert (found.owner, found.conflicts) == ("per_b", ())


def test_split_they_share_it_and_allowed_they_are_asked_once() -> None:
    story, conflict = disputed()
    rule(story, conflict, "split", parts=(Part("per_b"),))
    assert isinstance(story.settled.customers["cus_1"], Admitted)
    assert [each.person for each in story.settled.customers["cus_1"].collaborations] == ["per_b"]
    story, conflict = disputed()
    rule(story, conflict, "allow")
    story.when(register("cus_3", identifiers=NUMBER), by="per_b")
    story.then(d.RegistrationRefused("cus_3", reasons.IDENTIFIER_TAKEN, "cus_1", "uscc"))


def test_with_the_owner_or_the_identifier_its_cause_is_gone() -> None:
    story, conflict = disputed()
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    assert story.draft is not None
    assert story.draft.more == (gone(conflict, reasons.OWNERSHIP_CHANGED),)
    story, conflict = disputed()
    for change, more in (
        (r.CustomerChangeRequested("cus_1", attributes={"size": "large"}), ()),
        (r.CustomerChangeRequested("cus_1", identifiers=NUMBER), ()),
        (
            r.CustomerChangeRequested("cus_1", identifiers=OTHER),
            (gone(conflict, reasons.IDENTIFIER_GIVEN_UP),),
        ),
    ):
        story.when(change, by="per_a").then(d.CustomerChanged("cus_1", "ter_east"), *more)


def test_that_they_collaborate_by_now_does_not_settle_whose_it_is() -> None:
    story, conflict = disputed()
    story.when(r.CollaborationRequested("cus_1", "col_1", "per_b", "support", "help"), by="per_a")
    assert [each.conflict for each in conflicts_at(story)] == [conflict]
