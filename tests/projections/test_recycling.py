"""Recycling in the read models: given events, then what falls when, and whose it is no longer."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest

from ledger import deadlines as rules
from ledger.customer import Admitted
from ledger.deadlines import CLOCK, RECYCLE, RECYCLE_WARNING
from ledger.events import organisation as facts
from ledger.events import requests
from ledger.recycling import NO_FOLLOW_UP
from projections import customers as customer_views
from projections.base import LIVE
from projections.comparing import digests
from projections.deadlines import due, falling, last_fall
from projections.follow_ups import of_customer as follow_ups_of
from projections.holdings import workloads
from projections.intervals import RECYCLED, of_customer
from projections.ownership import owner_of
from projections.telling import sentence
from projections.territory_figures import figures
from projections.timeline import history as timeline
from tests.projections.history import History
from tests.projections.models import Models

BATCHES = pytest.mark.parametrize("batch", [1, 3, 2_000])
FOR_EVER = datetime(2100, 1, 1, tzinfo=UTC)
RULES: dict[str, Any] = {"rules": [{"follow_up_days": 31}]}


def _history(customers: int = 3, recycling: dict[str, Any] = RULES) -> History:
    """Customers that are owned; the history is of today, for facts are of the store's own time."""
    history = History(now=datetime.now(UTC) - timedelta(days=2))
    history.found(protection_days=0, recycling=recycling)
    history.territory("ter_east", head="per_head")
    for person in ("per_head", "per_a", "per_b"):
        history.join(person, "ter_east")
    for number in range(customers):
        history.register(f"cus_{number}", territory="ter_east")
        history.later(hours=1).claim(f"cus_{number}", ("per_a", "per_b")[number % 2])
    return history


def _next(history: History, customer: str) -> rules.Deadline | None:
    state: Any = history.settled.customers[customer]
    return rules.next_at(customer, state, history.organisation.latest, history.now)


def _raise_next(history: History, customer: str) -> None:
    found = _next(history, customer)
    assert found is not None
    history.now = max(history.now, found.due)
    asked = requests.DeadlineReached(customer, found.kind, found.subject, found.due)
    history.ask(asked, actor=CLOCK)


def _check(models: Models, history: History) -> None:
    """What is shown as due is what the decider would say of the settled state."""
    expected = {
        customer: found
        for customer, state in history.settled.customers.items()
        if isinstance(state, Admitted) and (found := _next(history, customer)) is not None
    }
    rows = due(models.connection, FOR_EVER)
    shown = {row.customer: rules.Deadline(row.kind, row.subject, row.due) for row in rows}
    assert shown == expected


@BATCHES
def test_a_recycled_customer_is_free_in_every_read_model(models: Models, batch: int) -> None:
    history = _history()
    for kind in (RECYCLE_WARNING, RECYCLE_WARNING, RECYCLE):
        found = _next(history, "cus_0")
        assert found is not None
        assert found.kind == kind
        models.project(history, batch=batch)
        _check(models, history)
        _raise_next(history, "cus_0")
    models.project(history, batch=batch)
    _check(models, history)
    owned = owner_of(models.connection, "cus_0")
    assert owned is not None
    assert (owned.owner, owned.customer_territory, owned.since) == (None, "ter_east", history.now)
    (interval,) = of_customer(models.connection, "cus_0")
    assert (interval.owner, interval.ended_by) == ("per_a", RECYCLED)
    # It said only that it was recycled.
    assert (interval.end_reason, interval.end_days) == ("no_follow_up", 31)
    assert interval.to_position == history.position
    held = {each.person: each.held for each in workloads(models.connection, now=history.now)}
    assert (held["per_a"], held["per_b"]) == (1, 1)
    (east,) = (each for each in figures(models.connection) if each.territory == "ter_east")
    assert (east.owned, east.free) == (2, 1)
    (summary,) = customer_views.summaries(models.connection, ["cus_0"]).values()
    assert summary.territory == "ter_east"
    names = {"per_a": "李想", "per_head": "赵敏", "ter_east": "华东"}
    told = [sentence(each, names) for each in timeline(models.connection, "cus_0")]
    assert told[-1] == (
        "李想 no longer owns the customer, which nobody worked (no follow up for 31 days);"
        " it is in the pool in 华东."
    )
    assert told[-3].endswith("unless 李想 works it (no follow up); told: 李想, 赵敏.")
    before = digests(models.connection, models.projections, LIVE)
    models.rebuild()
    assert digests(models.connection, models.projections, LIVE) == before


