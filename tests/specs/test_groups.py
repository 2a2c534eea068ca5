"""Members of one group under different owners: specifications, by the stories that they tell."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ledger import deadlines, groups, reasons
from ledger.conflicts import EVIDENCE_MAX, PARTIES_MAX, Conflict
from ledger.customer import Admitted
from ledger.deadlines import Deadline
from ledger.deciders import LATEST, decider
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import Part
from ledger.groups import Group
from ledger.policy import Policy
from ledger.settled import NotLoadedError, Settled
from ledger.store.guards import _put, state_of
from tests.specs.story import START, Story
from tests.specs.test_conflicts import last
from tests.specs.test_ownership import NAME, claim, company, register

ROOT = "cus_root"


def group(**rules: Any) -> Story:
    """A root with branches 1 to 4 of the east, and 11 below 1; nobody owns any of them."""
    story = company(
        **{"protection_days": 0, "cooldown_days": 0, "conflict_kinds": ["group"], **rules}
    )
    story.when(register(ROOT))
    for number in (1, 2, 3, 4):
        story.when(register(f"cus_{number}", parent=ROOT))
    return story.when(register("cus_11", parent="cus_1")).later(hours=1)


def claimed(story: Story, **owners: str) -> Story:
    """Let members be claimed: ``claimed(story, cus_1="per_a")``."""
    for customer, person in owners.items():
        story.when(claim(person, customer), by=person)
    return story


def split(**rules: Any) -> tuple[Story, str]:
    """A group of a and b, and the conflict that has arisen."""
    story = claimed(group(**rules), cus_1="per_a", cus_2="per_b")
    story.then(grant("per_b", "cus_2"), opened(story, "per_a", "per_b"))
    return story, name_of(story)


def grant(person: str, customer: str, home: str = "ter_east") -> d.OwnershipGranted:
    return d.OwnershipGranted(customer, person, home, "ter_east")


def name_of(story: Story) -> str:
    return f"cft_{last(story)}"


def opened(
    story: Story, *parties: str, asked: tuple[str, ...] = ("per_head",), root: str = ROOT
) -> d.ConflictOpened:
    return d.ConflictOpened(root, name_of(story), "group", parties, (last(story),), asked)


def added(
    story: Story, conflict: str, *parties: str, asked: tuple[str, ...] = ("per_head",)
) -> d.ConflictEvidenceAdded:
    return d.ConflictEvidenceAdded(ROOT, conflict, (last(story),), parties, asked)


def gone(conflict: str, reason: str = reasons.ONE_OWNER, root: str = ROOT) -> d.ConflictClosed:
    return d.ConflictClosed(root, conflict, "gone", reason)


def rule(story: Story, conflict: str, what: str, by: str = "per_head", **terms: Any) -> Story:
    return story.when(r.RulingGiven(ROOT, conflict, what, "rightful", **terms), by=by)


def release(customer: str) -> r.ReleaseRequested:
    return r.ReleaseRequested(customer, "no_need")


def move(customer: str, parent: str | None) -> r.CustomerChangeRequested:
    removed = () if parent is not None else ("parent",)
    return r.CustomerChangeRequested(customer, parent=parent, removed=removed)


def further(story: Story) -> tuple[d.Decision, ...]:
    """What the last request brought besides its first decision."""
    assert story.draft is not None
    return story.draft.more


def conflicts_at(story: Story, customer: str = ROOT) -> tuple[Conflict, ...]:
    found = story.settled.customers[customer]
    assert isinstance(found, Admitted)
    return found.conflicts


def counted_anew(story: Story) -> dict[str, Group]:
    """Count the members of every group, as whoever looks at all customers would."""
    customers = {
        name: each for name, each in story.settled.customers.items() if isinstance(each, Admitted)
    }
    found: dict[str, dict[str, int]] = {
        each.parent: {} for each in customers.values() if each.parent is not None
    }
    for name, each in customers.items():
        place: str | None = name
        while place is not None and each.owner is not None:
            if place in found:
                found[place][each.owner] = found[place].get(each.owner, 0) + 1
            place = customers[place].parent
    return {
        name: Group(
            owners, story.settled.groups[name].allowed if name in story.settled.groups else ()
        )
        for name, owners in found.items()
    }


def check(story: Story) -> None:
    """What the groups hold is what counting anew brings, and nothing besides."""
    kept = {name: each for name, each in story.settled.groups.items() if each != Group()}
    anew = {name: each for name, each in counted_anew(story).items() if each != Group()}
    assert kept == anew
    for name, each in story.settled.customers.items():
        if isinstance(each, Admitted):
            below = sum(
                isinstance(other, Admitted) and other.parent == name
                for other in story.settled.customers.values()
            )
            assert each.children == below


# --- what opens one ----------------------------------------------------------------------------


def test_a_second_owner_in_a_group_is_seen_at_its_root() -> None:
    story = claimed(group(), cus_1="per_a", cus_3="per_a")
    assert further(story) == ()
    claimed(story, cus_2="per_b").then(grant("per_b", "cus_2"), opened(story, "per_a", "per_b"))
    assert story.draft is not None
    assert story.draft.guards["group_owners"] == 1
    assert story.settled.versions[ROOT] == 2
    check(story)


def test_who_owns_the_root_is_a_party_as_well() -> None:
    story = claimed(group(), cus_root="per_b", cus_11="per_a")
    story.then(grant("per_a", "cus_11"), opened(story, "per_a", "per_b"))
    top = claimed(group(), cus_11="per_a", cus_root="per_b")
    top.then(grant("per_b", ROOT), opened(top, "per_a", "per_b"))
    check(top)


def test_who_owns_most_members_is_named_first_and_the_head_above_all_parties_rules() -> None:
    story = claimed(group(claim_scope="everywhere"), cus_2="per_c", cus_3="per_c", cus_4="per_a")
    story.then(grant("per_a", "cus_4"), opened(story, "per_c", "per_a", asked=("per_boss",)))


def test_later_owners_join_it_and_those_who_are_parties_prove_nothing_new() -> None:
    story, conflict = split(claim_scope="everywhere")
    claimed(story, cus_3="per_b").then(grant("per_b", "cus_3"))
    claimed(story, cus_4="per_c").then(
        grant("per_c", "cus_4", "ter_west"), added(story, conflict, "per_c", asked=("per_boss",))
    )
    (found,) = conflicts_at(story)
    assert found.parties == ("per_a", "per_b", "per_c")
    assert [each.person for each in found.evidence] == ["per_b", "per_c"]


def test_an_assignment_opens_one() -> None:
    story = claimed(group(), cus_1="per_a")
    story.when(r.AssignmentRequested("cus_2", "per_b"), by="per_head")
    assert further(story) == (opened(story, "per_a", "per_b"),)


def test_a_transfer_opens_one_and_another_ends_it() -> None:
    story = claimed(group(approval_rules=[]), cus_1="per_a", cus_2="per_a")
    story.when(r.TransferRequested("cus_2", "trf_1", "per_b", "better"), by="per_a")
    conflict = name_of(story)
    assert further(story)[-1] == opened(story, "per_a", "per_b")
    story.when(r.TransferRequested("cus_2", "trf_2", "per_a", "after_all"), by="per_b")
    assert further(story)[-1] == gone(conflict)
    check(story)


def test_in_no_group_nobody_is_in_the_way() -> None:
    story = group().when(register("cus_5")).when(register("cus_6"))
    claimed(story, cus_5="per_a", cus_6="per_b").then(grant("per_b", "cus_6"))
    assert story.settled.groups == {}


def test_a_policy_says_whether_it_is_one_and_new_ones_do() -> None:
    story = claimed(group(conflict_kinds=["deal"]), cus_1="per_a", cus_2="per_b")
    story.then(grant("per_b", "cus_2"))
    check(story)
    assert {"group", "identifier"} <= set(Policy().conflict_kinds)
    recorded = {"conflict_kinds": ["competing_claims", "follow_up", "deal"]}
    assert "group" not in Policy.model_validate(recorded).conflict_kinds


def test_version_1_knows_of_none_and_counts_members_alike() -> None:
    story = group()
    story.version = 1
    claimed(story, cus_1="per_a", cus_2="per_b").then(grant("per_b", "cus_2"))
    story.when(move("cus_1", "cus_2")).when(release("cus_2"), by="per_b")
    assert further(story) == ()
    check(story)
    # From the next member on that somebody else begins to own, version 2 sees it.
    story.version = 2
    claimed(story, cus_3="per_b").then(grant("per_b", "cus_3"), opened(story, "per_a", "per_b"))


def test_an_imported_history_opens_none_unless_its_policy_says_so() -> None:
    for said in (False, True):
        story = claimed(group(), cus_1="per_a")
        rules = story.organisation.latest.policy.policy.as_rules()
        story.given(
            facts.ImportOpened(
                "imp_1", "history", "Asia/Shanghai", rules | {"conflicts_in_imports": said}
            )
        )
        story.when(claim("per_b", "cus_2"), by="per_b", on=story.now, under="imp_1")
        assert bool(conflicts_at(story)) is said


def test_a_row_that_is_older_than_what_the_root_saw_brings_nothing_there() -> None:
    story, conflict = split()
    rules = story.organisation.latest.policy.policy.as_rules()
    opening = facts.ImportOpened(
        "imp_1", "history", "Asia/Shanghai", rules | {"conflicts_in_imports": True}
    )
    story.given(opening)
    for customer, person in (("cus_3", "per_a"), ("cus_4", "per_deputy")):
        story.when(claim(person, customer), by=person, on=START, under="imp_1")
        assert further(story) == ()
        assert story.effective == START
    assert [each.conflict for each in conflicts_at(story)] == [conflict]


def test_it_holds_no_earlier_than_what_the_root_saw_last() -> None:
    """Two parts of the customers may be decided apart, and the root's has come further."""
    story = claimed(group(protection_days=1), cus_1="per_a").later(hours=20)
    claimed(story, cus_root="per_a")
    seen, story.now = story.now, story.now - timedelta(hours=12)
    tomorrow = story.organisation.latest.day(seen)
    assert tomorrow > story.organisation.latest.day(story.now)
    story.given(facts.PersonAway("per_head", tomorrow, tomorrow + timedelta(days=1)))
    claimed(story, cus_2="per_b")
    assert story.effective == seen
    until = story.organisation.latest.days_after(seen, 1)
    story.then(
        d.OwnershipGranted("cus_2", "per_b", "ter_east", "ter_east", until),
        opened(story, "per_a", "per_b", asked=("per_boss",)),
    )


