"""Settled state: decisions folded, guards that must be loaded, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from ledger.customer import (
    FORMER_OWNERS_MAX,
    FORMER_OWNERSHIPS_MAX,
    Admitted,
    FormerOwner,
    Free,
    Held,
    Refused,
    Unregistered,
    given_up,
    taken,
)
from ledger.deciders import LATEST, DeciderMissingError, decider
from ledger.envelope import Event
from ledger.events import decisions as d
from ledger.events import requests as r
from ledger.groups import Group
from ledger.organisation import Organisation
from ledger.policy import LATE_FOLLOW_UP_DAYS_MAX
from ledger.settled import Act, Holdings, Key, NotLoadedError, Settled
from ledger.store.guards import _put, state_of
from tests.specs.story import START
from tests.specs.test_ownership import claim, company, deal, register

NOBODY = Organisation().latest
LATER = datetime(2026, 4, 1, tzinfo=UTC)


def cause(data: r.Request, actor: str = "per_a") -> Event:
    return Event(1, START, f"customer-{data.customer}", 1, "request", {"actor": actor}, data)


def customer(**fields: Any) -> Admitted:
    return Admitted(START, START, "organisation", None, {}, {}, **fields)


# --- what is not loaded -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "key"),
    [
        (lambda settled: settled.customer("cus_1"), ("customer", "cus_1")),
        (lambda settled: settled.holdings_of("per_1"), ("holdings", "per_1")),
        (
            lambda settled: settled.grants_of("per_1", "2026-03-02"),
            ("grants", "per_1", "2026-03-02"),
        ),
        (lambda settled: settled.holder_of("uscc", "1"), ("identifier", "uscc", "1")),
        (lambda settled: settled.act("fol_1"), ("act", "fol_1")),
    ],
)
def test_what_was_not_loaded_is_asked_for_and_what_is_complete_is_empty(ask: Any, key: Key) -> None:
    with pytest.raises(NotLoadedError) as missing:
        ask(Settled())
    assert missing.value.key == key
    assert ask(Settled(complete=True)) in (Unregistered(), Holdings(), 0, None)
    loaded = Settled()
    _put(loaded, key, 0, None)
    assert ask(loaded) == ask(Settled(complete=True))


# --- decisions that contradict what is settled --------------------------------------------------


def test_a_second_owner_is_a_defect() -> None:
    settled = Settled(complete=True, customers={"cus_1": customer(tenure=Held("per_a", START))})
    grant = d.OwnershipGranted("cus_1", "per_b")
    with pytest.raises(AssertionError, match="two owners"):
        settled.apply(cause(claim("per_b")), grant, LATER, NOBODY)


def test_a_grant_at_what_was_never_admitted_is_a_defect() -> None:
    grant = d.OwnershipGranted("cus_1", "per_b")
    with pytest.raises(AssertionError, match="before it was admitted"):
        Settled(complete=True).apply(cause(claim("per_b")), grant, LATER, NOBODY)


def test_a_release_of_a_free_customer_is_a_defect() -> None:
    settled = Settled(complete=True, customers={"cus_1": customer()})
    release = cause(r.ReleaseRequested("cus_1", "done"))
    with pytest.raises(AssertionError, match="only an owned customer"):
        settled.apply(release, d.OwnershipReleased("cus_1", "per_a", "done"), LATER, NOBODY)


def test_a_correction_of_what_was_never_recorded_is_a_defect() -> None:
    settled = Settled(complete=True, customers={"cus_1": customer()})
    void = cause(r.DealVoided("cus_1", "dea_1", "double"))
    with pytest.raises(AssertionError, match="before it was recorded"):
        settled.apply(void, d.Noted("cus_1"), LATER, NOBODY)


# --- acts ---------------------------------------------------------------------------------------


def test_corrections_change_what_is_known_of_an_act() -> None:
    story = company().when(register()).when(claim("per_a"))
    story.when(r.FollowUpLogged("cus_1", "fol_1", "per_a", "call"), by="per_b")
    assert story.settled.acts["fol_1"] == Act("cus_1", "follow_up", "per_a", "per_b", START)
    story.when(r.FollowUpCorrected("cus_1", "fol_1", "typo", at=LATER), by="per_a")
    assert story.settled.acts["fol_1"] == Act("cus_1", "follow_up", "per_a", "per_b", LATER)
    story.when(r.FollowUpCorrected("cus_1", "fol_1", "typo", channel="visit"), by="per_a")
    story.when(r.FollowUpVoided("cus_1", "fol_1", "double"), by="per_a")
    assert story.settled.acts["fol_1"] == Act(
        "cus_1", "follow_up", "per_a", "per_b", LATER, stands=False
    )


def test_a_deal_at_what_is_no_customer_never_counts() -> None:
    """It was remembered but not counted, so voiding it later left fewer than no deals won.

    Found by the model test: a deal first, then the registration, then the voiding.
    """
    story = company().when(deal("per_a"), by="per_a").when(register()).when(claim("per_a"))
    assert story.settled.acts == {}
    story.when(r.DealVoided("cus_1", "dea_per_a", "double"), by="per_a")
    assert isinstance(story.decided, d.CorrectionRefused)
    # Recorded once more, it is a deal like any other.
    story.when(deal("per_a"), by="per_a")
    assert story.settled.holdings["per_a"] == Holdings(1, 1)


def test_deals_of_a_free_customer_count_for_its_next_owner() -> None:
    story = company().when(register()).when(deal("per_b"), by="per_b").when(claim("per_a"))
    assert story.settled.holdings["per_a"] == Holdings(1, 1)
    story.when(r.ReleaseRequested("cus_1", "done"), by="per_a")
    assert story.settled.holdings["per_a"] == Holdings(0, 0)


def test_a_correction_that_leaves_the_outcome_changes_no_count() -> None:
    story = company().when(register()).when(claim("per_a")).when(deal("per_a"), by="per_a")
    story.when(r.DealCorrected("cus_1", "dea_per_a", "typo", product="机床"), by="per_a")
    assert story.settled.holdings["per_a"] == Holdings(1, 1)


# --- former owners ------------------------------------------------------------------------------

DAY_LONG = timedelta(days=1)


def owned_in_turn(people: Sequence[str], days: float = 1, recorded: datetime | None = None) -> Any:
    """A customer that each owned for so many days, the last until LATER; recorded as it happened.

    With ``recorded`` all of it was recorded at that time, as by an import.
    """
    one = customer()._replace(known_from=START - timedelta(days=10_000))
    for number, person in enumerate(people, 1 - len(people)):
        ended = LATER + number * timedelta(days=days)
        one = taken(one, person, ended - timedelta(days=days), None)
        one = given_up(one, ended, recorded or ended)
    return one


def test_former_ownerships_are_remembered_the_last_first() -> None:
    one = owned_in_turn(["per_1", "per_2", "per_1"])
    assert one.former == (
        FormerOwner("per_1", LATER - DAY_LONG, LATER),
        FormerOwner("per_2", LATER - 2 * DAY_LONG, LATER - DAY_LONG),
        FormerOwner("per_1", LATER - 3 * DAY_LONG, LATER - 2 * DAY_LONG),
    )
    assert one.tenure == Free()
    assert [one.ended(each) for each in ("per_1", "per_2", "per_3")] == [
        LATER,
        LATER - DAY_LONG,
        None,
    ]


def test_of_what_ended_long_ago_only_the_last_of_each_owner_is_remembered() -> None:
    """The cooldown may ask for those for ever, and nothing can ask for the others."""
    one = owned_in_turn(["per_1", "per_2", "per_1", "per_2", "per_1"], days=60)
    assert [(each.person, (LATER - each.ended).days) for each in one.former] == [
        ("per_1", 0),
        ("per_2", 60),
    ]
    many = owned_in_turn([f"per_{number}" for number in range(20)], days=60)
    assert [each.person for each in many.former] == [
        f"per_{number}" for number in range(19, 19 - FORMER_OWNERS_MAX, -1)
    ]


def test_what_is_forgotten_depends_on_when_its_end_was_recorded() -> None:
    """An imported history may be of long ago when it is recorded: nobody can ask for it live."""
    one = owned_in_turn(["per_1", "per_2"] * 5, recorded=LATER + timedelta(days=1_000))
    assert [each.person for each in one.former] == ["per_2", "per_1"]


def test_everything_that_a_policy_can_ask_for_is_remembered() -> None:
    hours = [f"per_{number % 2}" for number in range(FORMER_OWNERSHIPS_MAX - 1)]
    days = LATE_FOLLOW_UP_DAYS_MAX / len(hours)
    one = owned_in_turn(hours, days)
    assert len(one.former) == len(hours)
    for number, person in enumerate(reversed(hours)):
        moment = LATER - (number + 0.5) * timedelta(days=days)
        assert one.remembers(moment)
        assert one.owner_at(moment) == person


def test_what_ended_as_it_began_takes_nobodys_place() -> None:
    one = owned_in_turn(["per_1"])
    for number in range(FORMER_OWNERSHIPS_MAX):
        one = given_up(taken(one, f"per_{number % 2}", LATER, None), LATER, LATER)
    assert [each.person for each in one.former] == ["per_1", "per_0", "per_1"]
    assert one.owner_at(LATER - timedelta(microseconds=1)) == "per_1"


def test_former_ownerships_are_bounded() -> None:
    one = owned_in_turn([f"per_{number % 9}" for number in range(3 * FORMER_OWNERSHIPS_MAX)], 0.5)
    assert len(one.former) == FORMER_OWNERSHIPS_MAX
    reach = one.former[-1].began
    assert one.remembers(reach)
    assert not one.remembers(reach - timedelta(microseconds=1))


def test_an_ownership_counts_from_its_beginning_to_just_before_its_end() -> None:
    one = taken(owned_in_turn(["per_1"]), "per_2", LATER + DAY_LONG, None)
    tick = timedelta(microseconds=1)
    moments = {
        LATER - DAY_LONG - tick: None,
        LATER - DAY_LONG: "per_1",
        LATER - tick: "per_1",
        LATER: None,
        LATER + DAY_LONG - tick: None,
        LATER + DAY_LONG: "per_2",
        LATER + 9 * DAY_LONG: "per_2",
    }
    assert {moment: one.owner_at(moment) for moment in moments} == moments


def test_what_was_before_a_customer_was_known_is_not_remembered() -> None:
    one = customer()
    assert one.remembers(START)
    assert not one.remembers(START - timedelta(microseconds=1))


# --- as JSON ------------------------------------------------------------------------------------

DAY = date(2026, 3, 2).isoformat()


@pytest.mark.parametrize(
    ("key", "state"),
    [
        (("customer", "cus_1"), Unregistered()),
        (("customer", "cus_1"), Unregistered(START)),
        (("customer", "cus_1"), Refused("cus_2", START)),
        (("customer", "cus_1"), Refused(None, START)),
        (("customer", "cus_1"), customer()),
        (
            ("customer", "cus_1"),
            Admitted(
                LATER,
                START,
                "individual",
                "ter_1",
                {
                    "region": "华东",
                    "size": 12,
                    "tags": {"set": ["a", "b"]},
                    "potential": {"money": {"amount": "1.50", "currency": "CNY"}},
                },
                {"uscc": "91350100M000100Y43"},
                "cus_2",
                True,
                Held("per_1", START, LATER),
                (FormerOwner("per_2", START, LATER), FormerOwner("per_3", START, START)),
                3,
                frozenset({"con_1", "con_2"}),
            ),
        ),
        (("customer", "cus_1"), customer(tenure=Held("per_1", START))),
        (("holdings", "per_1"), Holdings(3, 2)),
        (("grants", "per_1", DAY), 7),
        (("identifier", "税号", "一 二"), "cus_1"),
        (("identifier", "uscc", "1"), None),
        (("act", "dea_1"), Act("cus_1", "deal", "per_1", "per_2", START, "won", False)),
        (("act", "fol_1"), Act("cus_1", "follow_up", "per_1", "per_1", LATER)),
        (("act", "fol_1"), None),
        (("customer", "cus_1"), customer(parent="cus_2", children=3)),
        (("group", "cus_1"), Group({"per_1": 2, "per_2": 1}, ("per_1", "per_2"))),
        (("group", "cus_1"), Group({"per_1": 2})),
        (("group", "cus_1"), Group()),
    ],
)
def test_every_state_survives_its_json(key: Key, state: Any) -> None:
    before, after = Settled(), Settled()
    where: dict[str, tuple[str, Any]] = {
        "customer": ("customers", key[1]),
        "holdings": ("holdings", key[1]),
        "grants": ("grants", key[1:]),
        "identifier": ("identifiers", key[1:]),
        "act": ("acts", key[1]),
        "group": ("groups", key[1]),
    }
    table, name = where[key[0]]
    getattr(before, table)[name] = state
    _put(after, key, 5, state_of(before, key))
    assert getattr(after, table)[name] == state


# --- versions of the decider --------------------------------------------------------------------


def test_a_version_of_the_decider_that_is_missing_says_so() -> None:
    with pytest.raises(DeciderMissingError) as missing:
        decider(LATEST + 1)
    assert missing.value.code == "decider_missing"
    assert "Upgrade" in missing.value.way_out