@BATCHES
def test_what_falls_is_foretold_by_day_and_owner(models: Models, batch: int) -> None:
    history = _history()
    history.later(days=1)
    history.follow_up("cus_1", "per_b")
    _raise_next(history, "cus_0")
    models.project(history, batch=batch)
    found = falling(models.connection, FOR_EVER)
    assert [(row.customer, row.owner, row.because) for row in found] == [
        ("cus_0", "per_a", NO_FOLLOW_UP),
        ("cus_2", "per_a", NO_FOLLOW_UP),
        ("cus_1", "per_b", NO_FOLLOW_UP),
    ]
    assert falling(models.connection, found[0].falls or FOR_EVER) == found[:1]
    first = found[0]
    assert first.falls is not None
    after = falling(models.connection, FOR_EVER, after=(first.falls, first.customer), limit=1)
    assert after == found[1:2]


@BATCHES
def test_facts_of_the_organisation_move_what_is_due(models: Models, batch: int) -> None:
    history = _history(recycling={"rules": []})
    history.fact(facts.ImportOpened("imp_1", "old", "Asia/Shanghai", {}))
    history.register("cus_9", territory="ter_east", import_id="imp_1")
    history.claim("cus_9", "per_b", import_id="imp_1")
    models.project(history, batch=batch)
    assert due(models.connection, FOR_EVER) == []
    history.fact(facts.PolicyAdopted(2, {"recycling": RULES}))
    models.project(history, batch=batch)
    _check(models, history)
    assert len(due(models.connection, FOR_EVER)) == 3
    closing = history.fact(facts.ImportClosed("imp_1"))
    west = [{"territories": ["ter_west"], "follow_up_days": 39}]
    models.project(history, batch=batch)
    assert closing
    assert {row.customer for row in due(models.connection, FOR_EVER)} >= {"cus_9"}
    ahead = history.now.date() + timedelta(days=10)
    history.fact(facts.PersonAway("per_a", ahead, ahead + timedelta(days=5)))
    history.fact(facts.PersonLeft("per_b", ahead))
    models.project(history, batch=batch)
    _check(models, history)
    history.fact(facts.AbsenceEnded("per_a", ahead + timedelta(days=2)))
    models.project(history, batch=batch)
    _check(models, history)
    assert {row.owner for row in due(models.connection, FOR_EVER)} == {"per_a"}
    history.fact(facts.PolicyAdopted(3, {"recycling": {"rules": west}}))
    models.project(history, batch=batch)
    assert due(models.connection, FOR_EVER) == []
    history.territory("ter_west")
    history.fact(facts.TerritoryDefined("ter_east", "华东", "ter_west", "per_head"))
    models.project(history, batch=batch)
    _check(models, history)
    assert {row.owner for row in due(models.connection, FOR_EVER)} == {"per_a"}


@BATCHES
def test_won_deals_are_counted_as_the_settled_state_counts_them(models: Models, batch: int) -> None:
    history = _history(2, {"rules": [{"won_deals_min": 2}, {"follow_up_days": 31}]})
    history.ask(requests.DealRecorded("cus_9", "dea_none", "per_a", "won"))
    lost = history.deal("cus_0", "per_a", "lost")
    won = history.deal("cus_0", "per_b")
    models.project(history, batch=batch)
    _check(models, history)
    history.ask(requests.DealCorrected("cus_0", lost, "wrong", outcome="won"))
    history.ask(requests.DealCorrected("cus_0", lost, "wrong", product="press"))
    history.ask(requests.DealRecorded("cus_0", lost, "per_a", "won"))
    models.project(history, batch=batch)
    _check(models, history)
    assert {row.customer for row in due(models.connection, FOR_EVER)} == {"cus_1"}
    history.ask(requests.DealVoided("cus_0", won, "fell_through"))
    models.project(history, batch=batch)
    _check(models, history)
    assert {row.customer for row in due(models.connection, FOR_EVER)} == {"cus_0", "cus_1"}
    before = digests(models.connection, models.projections, LIVE)
    models.rebuild()
    assert digests(models.connection, models.projections, LIVE) == before