def test_so_many_parties_are_named_and_those_who_came_now_among_them() -> None:
    people = [f"per_{number:03}" for number in range(PARTIES_MAX + 2)]
    story = group(conflict_kinds=[], daily_claim_limit=None).given(
        *(facts.PersonJoined(each, NAME, "ter_east") for each in (*people, "per_new"))
    )
    for number, person in enumerate(people):
        story.when(register(f"cus_b{number}", parent=ROOT))
        claimed(story, **{f"cus_b{number}": person})
    rules = story.organisation.latest.policy.policy.as_rules() | {"conflict_kinds": ["group"]}
    story.given(facts.PolicyAdopted(2, rules))
    claimed(story, cus_1="per_new")
    (found,) = further(story)
    assert isinstance(found, d.ConflictOpened)
    assert found.parties == (*people[: PARTIES_MAX - 1], "per_new")
    assert claimed(story, cus_2="per_a").draft is not None
    story.then(grant("per_a", "cus_2"))
    # All who own members may go on, also those who were not named.
    rule(story, found.conflict, "allow")
    claimed(story, cus_3=people[-1]).then(grant(people[-1], "cus_3"))
    check(story)


# --- another parent ----------------------------------------------------------------------------


def test_an_owned_customer_that_comes_under_a_group_opens_one() -> None:
    story = claimed(group(), cus_1="per_a").when(register("cus_5"))
    claimed(story, cus_5="per_b").when(move("cus_5", "cus_11"), by="per_b")
    story.then(d.CustomerChanged("cus_5", "ter_east", "cus_11"), opened(story, "per_a", "per_b"))
    check(story)
    # Back out of it, the group is one owner's again.
    story.when(move("cus_5", None), by="per_b")
    assert further(story) == (gone(f"cft_{conflict_position(story)}"),)
    assert story.settled.group("cus_11") == Group()
    check(story)


