"""Token follow-ups: the same note again, or within minutes of the last, resets nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from ledger import reasons
from ledger.counting import NOTES_MAX, TOKENS_MAX, CountedAct, Counting
from ledger.deadlines import RECYCLE_WARNING
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import Contact
from ledger.store import guards
from ledger.tokens import folded
from tests.specs.story import START, Story
from tests.specs.test_ownership import company, register
from tests.specs.test_recycling import expect, owned

COUNTED = d.Noted("cus_1", None, "per_a")


def token(of: str, remark: str = reasons.TOKEN_FOLLOW_UP) -> d.Noted:
    return d.Noted("cus_1", remark, "per_a", of)


def said(
    story: Story,
    name: str,
    note: str | None,
    person: str = "per_a",
    *,
    contact: str | None = None,
    **how: Any,
) -> Story:
    """Let somebody follow up; ``note`` is the digest of what they noted."""
    request = r.FollowUpLogged("cus_1", name, person, "call", contact=contact, note_digest=note)
    return story.when(request, by=person, **how)


def counting(story: Story) -> Counting:
    customer: Any = story.settled.customers["cus_1"]
    found: Counting = customer.tenure.counting
    return found


# --- what is a token ---------------------------------------------------------------------------


def test_the_same_note_again_resets_nothing_and_is_flagged() -> None:
    story = said(owned().later(days=5), "fol_1", "aa").then(COUNTED)
    expect(story, 5 + 28, RECYCLE_WARNING)
    said(story.later(days=10), "fol_2", "aa").then(token("fol_1"))
    expect(story, 5 + 28, RECYCLE_WARNING)
    said(story.later(days=1), "fol_3", "bb").then(COUNTED)
    expect(story, 16 + 28, RECYCLE_WARNING)
    # Not only the very last one is remembered.
    said(story.later(days=1), "fol_4", "aa").then(token("fol_1"))
    expect(story, 16 + 28, RECYCLE_WARNING)


def test_within_minutes_of_the_last_it_resets_nothing_whatever_it_says() -> None:
    story = said(owned().later(days=5), "fol_1", "aa")
    said(story.later(minutes=9), "fol_2", "bb").then(token("fol_1"))
    # Ten minutes behind the last that counts, and one behind the one that does not.
    said(story.later(minutes=1), "fol_3", None).then(COUNTED)
    said(story.later(minutes=1), "fol_4", None).then(token("fol_3"))


def test_minutes_are_those_at_which_it_happened() -> None:
    story = said(owned().later(days=5), "fol_1", "aa")
    said(story.later(days=1), "fol_2", "bb", on=START + timedelta(days=5, minutes=5))
    story.then(token("fol_1"))
    said(story.later(minutes=1), "fol_3", "cc", on=START + timedelta(days=4)).then(COUNTED)
    said(story.later(minutes=1), "fol_4", "dd").then(COUNTED)


def test_the_policy_says_how_many_minutes() -> None:
    story = said(owned(token_follow_up_minutes=0).later(days=5), "fol_1", "aa")
    said(story, "fol_2", "bb").then(COUNTED)
    said(story, "fol_3", "bb").then(token("fol_2"))
    hours = said(owned(token_follow_up_minutes=240).later(days=5), "fol_1", "aa")
    said(hours.later(minutes=239), "fol_2", "bb").then(token("fol_1"))
    with pytest.raises(ValidationError):
        owned(token_follow_up_minutes=24 * 60 + 1)


def test_what_two_who_work_together_note_is_one_note_but_their_minutes_are_their_own() -> None:
    story = owned().when(
        r.CollaborationRequested("cus_1", "col_1", "per_b", "support", "help"), by="per_a"
    )
    said(story.later(days=5), "fol_1", "aa")
    said(story.later(minutes=5), "fol_2", "bb", "per_b").then(COUNTED)
    said(story.later(minutes=1), "fol_3", "cc", "per_b").then(token("fol_2"))
    said(story.later(days=1), "fol_4", "aa", "per_b").then(token("fol_1"))
    expect(story, 5 + 5 / 1_440 + 28, RECYCLE_WARNING)


def test_a_contact_that_is_unknown_is_remarked_first_and_it_resets_nothing_all_the_same() -> None:
    """Else whoever names a contact that is not there could note the same for ever."""
    story = said(owned().later(days=5), "fol_1", "aa", contact="con_9")
    story.then(d.Noted("cus_1", reasons.CONTACT_UNKNOWN, "per_a"))
    said(story.later(days=5), "fol_2", "aa", contact="con_9")
    story.then(token("fol_1", reasons.CONTACT_UNKNOWN))
    expect(story, 5 + 28, RECYCLE_WARNING)


def test_a_contact_that_is_known_is_no_matter() -> None:
    story = company(protection_days=0, recycling={"rules": [{"follow_up_days": 31}]})
    contacts = (Contact("con_1"),)
    story.when(r.RegistrationRequested("cus_1", "organisation", "客户", contacts=contacts))
    story.when(r.ClaimFiled("cus_1", "per_a"))
    said(story.later(days=1), "fol_1", "aa", contact="con_1").then(COUNTED)
    said(story.later(days=1), "fol_2", "aa", contact="con_1").then(token("fol_1"))


# --- what is none ------------------------------------------------------------------------------


def test_what_others_note_is_remarked_as_ever_and_compared_with_nothing() -> None:
    story = said(owned().later(days=5), "fol_1", "aa")
    said(story.later(days=1), "fol_2", "aa", "per_b")
    assert story.decided == d.Noted("cus_1", reasons.FOLLOW_UP_BY_NON_OWNER, "per_a")
    assert [each.act for each in counting(story).follow_ups] == ["fol_1"]


def test_of_a_new_ownership_nothing_is_compared_with_what_was_before() -> None:
    story = said(owned().later(days=5), "fol_1", "aa")
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    said(story.later(minutes=1), "fol_2", "aa").then(
        d.Noted("cus_1", reasons.FOLLOW_UP_BY_NON_OWNER, None)
    )
    story.later(days=4).when(r.ClaimFiled("cus_1", "per_a"))
    said(story.later(minutes=1), "fol_3", "aa").then(COUNTED)


def test_a_late_follow_up_of_the_owner_before_is_compared_with_nothing() -> None:
    story = owned()
    then = story.later(days=5).now
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    story.later(days=1).when(r.ClaimFiled("cus_1", "per_b"))
    said(story.later(minutes=1), "fol_1", "aa", "per_b")
    said(story.later(days=1), "fol_2", "aa", on=then - timedelta(hours=1)).then(COUNTED)


def test_where_nothing_is_recycled_nobody_asks_and_nothing_is_kept() -> None:
    story = company(protection_days=0).when(register(region="east"))
    story.when(r.ClaimFiled("cus_1", "per_a"))
    said(said(story.later(days=5), "fol_1", "aa"), "fol_2", "aa").then(COUNTED)
    assert {(each.note, each.by) for each in counting(story).follow_ups} == {(None, None)}
    # What is remembered from before says nothing of notes.
    rules = {"protection_days": 0, "recycling": {"rules": [{"follow_up_days": 31}]}}
    story.given(facts.PolicyAdopted(story.organisation.latest.policy.number + 1, rules))
    said(story.later(days=1), "fol_3", "aa").then(COUNTED)
    said(story.later(days=1), "fol_4", "aa").then(token("fol_3"))


def test_at_what_is_no_customer_nothing_is_a_token() -> None:
    story = company(recycling={"rules": [{"follow_up_days": 31}]})
    for name in ("fol_1", "fol_2"):
        said(story, name, "aa").then(d.Noted("cus_1", reasons.CUSTOMER_NOT_ADMITTED))


def test_version_1_knows_no_tokens() -> None:
    story = owned()
    story.version = 1
    for number in range(3):
        said(story.later(minutes=1), f"fol_{number}", "aa").then(COUNTED)
    expect(story, 3 / 1_440 + 28, RECYCLE_WARNING)


def test_what_an_import_brings_is_taken_as_it_is_and_compared_with_from_then_on() -> None:
    story = owned().given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", {}))
    for number in range(3):
        at = START + timedelta(days=number + 1)
        said(story.later(days=2), f"fol_{number}", "aa", on=at, under="imp_1").then(COUNTED)
    story.given(facts.ImportClosed("imp_1"))
    expect(story, 3 + 28, RECYCLE_WARNING)
    said(story.later(days=1), "fol_9", "aa").then(token("fol_2"))
    expect(story, 3 + 28, RECYCLE_WARNING)


# --- corrections -------------------------------------------------------------------------------


def test_what_is_entered_once_more_counts_when_the_first_is_voided() -> None:
    """Whoever mistypes enters it again, and voids the first only then."""
    story = said(owned().later(days=5), "fol_1", "aa")
    said(story.later(minutes=2), "fol_2", "ab").then(token("fol_1"))
    story.when(r.FollowUpVoided("cus_1", "fol_1", "double"), by="per_a")
    expect(story, 5 + 2 / 1_440 + 28, RECYCLE_WARNING)
    said(story.later(days=1), "fol_3", "aa").then(COUNTED)
    said(story.later(days=1), "fol_4", "ab").then(token("fol_2"))


def test_a_token_that_is_voided_or_moved_resets_nothing_either() -> None:
    story = said(owned().later(days=5), "fol_1", "aa")
    said(story.later(days=5), "fol_2", "aa")
    moved = r.FollowUpCorrected("cus_1", "fol_2", "wrong", at=START + timedelta(days=8))
    story.when(moved, by="per_a")
    expect(story, 5 + 28, RECYCLE_WARNING)
    story.when(r.FollowUpVoided("cus_1", "fol_2", "double"), by="per_a")
    expect(story, 5 + 28, RECYCLE_WARNING)
    assert [each.act for each in counting(story).follow_ups] == ["fol_1"]


def test_a_follow_up_that_is_moved_says_what_it_said() -> None:
    story = said(owned().later(days=5), "fol_1", "aa")
    moved = r.FollowUpCorrected("cus_1", "fol_1", "wrong", at=START + timedelta(days=4))
    story.when(moved, by="per_a")
    expect(story, 4 + 28, RECYCLE_WARNING)
    said(story.later(days=5), "fol_2", "aa").then(token("fol_1"))


def test_only_the_last_few_are_remembered() -> None:
    story = owned({"follow_up_days": 300})
    for number in range(NOTES_MAX + 1):
        said(story.later(days=1), f"fol_{number}", f"a{number}")
    for number in range(TOKENS_MAX + 1):
        said(story.later(minutes=1), f"tok_{number}", None).then(token(f"fol_{NOTES_MAX}"))
    remembered = [each.act for each in counting(story).follow_ups]
    assert len(remembered) == NOTES_MAX + TOKENS_MAX
    assert "fol_0" not in remembered
    said(story.later(days=1), "fol_9", "a0").then(COUNTED)
    # A token stays one when what it repeats is no longer remembered, until that is voided.
    counted = CountedAct("fol_8", START, "aa", None, "fol_7")
    lone = Counting(follow_ups=(counted,))
    assert lone.without("fol_6") is lone
    assert lone.without("fol_7").worked == (CountedAct("fol_8", START, "aa"),)


def test_what_is_remembered_survives_in_the_guard_and_old_guards_are_read_as_they_were() -> None:
    story = owned().when(
        r.CollaborationRequested("cus_1", "col_1", "per_b", "support", "help"), by="per_a"
    )
    said(story.later(days=1), "fol_1", "aa", "per_b")
    said(story.later(minutes=1), "fol_2", "aa")
    said(story.later(days=1), "fol_3", None)
    kept = story.settled.customers["cus_1"]
    stored = orjson.dumps(guards.customer_json(kept), option=orjson.OPT_SORT_KEYS)
    assert guards.customer_of(orjson.loads(stored)) == kept
    acts = orjson.loads(stored)["counting"]["follow_ups"]
    # What is not there takes no room.
    assert [sorted(each) for each in acts] == [
        ["act", "at"],
        ["act", "at", "note", "token_of"],
        ["act", "at", "by", "note"],
    ]


# --- how notes are compared ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "again"),
    [
        ("客户要报价单", " 客户要 报价单\n"),
        ("Call Back", "call back"),
        ("报价ABC", "报价ＡＢＣ"),
        ("约好周五", "约好\u200b周五"),
        ("Straße", "STRASSE"),
    ],
)
def test_blanks_case_and_width_make_no_other_note(note: str, again: str) -> None:
    assert folded(note) == folded(again)


def test_other_words_make_another_note() -> None:
    assert folded("客户要报价单") != folded("客户要合同")


# --- in a long history ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_in_any_history_only_what_repeats_a_standing_follow_up_resets_nothing(seed: int) -> None:
    chance = Random(seed)  # noqa: S311 - which history it is, and no secret
    story = owned({"follow_up_days": 3_000}).when(
        r.CollaborationRequested("cus_1", "col_1", "per_b", "support", "help"), by="per_a"
    )
    standing: dict[str, tuple[str, str | None, datetime]] = {}
    tokens: dict[str, str] = {}
    for number in range(150):
        story.later(minutes=chance.choice([1, 4, 9, 11, 5_000]))
        name, person = f"fol_{number}", chance.choice(["per_a", "per_b"])
        note = chance.choice([None, None, "aa", "bb", f"n{number}"])
        if standing and chance.random() < 0.15:
            voided = chance.choice(sorted(standing, key=lambda each: standing[each][2])[-3:])
            story.when(r.FollowUpVoided("cus_1", voided, "double"), by="per_boss")
            del standing[voided]
            tokens = {each: of for each, of in tokens.items() if voided not in (each, of)}
        said(story, name, note, person)
        counted = {each: act for each, act in standing.items() if each not in tokens}
        of = story.decided.token_of if isinstance(story.decided, d.Noted) else "none"
        alike = [
            each
            for each, (by, words, at) in counted.items()
            if (note is not None and note == words)
            or (by == person and story.now - at < timedelta(minutes=10))
        ]
        newest = sorted(counted, key=lambda each: counted[each][2])[-2:]
        assert of is None or of in alike
        assert of is not None or not set(newest) & set(alike)
        standing[name] = (person, note, story.now)
        if of is not None:
            tokens[name] = of
        worked = {each: at for each, (_, _, at) in standing.items() if each not in tokens}
        assert counting(story).worked[0].at == max(worked.values())
        kept = story.settled.customers["cus_1"]
        stored = orjson.dumps(guards.customer_json(kept))
        assert guards.customer_of(orjson.loads(stored)) == kept