@BATCHES
def test_a_calendar_moves_what_is_due_where_working_days_count(models: Models, batch: int) -> None:
    history = _history(recycling={"rules": [{"follow_up_days": 31}], "days": "working"})
    models.project(history, batch=batch)
    _check(models, history)
    before = due(models.connection, FOR_EVER)
    ahead = [history.now.date() + timedelta(days=number) for number in range(3, 30)]
    # Several in one go, as they are seeded; the last one moves nothing by itself.
    years = (ahead[0].year, ahead[0].year + 1, ahead[0].year + 2)
    for year in years:
        free = tuple(each for each in ahead if each.year == year and each.weekday() < 3)
        history.fact(facts.CalendarStated(year, free, ()))
    models.project(history, batch=batch)
    _check(models, history)
    later = due(models.connection, FOR_EVER)
    assert all(new.due > old.due for old, new in zip(before, later, strict=True))
    for year in years:
        history.fact(facts.CalendarStated(year))
    models.project(history, batch=batch)
    assert due(models.connection, FOR_EVER) == before
    history.fact(facts.PolicyAdopted(2, {"recycling": {"rules": [{"follow_up_days": 31}]}}))
    year = ahead[0].year
    free = tuple(each for each in ahead if each.year == year and each.weekday() < 3)
    history.fact(facts.CalendarStated(year, free))
    models.project(history, batch=batch)
    _check(models, history)
    falls = [row.falls for row in due(models.connection, FOR_EVER) if row.falls is not None]
    assert last_fall(models.connection) == max(falls)
    digested = digests(models.connection, models.projections, LIVE)
    models.rebuild()
    assert digests(models.connection, models.projections, LIVE) == digested


@BATCHES
def test_a_token_follow_up_moves_nothing_and_is_told(models: Models, batch: int) -> None:
    history = _history(1)

    def follow_up(name: str, note: str, contact: str | None = None) -> None:
        logged = requests.FollowUpLogged(
            "cus_0", name, "per_a", "call", contact=contact, note_digest=note
        )
        history.later(hours=1).ask(logged, actor="per_a", occurred=history.now)

    follow_up("fol_1", "aa")
    models.project(history, batch=batch)
    _check(models, history)
    before = due(models.connection, FOR_EVER)
    follow_up("fol_2", "aa")
    follow_up("fol_3", "aa", contact="con_9")
    models.project(history, batch=batch)
    _check(models, history)
    assert due(models.connection, FOR_EVER) == before
    shown = {each.follow_up: each for each in follow_ups_of(models.connection, "cus_0")}
    assert [(each.remark, each.by_owner) for each in shown.values()] == [
        (None, True),
        ("token_follow_up", True),
        ("contact_unknown", True),
    ]
    told = [sentence(each, {"per_a": "李想"}) for each in timeline(models.connection, "cus_0")]
    for number in (-3, -1):
        assert told[number].endswith("It does not count against recycling. The owner is 李想.")
    # Voided, the first counts no more, and what repeated it does.
    history.ask(requests.FollowUpVoided("cus_0", "fol_1", "double"), actor="per_a")
    models.project(history, batch=batch)
    _check(models, history)
    assert due(models.connection, FOR_EVER)[0].due > before[0].due
    digested = digests(models.connection, models.projections, LIVE)
    models.rebuild()
    assert digests(models.connection, models.projections, LIVE) == digested


@BATCHES
def test_a_hold_and_its_refusal_are_told(models: Models, batch: int) -> None:
    history = _history()
    until = date.today() + timedelta(days=20)  # noqa: DTZ011 - any day that lies ahead
    for person in ("per_a", "per_head"):
        reason = history.seal("cus_0", "reason", "大单")
        request = requests.RecycleHoldRequested("cus_0", until, "tender", reason)
        history.ask(request, actor=person)
    models.project(history, batch=batch)
    _check(models, history)
    names = {"per_a": "李想", "per_head": "赵敏"}
    told = [sentence(each, names) for each in timeline(models.connection, "cus_0")][-4:]
    assert told[0] == (
        f"李想 asked not to recycle the customer before {until} (tender). (reason: 大单)"
    )
    assert told[1].startswith("The hold was refused: Only a head")
    assert told[3].startswith("Recycling is held until ")