def conflict_position(story: Story) -> int:
    """Where the last conflict was opened that is closed by the last request."""
    assert story.draft is not None
    (closing,) = (each for each in story.draft.all if isinstance(each, d.ConflictClosed))
    return int(closing.conflict.removeprefix("cft_"))


def test_a_customer_that_gets_its_first_member_is_a_group() -> None:
    story = company(conflict_kinds=["group"], protection_days=0)
    for name, person in (("cus_1", "per_a"), ("cus_2", "per_b")):
        claimed(story.when(register(name)), **{name: person})
    story.when(move("cus_2", "cus_1"))
    assert further(story) == (opened(story, "per_a", "per_b", root="cus_1"),)
    check(story)


def test_an_owner_may_register_a_first_branch_below_what_is_theirs() -> None:
    story = company(conflict_kinds=["group"], protection_days=0).when(register("cus_1"))
    claimed(story, cus_1="per_a").when(register("cus_2", parent="cus_1"))
    check(story)
    claimed(story, cus_2="per_b")
    assert further(story) == (opened(story, "per_a", "per_b", root="cus_1"),)


def test_a_group_that_becomes_part_of_another_takes_its_owners_there() -> None:
    story, conflict = split()
    story.when(register("cus_top")).when(register("cus_leaf", parent="cus_top"))
    story.when(move(ROOT, "cus_leaf"))
    assert further(story) == (
        gone(conflict, reasons.GROUP_JOINED),
        opened(story, "per_a", "per_b", root="cus_top"),
    )
    assert conflicts_at(story) == ()
    check(story)
    # One of its branches comes out of it and is a group of its own.
    claimed(story, cus_11="per_b").when(move("cus_1", None))
    assert further(story) == (
        gone(f"cft_{conflict_position(story)}", root="cus_top"),
        opened(story, "per_a", "per_b", root="cus_1"),
    )
    check(story)


