"""Who owns a customer: specifications of the decider, by the stories that they tell."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from ledger import reasons
from ledger.deciders import decider
from ledger.deciders.ownership import GROUP_DEPTH_MAX
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import Attribute, Contact, Identifier, Money, Sealed
from ledger.policy import Policy
from ledger.settled import NotLoadedError, Settled
from tests.specs.story import START, Story

NAME = Sealed("key", "text")
RULES = [
    {
        "territory": "ter_east",
        "conditions": [{"attribute": "region", "operator": "is", "value": "east"}],
    },
    {
        "territory": "ter_west",
        "conditions": [{"attribute": "region", "operator": "is", "value": "west"}],
    },
]


def policy(**rules: Any) -> Policy:
    # What is decided beside it where two parties meet, test_conflicts.py tells.
    return Policy.model_validate({"territory_rules": RULES, "conflict_kinds": [], **rules})


def company(**rules: Any) -> Story:
    """A company of two territories: reps a and b in the east, c in the west, heads, a boss."""
    people = [
        ("per_admin", None, ("admin",)),
        ("per_boss", "ter_all", ("manager",)),
        ("per_head", "ter_east", ("manager",)),
        ("per_deputy", "ter_east", ("manager",)),
        ("per_a", "ter_east", ("rep",)),
        ("per_b", "ter_east", ("rep",)),
        ("per_c", "ter_west", ("rep",)),
    ]
    return Story().given(
        facts.OrganisationFounded("公司", "Asia/Shanghai"),
        *(facts.PersonJoined(person, NAME, home, roles) for person, home, roles in people),
        facts.TerritoryDefined("ter_all", "全国", None, "per_boss"),
        facts.TerritoryDefined("ter_east", "华东", "ter_all", "per_head", ("per_deputy",)),
        facts.TerritoryDefined("ter_west", "华西", "ter_all", None),
        facts.PolicyAdopted(1, policy(**rules).as_rules()),
    )


def register(customer: str = "cus_1", region: str | None = "east", **fields: Any) -> Any:
    attributes: dict[str, Attribute] = {} if region is None else {"region": region}
    return r.RegistrationRequested(
        customer, "organisation", "客户", attributes=attributes, **fields
    )


def claim(person: str, customer: str = "cus_1") -> r.ClaimFiled:
    return r.ClaimFiled(customer, person)


def granted(story: Story, owner: str, customer: str = "cus_1", **fields: Any) -> Story:
    decided = story.decided
    assert isinstance(decided, d.OwnershipGranted), decided
    assert (decided.owner, decided.customer) == (owner, customer)
    for name, value in fields.items():
        assert getattr(decided, name) == value
    return story


def refused(story: Story, reason: str, **fields: Any) -> Story:
    decided: Any = story.decided
    assert decided.reason == reason, decided
    for name, value in fields.items():
        assert getattr(decided, name) == value
    return story


# --- registration -------------------------------------------------------------------------------


def test_a_new_customer_comes_into_the_pool_of_its_territory() -> None:
    company().when(register()).then(d.CustomerAdmitted("cus_1", "organisation", START, "ter_east"))


def test_a_customer_that_no_rule_matches_has_no_territory() -> None:
    company().when(register(region=None)).then(d.CustomerAdmitted("cus_1", "organisation", START))


def test_a_named_territory_beats_the_rules() -> None:
    story = company().when(register(territory="ter_west"))
    assert isinstance(story.decided, d.CustomerAdmitted)
    assert story.decided.territory == "ter_west"


def test_an_identifier_is_had_once_and_the_claim_goes_to_the_existing_customer() -> None:
    number = (Identifier("uscc", "91350100M000100Y43"),)
    story = company().when(register(identifiers=number))
    story.when(register("cus_2", identifiers=number)).then(
        d.RegistrationRefused("cus_2", reasons.IDENTIFIER_TAKEN, "cus_1", "uscc")
    )
    granted(story.when(claim("per_a", "cus_2")), "per_a", "cus_1")


def test_the_same_customer_is_not_registered_twice() -> None:
    story = company().when(register())
    refused(story.when(register()), reasons.ALREADY_REGISTERED)
    granted(story.when(claim("per_a")), "per_a")


def test_a_parent_must_be_in_the_ledger() -> None:
    story = company()
    refused(story.when(register(parent="cus_none")), reasons.PARENT_UNKNOWN)
    refused(story.when(claim("per_a")), reasons.CUSTOMER_NOT_ADMITTED, owner=None)
    story.when(register("cus_2")).when(register("cus_3", parent="cus_2"))
    assert isinstance(story.decided, d.CustomerAdmitted)


# --- claims -------------------------------------------------------------------------------------


def test_the_first_claim_is_granted_and_protected() -> None:
    story = company().when(register()).when(claim("per_a"))
    granted(
        story,
        "per_a",
        owner_territory="ter_east",
        customer_territory="ter_east",
        protected_until=START + timedelta(days=30),
        limits_waived=(),
    )


def test_without_protection_nobody_is_protected() -> None:
    story = company(protection_days=0).when(register()).when(claim("per_a"))
    granted(story, "per_a", protected_until=None)


def test_an_owned_customer_is_refused_to_others_and_to_its_owner() -> None:
    story = company().when(register()).when(claim("per_a"))
    refused(story.when(claim("per_b")), reasons.OWNED_BY_ANOTHER, owner="per_a")
    refused(story.when(claim("per_a")), reasons.ALREADY_YOURS, owner="per_a")


def test_nobody_claims_what_was_never_registered() -> None:
    refused(company().when(claim("per_a")), reasons.CUSTOMER_NOT_ADMITTED)


def test_a_stranger_claims_nothing() -> None:
    story = company().when(register())
    refused(story.when(claim("per_stranger")), reasons.CLAIMANT_UNKNOWN)


def test_a_closed_customer_is_claimed_by_nobody() -> None:
    story = company().when(register())
    story.when(r.CustomerChangeRequested("cus_1", closed=True), by="per_head")
    refused(story.when(claim("per_a")), reasons.CUSTOMER_CLOSED)


def test_who_left_claims_nothing_from_that_day_on() -> None:
    story = company().when(register()).given(facts.PersonLeft("per_a", date(2026, 3, 3)))
    later = company().when(register()).given(facts.PersonLeft("per_a", date(2026, 3, 3)))
    granted(story.when(claim("per_a")), "per_a")
    # 16:00 UTC is midnight in Shanghai: the third of March has begun there.
    later.now = datetime(2026, 3, 2, 16, 0, tzinfo=UTC)
    refused(later.when(claim("per_a")), reasons.CLAIMANT_LEFT)


@pytest.mark.parametrize(
    ("scope", "person", "region", "allowed"),
    [
        ("own_territory", "per_a", "east", True),
        ("own_territory", "per_boss", "east", False),
        ("subtree", "per_boss", "east", True),
        ("subtree", "per_c", "east", False),
        ("everywhere", "per_c", "east", True),
        ("own_territory", "per_c", None, True),
    ],
)
def test_where_somebody_may_claim(
    scope: str, person: str, region: str | None, allowed: bool
) -> None:
    story = company(claim_scope=scope).when(register(region=region)).when(claim(person))
    if allowed:
        granted(story, person)
    else:
        refused(story, reasons.OUTSIDE_TERRITORY)


def test_the_holding_limit_holds() -> None:
    story = company(holding_limit=1)
    story.when(register("cus_1")).when(register("cus_2"))
    granted(story.when(claim("per_a", "cus_1")), "per_a", "cus_1")
    refused(story.when(claim("per_a", "cus_2")), reasons.HOLDING_LIMIT)
    story.when(r.ReleaseRequested("cus_1", "done"), by="per_a")
    granted(story.when(claim("per_a", "cus_2")), "per_a", "cus_2")


def test_customers_won_may_be_left_out_of_the_holding_limit() -> None:
    story = company(holding_limit=1, won_customers_count=False)
    story.when(register("cus_1")).when(register("cus_2")).when(claim("per_a", "cus_1"))
    refused(story.when(claim("per_a", "cus_2")), reasons.HOLDING_LIMIT)
    story.when(r.DealRecorded("cus_1", "dea_1", "per_a", "won"), by="per_a")
    granted(story.when(claim("per_a", "cus_2")), "per_a", "cus_2")
    # Without the deal the customer counts again: two are held, and no third may be.
    story.when(r.DealVoided("cus_1", "dea_1", "double"), by="per_a")
    story.when(register("cus_3"))
    refused(story.when(claim("per_a", "cus_3")), reasons.HOLDING_LIMIT)


def test_claiming_and_releasing_does_not_get_round_the_daily_limit() -> None:
    """A limit that counts customers held now is bypassed by giving each back at once."""
    story = company(daily_claim_limit=2)
    for number in (1, 2):
        story.when(register(f"cus_{number}")).when(claim("per_a", f"cus_{number}"))
        story.when(r.ReleaseRequested(f"cus_{number}", "done"), by="per_a")
    story.when(register("cus_3"))
    midnight = datetime(2026, 3, 2, 16, 0, tzinfo=UTC)
    refused(story.when(claim("per_a", "cus_3")), reasons.DAILY_LIMIT, retry_at=midnight)
    story.now = midnight
    granted(story.when(claim("per_a", "cus_3")), "per_a", "cus_3")


def test_a_former_owner_waits_even_if_others_owned_it_in_between() -> None:
    story = company(cooldown_days=3).when(register()).when(claim("per_a"))
    story.when(r.ReleaseRequested("cus_1", "done"), by="per_a")
    story.later(hours=1).when(claim("per_b"))
    story.when(r.ReleaseRequested("cus_1", "done"), by="per_b")
    ends = START + timedelta(days=3)
    refused(story.when(claim("per_a")), reasons.COOLDOWN, retry_at=ends)
    story.now = ends
    granted(story.when(claim("per_a")), "per_a")


def test_without_a_cooldown_a_former_owner_may_come_back_at_once() -> None:
    story = company(cooldown_days=0).when(register()).when(claim("per_a"))
    story.when(r.ReleaseRequested("cus_1", "done"), by="per_a")
    granted(story.when(claim("per_a")), "per_a")


# --- assignments and releases -------------------------------------------------------------------


def assign(to: str = "per_a") -> r.AssignmentRequested:
    return r.AssignmentRequested("cus_1", to)


def test_a_manager_assigns_within_the_own_territory() -> None:
    story = company().when(register()).when(assign(), by="per_head")
    assert isinstance(story.decided, d.OwnershipAssigned)
    assert (story.decided.owner, story.decided.assigned_by) == ("per_a", "per_head")


def test_what_stands_in_the_way_of_an_assignment() -> None:
    refused(company().when(assign(), by="per_head"), reasons.CUSTOMER_NOT_ADMITTED)
    story = company(holding_limit=0).when(register())
    refused(story.when(assign("per_stranger"), by="per_head"), reasons.CLAIMANT_UNKNOWN)
    refused(story.when(assign(), by="per_b"), reasons.NOT_MANAGER)
    refused(story.when(assign("per_c"), by="per_head"), reasons.OUTSIDE_TERRITORY)
    refused(story.when(assign(), by="per_head"), reasons.HOLDING_LIMIT)
    refused(story.when(assign(), by="per_admin"), reasons.HOLDING_LIMIT)
    story.given(facts.PersonLeft("per_a", date(2026, 3, 1)))
    refused(story.when(assign(), by="per_head"), reasons.CLAIMANT_LEFT)
    story.when(r.CustomerChangeRequested("cus_1", closed=True), by="per_head")
    refused(story.when(assign("per_b"), by="per_head"), reasons.CUSTOMER_CLOSED)


def test_only_a_free_customer_is_assigned() -> None:
    story = company().when(register()).when(claim("per_a"))
    refused(story.when(assign("per_b"), by="per_head"), reasons.OWNED_BY_ANOTHER, owner="per_a")
    refused(story.when(assign("per_a"), by="per_head"), reasons.ALREADY_YOURS)


def test_an_administrator_assigns_anywhere() -> None:
    story = company().when(register(region=None)).when(assign("per_c"), by="per_admin")
    assert isinstance(story.decided, d.OwnershipAssigned)


@pytest.mark.parametrize("by", ["per_a", "per_head", "per_deputy", "per_boss", "per_admin"])
def test_the_owner_and_those_above_give_a_customer_back(by: str) -> None:
    story = company().when(register()).when(claim("per_a"))
    story.when(r.ReleaseRequested("cus_1", "done"), by=by).then(
        d.OwnershipReleased("cus_1", "per_a", "done", "ter_east")
    )


def test_nobody_else_gives_a_customer_back() -> None:
    story = company().when(register()).when(claim("per_a"))
    refused(story.when(r.ReleaseRequested("cus_1", "x"), by="per_b"), reasons.NOT_OWNER)
    free = company().when(register())
    refused(free.when(r.ReleaseRequested("cus_1", "x"), by="per_head"), reasons.NOT_OWNER)
    none = company().when(r.ReleaseRequested("cus_1", "x"), by="per_a")
    refused(none, reasons.CUSTOMER_NOT_ADMITTED)


def test_the_owners_manager_gives_a_customer_of_no_territory_back() -> None:
    story = company().when(register(region=None)).when(claim("per_a"))
    story.when(r.ReleaseRequested("cus_1", "done"), by="per_head")
    assert isinstance(story.decided, d.OwnershipReleased)


# --- changes ------------------------------------------------------------------------------------


def change(**fields: Any) -> r.CustomerChangeRequested:
    return r.CustomerChangeRequested("cus_1", **fields)


def test_what_the_policy_does_not_read_anybody_changes() -> None:
    story = company().when(register()).when(change(attributes={"size": "large"}), by="per_b")
    story.then(d.CustomerChanged("cus_1", "ter_east"))


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": {"region": "west"}},
        {"territory": "ter_west"},
        {"removed": ("attribute:region",)},
    ],
)
def test_what_the_policy_reads_only_the_head_changes(fields: dict[str, Any]) -> None:
    for by in ("per_a", "per_deputy"):
        story = company().when(register()).when(change(**fields), by=by)
        refused(story, reasons.NOT_HEAD)
    for by in ("per_head", "per_boss", "per_admin"):
        story = company().when(register()).when(change(**fields), by=by)
        assert isinstance(story.decided, d.CustomerChanged)
        expected = None if "removed" in fields else "ter_west"
        assert story.decided.territory == expected


def test_saying_again_what_is_so_changes_nothing_that_is_guarded() -> None:
    story = company().when(register()).when(change(attributes={"region": "east"}), by="per_a")
    assert isinstance(story.decided, d.CustomerChanged)


def test_the_policy_may_let_managers_or_anybody_change_it() -> None:
    west = change(attributes={"region": "west"})
    story = company(guarded_changes_by="manager").when(register())
    refused(story.when(west, by="per_a"), reasons.NOT_HEAD)
    story.when(west, by="per_deputy").then(d.CustomerChanged("cus_1", "ter_west"))
    company(guarded_changes_by="anyone").when(register()).when(west, by="per_a").then(
        d.CustomerChanged("cus_1", "ter_west")
    )


def test_where_there_is_no_territory_any_manager_sets_it() -> None:
    story = company().when(register(region=None))
    refused(story.when(change(territory="ter_west"), by="per_a"), reasons.NOT_HEAD)
    story.when(change(territory="ter_west"), by="per_head").then(
        d.CustomerChanged("cus_1", "ter_west")
    )
    story.when(change(removed=("territory",)), by="per_boss").then(d.CustomerChanged("cus_1"))


def test_only_owner_and_managers_close_a_customer() -> None:
    story = company().when(register())
    refused(story.when(change(closed=True), by="per_a"), reasons.NOT_OWNER, fields=("closed",))
    story.when(claim("per_a")).when(change(closed=True), by="per_a")
    assert isinstance(story.decided, d.CustomerChanged)
    story.when(change(closed=False), by="per_head")
    assert isinstance(story.decided, d.CustomerChanged)


def test_an_identifier_moves_only_to_whom_nobody_has_it() -> None:
    number = (Identifier("uscc", "91350100M000100Y43"),)
    story = company().when(register(identifiers=number)).when(register("cus_2"))
    taken = r.CustomerChangeRequested("cus_2", identifiers=number)
    refused(story.when(taken), reasons.IDENTIFIER_TAKEN, existing="cus_1")
    story.when(change(identifiers=number)).then(d.CustomerChanged("cus_1", "ter_east"))
    story.when(change(removed=("identifier:uscc",)))
    story.when(taken).then(d.CustomerChanged("cus_2", "ter_east"))


def test_a_group_has_no_circle_and_no_strangers() -> None:
    story = company().when(register("cus_1")).when(register("cus_2", parent="cus_1"))
    refused(story.when(change(parent="cus_2")), reasons.GROUP_CYCLE, fields=("parent",))
    refused(story.when(change(parent="cus_1")), reasons.GROUP_CYCLE)
    refused(story.when(change(parent="cus_none")), reasons.PARENT_UNKNOWN)
    story.when(r.CustomerChangeRequested("cus_2", removed=("parent",)))
    story.when(change(parent="cus_2")).then(d.CustomerChanged("cus_1", "ter_east", "cus_2"))
    # What a change does not speak of stays, and is stated again.
    story.when(change(attributes={"size": "large"}), by="per_b")
    story.then(d.CustomerChanged("cus_1", "ter_east", "cus_2"))
    story.when(change(parent="cus_2", removed=("parent",)))
    story.then(d.CustomerChanged("cus_1", "ter_east"))


def chain(version: int, length: int) -> Story:
    """A chain of customers ``cus_2``, ``cus_3``, each the parent of the next, and ``cus_1``."""
    story = company().when(register("cus_1"))
    story.version = version
    for number in range(2, length + 2):
        parent = f"cus_{number - 1}" if number > 2 else None
        story.when(register(f"cus_{number}", parent=parent))
    return story


def test_a_group_is_not_endlessly_deep() -> None:
    """A change said that the customer would be its own parent, a registration nothing at all."""
    story = chain(3, GROUP_DEPTH_MAX)
    assert isinstance(story.decided, d.CustomerAdmitted)
    last = f"cus_{GROUP_DEPTH_MAX + 1}"
    refused(story.when(register("cus_x", parent=last)), reasons.GROUP_TOO_DEEP, existing=None)
    refused(story.when(change(parent=last)), reasons.GROUP_TOO_DEEP, fields=("parent",))
    story.when(change(parent=f"cus_{GROUP_DEPTH_MAX}"))
    assert isinstance(story.decided, d.CustomerChanged)


def test_version_2_lets_registrations_nest_groups_deeper_than_changes_may() -> None:
    story = chain(2, 38)
    assert isinstance(story.decided, d.CustomerAdmitted)
    refused(story.when(change(parent="cus_39")), reasons.GROUP_CYCLE)


def test_what_was_never_admitted_is_not_changed() -> None:
    refused(company().when(change(name="x")), reasons.CUSTOMER_NOT_ADMITTED)


# --- follow-ups, deals, corrections -------------------------------------------------------------


def follow_up(person: str) -> r.FollowUpLogged:
    return r.FollowUpLogged("cus_1", f"fol_{person}", person, "call")


def deal(person: str, outcome: str = "won") -> r.DealRecorded:
    return r.DealRecorded("cus_1", f"dea_{person}", person, outcome, Money(5, "CNY"))  # type: ignore[arg-type]  # any number


def test_a_follow_up_and_a_deal_are_noted_and_whose_they_were() -> None:
    story = company().when(register()).when(claim("per_a"))
    story.when(follow_up("per_a")).then(d.Noted("cus_1", None, "per_a"))
    story.when(follow_up("per_b")).then(d.Noted("cus_1", reasons.FOLLOW_UP_BY_NON_OWNER, "per_a"))
    story.when(deal("per_a")).then(d.Noted("cus_1", None, "per_a"))
    story.when(deal("per_c")).then(d.Noted("cus_1", reasons.DEAL_BY_NON_OWNER, "per_a"))


def test_a_follow_up_at_an_unknown_customer_is_noted_as_such() -> None:
    company().when(follow_up("per_a")).then(d.Noted("cus_1", reasons.CUSTOMER_NOT_ADMITTED))


# --- contacts -----------------------------------------------------------------------------------


def at_contact(contact: str, person: str = "per_a", customer: str = "cus_1") -> r.FollowUpLogged:
    return r.FollowUpLogged(customer, f"fol_{contact}", person, "call", contact=contact)


def test_a_follow_up_names_a_contact_of_its_customer() -> None:
    """Any word was taken for a contact, and a contact of one customer at every other.

    A person's words were so kept under the key of somebody else, or of nobody.
    """
    story = company().when(register(contacts=(Contact("con_1"),))).when(claim("per_a"))
    story.when(register("cus_2", contacts=(Contact("con_2"),)))
    story.when(at_contact("con_1")).then(d.Noted("cus_1", None, "per_a"))
    for contact in ("con_2", "con_none"):
        story.when(at_contact(contact))
        story.then(d.Noted("cus_1", reasons.CONTACT_UNKNOWN, "per_a"))
        assert story.settled.acts[f"fol_{contact}"] is not None


def test_contacts_come_and_go_with_changes_that_hold() -> None:
    number = (Identifier("uscc", "91350100M000100Y43"),)
    story = company().when(register(contacts=(Contact("con_1"),))).when(claim("per_a"))
    story.when(register("cus_2", identifiers=number))
    refused(
        story.when(change(contacts=(Contact("con_2"),), identifiers=number)),
        reasons.IDENTIFIER_TAKEN,
    )
    story.when(at_contact("con_2")).then(d.Noted("cus_1", reasons.CONTACT_UNKNOWN, "per_a"))
    story.when(change(contacts=(Contact("con_2"),), removed=("contact:con_1",)))
    story.when(at_contact("con_2")).then(d.Noted("cus_1", None, "per_a"))
    story.when(at_contact("con_1")).then(d.Noted("cus_1", reasons.CONTACT_UNKNOWN, "per_a"))


def test_whose_a_follow_up_was_comes_before_whom_it_names() -> None:
    story = company().when(at_contact("con_1"))
    story.then(d.Noted("cus_1", reasons.CUSTOMER_NOT_ADMITTED))
    story.when(register()).when(claim("per_a")).when(at_contact("con_1", "per_b"))
    story.then(d.Noted("cus_1", reasons.FOLLOW_UP_BY_NON_OWNER, "per_a"))


# --- corrections --------------------------------------------------------------------------------


def correct(by_reason: str = "typo", **fields: Any) -> r.FollowUpCorrected:
    return r.FollowUpCorrected("cus_1", "fol_per_a", by_reason, **fields)


@pytest.mark.parametrize("by", ["per_a", "per_head", "per_admin"])
def test_who_recorded_it_and_those_above_correct_it(by: str) -> None:
    story = company().when(register()).when(follow_up("per_a"), by="per_a")
    story.when(correct(channel="visit"), by=by).then(d.Noted("cus_1"))


def test_the_customers_manager_corrects_what_a_stranger_recorded() -> None:
    story = company().when(register()).when(follow_up("per_c"), by="per_c")
    mend = r.FollowUpVoided("cus_1", "fol_per_c", "double")
    refused(story.when(mend, by="per_b"), reasons.NOT_YOURS)
    story.when(mend, by="per_head").then(d.Noted("cus_1"))
    refused(story.when(mend, by="per_head"), reasons.ACT_VOIDED)


def test_what_was_never_recorded_is_not_corrected() -> None:
    story = company().when(register()).when(follow_up("per_a"), by="per_a")
    wrong_kind = r.DealCorrected("cus_1", "fol_per_a", "typo")
    refused(story.when(wrong_kind, by="per_a"), reasons.UNKNOWN_ACT)
    refused(story.when(r.DealVoided("cus_1", "dea_none", "x")), reasons.UNKNOWN_ACT)
    elsewhere = r.FollowUpVoided("cus_2", "fol_per_a", "x")
    refused(story.when(register("cus_2")).when(elsewhere), reasons.UNKNOWN_ACT)


def test_a_deal_corrected_to_lost_counts_no_more_as_won() -> None:
    story = company(won_customers_count=False).when(register()).when(claim("per_a"))
    story.when(deal("per_a"), by="per_a")
    assert story.settled.holdings["per_a"].held_won == 1
    story.when(r.DealCorrected("cus_1", "dea_per_a", "typo", outcome="lost"), by="per_a")
    assert story.settled.holdings["per_a"].held_won == 0


def test_a_deal_recorded_twice_counts_once() -> None:
    story = company().when(register()).when(claim("per_a")).when(deal("per_a"))
    story.when(deal("per_a"))
    assert story.settled.acts["dea_per_a"] is not None
    assert story.settled.customers["cus_1"].won_deals == 1  # type: ignore[union-attr]  # it is admitted


def test_unparking_is_noted() -> None:
    company().when(register()).when(r.RequestUnparked("cus_1", 1, 1)).then(d.Noted("cus_1"))


# --- imports ------------------------------------------------------------------------------------

LONG_AGO = datetime(2020, 5, 1, tzinfo=UTC)


def opened(**rules: Any) -> Story:
    """An import without limits, unless ``rules`` of the company say otherwise."""
    free = Policy.model_validate(
        {
            "territory_rules": RULES,
            "holding_limit": None,
            "daily_claim_limit": None,
            "cooldown_days": 0,
            "protection_days": 0,
            "claim_scope": "everywhere",
        }
    )
    return company(**rules).given(
        facts.ImportOpened("imp_1", "crm", "Asia/Shanghai", free.as_rules())
    )


def test_imported_rows_hold_when_they_happened() -> None:
    story = opened().when(register(), on=LONG_AGO, under="imp_1")
    assert isinstance(story.decided, d.CustomerAdmitted)
    assert story.decided.known_from == LONG_AGO
    day = LONG_AGO + timedelta(days=1)
    granted(story.when(claim("per_a"), on=day, under="imp_1"), "per_a", protected_until=None)
    assert story.effective == day


def test_what_a_live_caller_says_of_the_time_counts_for_nothing() -> None:
    story = company().when(register(), on=LONG_AGO)
    assert story.effective == START


def test_after_an_import_was_closed_its_rows_are_live() -> None:
    story = opened().given(facts.ImportClosed("imp_1")).when(register(), on=LONG_AGO, under="imp_1")
    assert story.effective == START


def test_an_imported_grant_says_which_of_todays_limits_it_passed_over() -> None:
    story = opened(holding_limit=0, daily_claim_limit=0)
    story.when(register(), on=LONG_AGO, under="imp_1")
    granted(
        story.when(claim("per_c"), on=LONG_AGO, under="imp_1"),
        "per_c",
        limits_waived=(reasons.OUTSIDE_TERRITORY, reasons.HOLDING_LIMIT, reasons.DAILY_LIMIT),
    )


def test_history_does_not_go_back_within_a_customer() -> None:
    story = opened().when(register(), on=LONG_AGO, under="imp_1")
    story.when(claim("per_a"), on=LONG_AGO + timedelta(days=9), under="imp_1")
    before = LONG_AGO + timedelta(days=8)
    late = reasons.HISTORY_OUT_OF_ORDER

    def file(request: Any) -> Story:
        return story.when(request, by="per_admin", on=before, under="imp_1")

    refused(file(claim("per_b")), late)
    refused(file(r.ReleaseRequested("cus_1", "x")), late)
    refused(file(assign("per_b")), late)
    refused(file(change(attributes={"size": "large"})), late)
    file(deal("per_a")).then(d.Noted("cus_1", late, "per_a"))
    assert story.effective == LONG_AGO + timedelta(days=9)


# --- what it needs ------------------------------------------------------------------------------


def test_a_guard_that_was_not_loaded_is_asked_for() -> None:
    story = company().when(register())
    partial = Settled(customers=dict(story.settled.customers))
    story.settled = partial
    with pytest.raises(NotLoadedError) as missing:
        story.when(claim("per_a"))
    assert missing.value.key == ("holdings", "per_a")


def test_a_fact_is_no_request() -> None:
    story = company()
    event = story._event("customer-cus_1", register())
    broken = replace_data(event, d.Noted("cus_1"))
    with pytest.raises(AssertionError):
        decider(1)(story.settled, broken, story.organisation.latest)


def replace_data(event: Any, data: Any) -> Any:
    return event._replace(data=data)


def test_every_reason_has_its_sentence() -> None:
    codes = {
        value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)
    }
    assert codes == set(reasons.SENTENCES)