def _state_something(history: History, random: Random) -> None:
    """Adopt another policy, or state the days of this year or the next."""
    if random.random() < 0.5:
        number = history.organisation.latest.policy.number + 1
        rules: list[dict[str, Any]] = [{"follow_up_days": random.choice([10, 20]), "deal_days": 45}]
        if random.random() < 0.5:
            rules.insert(0, {"won_deals_min": 1})
        recycling = {"rules": rules, "days": random.choice(["working", "calendar"])}
        history.fact(facts.PolicyAdopted(number, {"recycling": recycling, "conflict_kinds": []}))
        return
    for year in (history.now.year, history.now.year + 1):
        days = [date(year, 1, 1) + timedelta(days=random.randrange(365)) for _ in range(80)]
        free = {each for each in days if each.weekday() < 5}
        stated = facts.CalendarStated(year, tuple(sorted(free)), tuple(sorted(set(days) - free)))
        history.fact(stated)


@pytest.mark.parametrize("begins", [0, 50])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_what_is_due_is_what_the_decider_would_say(
    models: Models, seed: int, begins: int
) -> None:
    """Also where a policy recycles for the first time in the middle of a history."""
    random = Random(seed)  # noqa: S311 - which history it is, and no secret
    recycling = {"rules": [{"follow_up_days": 20, "deal_days": 45}]}
    history = _history(6, recycling if begins == 0 else {"rules": []})
    customers = [f"cus_{number}" for number in range(6)]
    made: list[tuple[str, str]] = []
    won: list[tuple[str, str]] = []
    for step in range(120):
        if step == begins > 0:
            history.fact(facts.PolicyAdopted(2, {"recycling": recycling}))
        customer, person = random.choice(customers), random.choice(["per_a", "per_b", "per_head"])
        name = f"trf_{step}"
        match random.choice("fffgggdlvctwaahrsnnn"):
            case "f":
                made.append((customer, history.follow_up(customer, person)))
            case "g":
                note = random.choice(["aa", "bb", None])
                act = f"fol_{step}"
                logged = requests.FollowUpLogged(customer, act, person, "call", note_digest=note)
                history.ask(logged, actor=person, occurred=history.now)
                made.append((customer, act))
            case "d":
                won.append((customer, history.deal(customer, person)))
            case "l" if won:
                at, act = won.pop()
                history.ask(requests.DealCorrected(at, act, "wrong", outcome="lost"))
            case "s":
                _state_something(history, random)
            case "v" if made:
                at, act = made.pop()
                history.ask(requests.FollowUpVoided(at, act, "double"))
            case "c":
                history.claim(customer, person)
            case "t":
                receiver = random.choice(["per_a", "per_b"])
                history.ask(requests.TransferRequested(customer, name, receiver, "x"), actor=person)
            case "w" | "a":
                state: Any = history.settled.customers[customer]
                if state.approval is not None:
                    asked = state.approval.approval
                    history.ask(requests.ApprovalGiven(customer, asked), actor=person)
                    history.ask(requests.ApprovalDenied(customer, asked, "no"), actor="per_admin")
            case "h":
                until = history.organisation.latest.day(history.now) + timedelta(days=4)
                hold = requests.RecycleHoldRequested(customer, until, "x")
                history.ask(hold, actor=person)
            case "r":
                history.release(customer)
            case _ if _next(history, customer) is not None:
                _raise_next(history, customer)
            case _:
                pass
        history.later(hours=random.choice([1, 5, 30]))
        if step % 40 == 39:
            models.project(history, batch=random.choice([1, 7, 500]))
            rows = due(models.connection, FOR_EVER)
            for row in rows:
                found = _next(history, row.customer)
                assert found is not None
                # What has begun meanwhile may put it off; the clock is told when it asks.
                assert (row.subject, row.due) == (found.subject, found.due) or found.due > row.due
            assert {row.customer for row in rows} == {
                customer for customer in customers if _next(history, customer) is not None
            }
    before = digests(models.connection, models.projections, LIVE)
    models.rebuild()
    assert digests(models.connection, models.projections, LIVE) == before