def test_whoever_is_free_or_stays_in_the_group_changes_nothing() -> None:
    story, _ = split()
    for customer, parent in (("cus_3", None), ("cus_3", "cus_2"), ("cus_1", "cus_3")):
        story.when(move(customer, parent))
        assert further(story) == ()
        check(story)
    story.when(r.CustomerChangeRequested("cus_1", attributes={"grade": "key"}))
    assert further(story) == ()


def test_a_group_without_a_conflict_joins_another_of_the_same_owner() -> None:
    story = claimed(group(), cus_1="per_a").when(register("cus_top"))
    claimed(story, cus_top="per_a").when(move(ROOT, "cus_top"))
    assert further(story) == ()
    story.when(move(ROOT, None))
    assert further(story) == ()
    check(story)


# --- gone --------------------------------------------------------------------------------------


def test_under_one_owner_there_is_nothing_to_rule_on() -> None:
    story, conflict = split()
    claimed(story, cus_3="per_b").when(release("cus_3"), by="per_b")
    assert further(story) == ()
    story.when(release("cus_2"), by="per_b").then(
        d.OwnershipReleased("cus_2", "per_b", "no_need", "ter_east"), gone(conflict)
    )
    assert conflicts_at(story) == ()
    check(story)


def test_a_root_that_is_released_keeps_its_groups_conflict_while_others_go() -> None:
    story, conflict = split(conflict_kinds=["group", "follow_up"])
    claimed(story, cus_root="per_a")
    story.when(r.FollowUpLogged(ROOT, "fol_1", "per_b", "call"), by="per_b")
    other = name_of(story)
    story.when(release(ROOT), by="per_a")
    assert further(story) == (d.ConflictClosed(ROOT, other, "gone", reasons.OWNERSHIP_CHANGED),)
    assert [each.conflict for each in conflicts_at(story)] == [conflict]


def test_recycling_may_bring_a_group_under_one_owner_for_its_conflict_pauses_nobody() -> None:
    recycling = {"rules": [{"follow_up_days": 10}], "warnings": []}
    story, conflict = split(recycling=recycling)
    claimed(story.later(days=1), cus_root="per_a")
    root: Any = story.settled.customers[ROOT]
    assert root.tenure.counting.pausing is None
    story.when(r.FollowUpLogged("cus_2", "fol_1", "per_b", "call"), by="per_b").later(days=10)
    found = due_at(story, "cus_1")
    story.when(reached("cus_1", found), by=deadlines.CLOCK)
    assert further(story) == ()
    found = due_at(story, ROOT)
    assert found.kind == deadlines.RULING_REMINDER
    story.when(reached(ROOT, found), by=deadlines.CLOCK)
    story.when(release(ROOT), by="per_a")
    assert further(story) == (gone(conflict),)
    check(story)


def due_at(story: Story, customer: str) -> Deadline:
    state: Any = story.settled.customers[customer]
    found = deadlines.next_at(customer, state, story.organisation.latest, story.now)
    assert found is not None
    assert found.due <= story.now
    return found


def reached(customer: str, found: Deadline) -> r.DeadlineReached:
    return r.DeadlineReached(customer, found.kind, found.subject, found.due)


# --- rulings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["keep", "dismiss"])
def test_kept_or_dismissed_it_ends_until_a_member_begins_to_be_owned(what: str) -> None:
    story, conflict = split()
    rule(story, conflict, what)
    story.then(d.ConflictClosed(ROOT, conflict, what, "rightful", "per_head"))
    claimed(story, cus_3="per_b")
    assert further(story) == (opened(story, "per_b", "per_a"),)


def test_thirty_one_branches_of_thirty_one_rightful_owners_are_asked_about_once() -> None:
    people = [f"per_{number:02}" for number in range(33)]
    story = group().given(*(facts.PersonJoined(each, NAME, "ter_east") for each in people))
    for number, person in enumerate(people):
        story.when(register(f"cus_b{number}", parent=ROOT))
        if number < 31:
            claimed(story, **{f"cus_b{number}": person})
    (found,) = conflicts_at(story)
    assert found.parties == tuple(people[:31])
    assert len(found.evidence) == EVIDENCE_MAX
    rule(story, found.conflict, "allow")
    for number in (3, 4):
        person = people[number]
        claimed(story, **{f"cus_{number}": person}).then(grant(person, f"cus_{number}"))
    # Somebody else is another question, which ends with them.
    claimed(story, cus_b31=people[31])
    (again,) = further(story)
    assert isinstance(again, d.ConflictOpened)
    assert len(again.parties) == 32
    story.when(release("cus_b31"), by=people[31])
    assert further(story) == (gone(again.conflict, reasons.ALLOWED_BEFORE),)
    check(story)


def test_what_was_allowed_ends_when_the_group_joins_another() -> None:
    story, conflict = split()
    rule(story, conflict, "allow")
    assert story.settled.group(ROOT).allowed == ("per_a", "per_b")
    story.when(register("cus_top")).when(move(ROOT, "cus_top"))
    assert further(story) == (opened(story, "per_a", "per_b", root="cus_top"),)
    assert story.settled.group(ROOT).allowed == ()
    check(story)


def test_a_group_is_neither_awarded_nor_split_for_its_members_are_many() -> None:
    story, conflict = split()
    for what, terms in (("award", {"receiver": "per_b"}), ("split", {"parts": (Part("per_b"),)})):
        rule(story, conflict, what, **terms)
        story.then(d.RulingRefused(ROOT, conflict, "per_head", reasons.GROUP_NOT_AWARDED))
    assert [each.conflict for each in conflicts_at(story)] == [conflict]


def test_a_head_who_owns_a_member_rules_on_no_group_of_theirs() -> None:
    story = claimed(group(), cus_1="per_a", cus_2="per_head")
    conflict = name_of(story)
    assert further(story) == (opened(story, "per_a", "per_head", asked=("per_boss",)),)
    rule(story, conflict, "keep").then(
        d.RulingRefused(ROOT, conflict, "per_head", reasons.OWN_CAUSE)
    )


def test_a_ruling_while_a_transfer_is_open() -> None:
    story, conflict = split()
    story.given(facts.PersonJoined("per_d", NAME, "ter_east"))
    story.when(r.TransferRequested("cus_2", "trf_1", "per_d", "better"), by="per_b")
    rule(story, conflict, "allow")
    story.when(r.ApprovalGiven("cus_2", "trf_1"), by="per_head")
    story.when(r.ApprovalGiven("cus_2", "trf_1"), by="per_d")
    # The new owner was no party of what was allowed.
    assert further(story)[-1] == opened(story, "per_a", "per_d")
    again = name_of(story)
    story.when(r.TransferRequested("cus_2", "trf_2", "per_a", "after_all"), by="per_d")
    story.when(r.ApprovalGiven("cus_2", "trf_2"), by="per_head")
    story.when(r.ApprovalGiven("cus_2", "trf_2"), by="per_a")
    assert further(story)[-1] == gone(again)
    check(story)


def test_an_award_of_a_member_opens_the_groups_own() -> None:
    rules = [{"purposes": ["transfer"], "steps": [{"approvers": [{"kind": "head"}]}]}]
    story = claimed(
        group(approval_rules=rules, conflict_kinds=["group", "follow_up"]),
        cus_1="per_a",
        cus_2="per_a",
    )
    story.when(r.FollowUpLogged("cus_2", "fol_1", "per_b", "call"), by="per_b")
    ruling = r.RulingGiven("cus_2", name_of(story), "award", "first", receiver="per_b")
    story.when(ruling, by="per_head")
    assert further(story)[-1] == opened(story, "per_a", "per_b")


def test_nobody_rules_in_time_and_others_are_asked() -> None:
    story, conflict = split()
    for expected in (
        d.RulingReminded(ROOT, conflict, ("per_head",)),
        d.RulingPassedOn(ROOT, conflict, ("per_boss",)),
    ):
        story.later(days=3)
        story.when(reached(ROOT, due_at(story, ROOT)), by=deadlines.CLOCK).then(expected)
    claimed(story, cus_3="per_deputy")
    assert further(story) == (added(story, conflict, "per_deputy", asked=("per_boss",)),)


# --- the state that is kept --------------------------------------------------------------------


def test_a_guard_holds_whose_the_members_are_and_who_may_go_on() -> None:
    story, conflict = split()
    rule(story, conflict, "allow")
    for key in (("group", ROOT), ("customer", ROOT), ("group", "cus_1")):
        stored = state_of(story.settled, key)
        loaded = Settled()
        _put(loaded, key, 3, stored)
        assert state_of(loaded, key) == stored
    assert loaded.group("cus_1") == Group({"per_a": 1})
    loaded.groups["cus_1"] = Group()
    assert state_of(loaded, ("group", "cus_1")) == b"null"
    _put(loaded, ("group", "cus_1"), 0, b"null")
    assert loaded.group("cus_1") == Group()


def test_a_group_is_asked_for_only_where_there_is_one() -> None:
    story = group()
    event = story._event("customer-cus_1", claim("per_a", "cus_1"), actor="per_a")
    settled, missing = Settled(), []
    while True:
        try:
            draft = decider(2)(settled, event, story.organisation.at(event.position))
            break
        except NotLoadedError as lacking:
            missing.append(lacking.key)
            stored = story.settled
            _put(settled, lacking.key, *_row(stored, lacking.key))
    assert isinstance(draft.data, d.OwnershipGranted)
    assert ("customer", ROOT) in missing
    assert ("group", ROOT) in missing
    assert ("group", "cus_1") not in missing


def _row(settled: Settled, key: tuple[str, ...]) -> tuple[int, bytes | None]:
    if key[0] == "customer":
        return settled.version(key[1]), state_of(settled, key)
    if key[0] == "group" and key[1] in settled.groups:
        return 0, state_of(settled, key)
    return 0, None


def test_who_owns_no_member_loses_none() -> None:
    with pytest.raises(AssertionError, match="fewer than no members"):
        groups.counted({}, {"per_a": -1})


def test_what_is_at_no_customer_is_nobodys() -> None:
    assert Settled(complete=True).owners_from("cus_9") == {}


# --- the hard case -----------------------------------------------------------------------------


def test_two_hundred_members_split_among_thirty_owners() -> None:
    people = [f"per_{number:02}" for number in range(30)]
    story = company(
        conflict_kinds=["group"], protection_days=0, daily_claim_limit=None, approval_rules=[]
    ).given(*(facts.PersonJoined(each, NAME, "ter_east") for each in people))
    story.when(register(ROOT))
    for number in range(200):  # a tree of ten branches a customer
        parent = ROOT if number < 10 else f"cus_m{number // 10 - 1}"
        story.when(register(f"cus_m{number}", parent=parent))
    conflicts = set()
    for number in range(200):
        claimed(story, **{f"cus_m{number}": people[number * 7 % 30]})
        conflicts |= {each.conflict for each in conflicts_at(story)}
    check(story)
    assert len(conflicts) == 1
    (found,) = conflicts_at(story)
    assert sorted(found.parties) == people
    # Handed over one by one, the group comes under one owner, and only the last ends it.
    for number in range(200):
        member = f"cus_m{number}"
        state: Any = story.settled.customers[member]
        if state.owner != people[0]:
            request = r.TransferRequested(member, f"trf_{number}", people[0], "one_hand")
            story.when(request, by=state.owner)
            left = len(story.settled.group(ROOT).owners)
            assert bool(conflicts_at(story)) is (left > 1)
    assert story.settled.group(ROOT) == Group({people[0]: 200})
    check(story)


# --- reviews -----------------------------------------------------------------------------------


def unseen(**rules: Any) -> Story:
    """A group that came under a and b while nobody was told of such."""
    story = group(**rules)
    story.version = 1
    claimed(story, cus_1="per_a", cus_2="per_b", cus_11="per_a")
    story.version = LATEST
    return story


def review(story: Story, customer: str = "cus_11", by: str = "per_head") -> Story:
    return story.when(r.GroupReviewRequested(customer), by=by)


def unfounded(reason: str, customer: str = "cus_11") -> d.GroupReviewRefused:
    return d.GroupReviewRefused(customer, reason)


def test_a_review_finds_what_nobody_was_told_of() -> None:
    """Groups that were split before the decider saw groups were never told to anybody."""
    for customer, owner in (("cus_11", "per_a"), ("cus_3", None), (ROOT, None)):
        story = review(unseen(), customer)
        story.then(d.Noted(customer, None, owner), opened(story, "per_a", "per_b"))
        assert story.draft is not None
        assert story.draft.guards["group_owners"] == 2
        (found,) = conflicts_at(story)
        rule(story, found.conflict, "allow")
        review(story).then(unfounded(reasons.ALLOWED_BEFORE))
        check(story)


def test_what_an_import_has_split_is_found_as_well() -> None:
    story = claimed(group(), cus_1="per_a")
    rules = story.organisation.latest.policy.policy.as_rules()
    story.given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", rules))
    story.when(claim("per_b", "cus_2"), by="per_b", on=story.now, under="imp_1")
    assert conflicts_at(story) == ()
    review(story).then(d.Noted("cus_11"), opened(story, "per_a", "per_b"))


def test_a_review_is_by_an_administrator_or_a_head_over_the_root() -> None:
    for person in ("per_admin", "per_boss"):
        assert len(further(review(unseen(), by=person))) == 1
    for person in ("per_a", "per_deputy"):
        review(unseen(), by=person).then(unfounded(reasons.REVIEW_NEEDS_HEAD))


def test_where_all_is_known_a_review_brings_nothing() -> None:
    story, _ = split()
    review(story).then(unfounded(reasons.CONFLICT_OPEN))
    review(claimed(group(), cus_1="per_a")).then(unfounded(reasons.GROUP_NOT_SPLIT))
    alone = claimed(group().when(register("cus_5")), cus_5="per_a")
    review(alone, "cus_5").then(unfounded(reasons.GROUP_NOT_SPLIT, "cus_5"))
    review(group(), "cus_9").then(unfounded(reasons.CUSTOMER_NOT_ADMITTED, "cus_9"))
    review(unseen(conflict_kinds=["deal"])).then(unfounded(reasons.CONFLICTS_UNSEEN))


def test_no_earlier_decider_reviews() -> None:
    story = unseen()
    story.version = 2
    review(story).then(unfounded(reasons.CONFLICTS_UNSEEN))


def test_an_imported_review_is_no_older_than_what_was_decided() -> None:
    for customer in ("cus_11", "cus_3"):
        story = unseen()
        story.when(r.FollowUpLogged(ROOT, "fol_1", "per_a", "call"), by="per_a")
        rules = story.organisation.latest.policy.policy.as_rules()
        rules |= {"conflicts_in_imports": True}
        story.given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", rules))
        asked = r.GroupReviewRequested(customer)
        story.when(asked, by="per_admin", on=START, under="imp_1")
        story.then(unfounded(reasons.HISTORY_OUT_OF_ORDER, customer))
