"""Which facts of the organisation may be recorded, by its state and by each other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from ledger import organisation_commands as facts_in
from ledger.building import FactContext, Ids, build_fact
from ledger.commands import InvalidRequestError, UnknownIdError, parse
from ledger.conditions import Condition
from ledger.deciders import DeciderMissingError
from ledger.errors import LedgerError
from ledger.events import organisation as facts
from ledger.events.values import Sealed
from ledger.organisation import OrganisationAt
from ledger.organisation_checks import check_facts
from ledger.policy import Policy, TerritoryRule
from ledger.recycling_rules import RecycleRule, Recycling
from tests.ledger.test_organisation import organisation

NOW = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
TODAY, LATER = date(2026, 3, 2), date(2026, 3, 9)
NAME = Sealed("key_1", "AA==")
ZONE = "Asia/Shanghai"

COMPANY = organisation(
    facts.OrganisationFounded("公司", ZONE),
    facts.TerritoryDefined("ter_all", "全国"),
    facts.TerritoryDefined("ter_east", "华东", "ter_all"),
    facts.PersonJoined("per_admin", NAME, None, ("admin",)),
    facts.PersonJoined("per_1", NAME, "ter_east"),
    facts.PersonJoined("per_gone", NAME, "ter_east", ("admin",)),
    facts.PersonLeft("per_gone", TODAY),
    facts.ImportOpened("imp_open", "crm", ZONE),
    facts.ImportOpened("imp_closed", "crm", ZONE),
    facts.ImportClosed("imp_closed"),
).latest


def check(*commands: facts_in.FactCommand, at: OrganisationAt = COMPANY) -> None:
    abouts: Sequence[str | None] = [
        build_fact(each, Ids(), lambda *_: NAME, FactContext(0, {}))[1] for each in commands
    ]
    check_facts(commands, abouts, at, NOW)


def person(name: str = "per_new", *roles: Any, **fields: Any) -> facts_in.AddPerson:
    return facts_in.AddPerson(person=name, name="王芳", roles=roles or ("rep",), **fields)


def territory(name: str, parent: str | None = None, **fields: Any) -> facts_in.DefineTerritory:
    return facts_in.DefineTerritory(territory=name, name="区", parent=parent, **fields)


def test_a_recycling_rule_for_a_territory_that_is_none_is_refused() -> None:
    """Finding: it was adopted, and matched no customer ever."""
    for territories in (("ter_east",), ("ter_none",)):
        rule = RecycleRule(territories=territories, follow_up_days=31)
        policy = facts_in.AdoptPolicy(policy=Policy(recycling=Recycling(rules=(rule,))))
        with nullcontext() if "ter_east" in territories else pytest.raises(UnknownIdError):
            check(policy)


def asking(**approver: Any) -> Policy:
    steps = ({"approvers": [approver]},)
    return Policy.model_validate({"approval_rules": [{"steps": steps}]})


def test_a_policy_that_asks_somebody_unknown_is_refused() -> None:
    """It was adopted, and from then on whatever it was to be approved by nobody stood still.

    So it is of an import's own policy, which was not looked at.
    """
    check(facts_in.AdoptPolicy(policy=asking(kind="person", person="per_1")))
    check(person(), facts_in.AdoptPolicy(policy=asking(kind="person", person="per_new")))
    check(facts_in.AdoptPolicy(policy=asking(kind="role", role="auditor")))
    for policy, error in (
        (asking(kind="person", person="per_none"), UnknownIdError),
        (asking(kind="role", role="boss"), InvalidRequestError),
    ):
        with pytest.raises(error):
            check(facts_in.AdoptPolicy(policy=policy))
        with pytest.raises(error):
            check(opening(policy=policy))


def test_whoever_returns_is_said_to_on_the_day() -> None:
    """Whoever was said to return on a day to come owned and judged again from then on, at once."""
    check(returned("per_gone"))
    ahead = facts_in.MarkReturned(person="per_gone", returned_on=TODAY + timedelta(days=1))
    with pytest.raises(InvalidRequestError, match="lies ahead"):
        check(ahead)


def test_only_an_absence_or_delegation_in_which_the_day_lies_is_ended() -> None:
    at = organisation(
        facts.PersonJoined("per_1", NAME, "ter_east"),
        facts.PersonAway("per_1", TODAY, LATER),
        facts.DelegateNamed("per_1", "per_2", TODAY, LATER),
    ).latest
    for day, within in ((TODAY, True), (LATER, False), (TODAY - timedelta(days=1), False)):
        for command in (
            facts_in.EndAbsence(person="per_1", back_on=day),
            facts_in.EndDelegation(person="per_1", ended_on=day),
        ):
            with nullcontext() if within else pytest.raises(InvalidRequestError):
                check(command, at=at)
    with pytest.raises(UnknownIdError):
        check(facts_in.EndAbsence(person="per_none", back_on=TODAY), at=at)


def test_a_year_may_be_stated_at_any_time_and_again() -> None:
    holiday, worked = date(2026, 10, 1), date(2026, 10, 10)
    year = facts_in.StateCalendar(year=2026, holidays=(holiday,), workdays=(worked,))
    check(year, year)
    stated, about = build_fact(year, Ids(), lambda *_: NAME, FactContext(0, {}))
    assert (stated, about) == (facts.CalendarStated(2026, (holiday,), (worked,)), "2026")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"holidays": ["2026-10-03"]}, "a holiday is a Saturday or Sunday"),
        ({"workdays": ["2026-10-01"]}, "a working day is none of a weekend"),
        ({"holidays": ["2025-10-01"]}, "a day lies in another year"),
        ({"holidays": ["2026-10-01", "2026-10-01"]}, "a day is named twice"),
        ({"year": 1800}, "greater than or equal to 1900"),
        ({"holidays": ["2026-13-01"]}, "valid date"),
    ],
)
def test_calendars_that_make_no_sense_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        parse(facts_in.StateCalendar, {"year": 2026, **fields})


def left(name: str = "per_1") -> facts_in.MarkLeft:
    return facts_in.MarkLeft(person=name, left_on=TODAY)


def roles(name: str, *given: Any) -> facts_in.ChangePerson:
    return facts_in.ChangePerson(person=name, territory=None, roles=given)


def away(name: str) -> facts_in.MarkAway:
    return facts_in.MarkAway(person=name, from_day=TODAY, until_day=LATER)


def delegate(name: str, to: str) -> facts_in.NameDelegate:
    return facts_in.NameDelegate(person=name, delegate=to, from_day=TODAY, until_day=LATER)


def returned(name: str) -> facts_in.MarkReturned:
    return facts_in.MarkReturned(person=name, returned_on=TODAY)


def opening(import_id: str | None = None, **fields: Any) -> facts_in.OpenImport:
    return facts_in.OpenImport(import_id=import_id, name="crm", time_zone=ZONE, **fields)


def ruled(name: str) -> facts_in.AdoptPolicy:
    rule = TerritoryRule(
        territory=name, conditions=(Condition(attribute="a", operator="is", value="b"),)
    )
    return facts_in.AdoptPolicy(policy=Policy(territory_rules=(rule,)))


@pytest.mark.parametrize(
    "commands",
    [
        [person()],
        [person(territory="ter_east")],
        [territory("ter_new", "ter_east", head="per_1", managers=("per_admin",))],
        [territory("ter_east", None)],
        [left()],
        [left("per_gone")],
        [returned("per_gone")],
        [left(), returned("per_1"), left()],
        [roles("per_1", "manager", "rep")],
        [away("per_1"), delegate("per_1", "per_admin")],
        [ruled("ter_east")],
        [facts_in.AdoptDecider(version=1)],
        [opening()],
        [opening("imp_new", cut_over=NOW - timedelta(days=9))],
        [facts_in.CloseImport(import_id="imp_open")],
        [opening("imp_new"), facts_in.CloseImport(import_id="imp_new")],
    ],
)
def test_what_agrees_with_the_organisation_may_be_recorded(
    commands: list[facts_in.FactCommand],
) -> None:
    check(*commands)


def test_facts_of_one_request_may_name_each_others_in_any_order() -> None:
    check(
        territory("ter_new", "ter_newer", head="per_new", managers=("per_newer",)),
        ruled("ter_newer"),
        person("per_new", territory="ter_newer"),
        territory("ter_newer"),
        person("per_newer"),
        delegate("per_new", "per_last"),
        person("per_last"),
    )


@pytest.mark.parametrize(
    ("command", "unknown"),
    [
        (person(territory="ter_none"), "ter_none"),
        (territory("ter_new", "ter_none"), "ter_none"),
        (territory("ter_new", head="per_none"), "per_none"),
        (territory("ter_new", managers=("per_1", "per_none")), "per_none"),
        (facts_in.ChangePerson(person="per_1", territory="ter_none", roles=()), "ter_none"),
        (delegate("per_1", "per_none"), "per_none"),
        (ruled("ter_none"), "ter_none"),
        (facts_in.CloseImport(import_id="imp_none"), "imp_none"),
        (facts_in.CloseImport(import_id="imp_closed"), "imp_closed"),
    ],
)
def test_what_is_not_there_cannot_be_named(command: facts_in.FactCommand, unknown: str) -> None:
    with pytest.raises(UnknownIdError) as error:
        check(command)
    assert error.value.unknown == unknown


@pytest.mark.parametrize(
    "command",
    [
        left("per_none"),
        returned("per_none"),
        roles("per_none", "rep"),
        away("per_none"),
        delegate("per_none", "per_1"),
    ],
)
def test_nothing_is_said_of_a_person_who_never_joined(command: facts_in.FactCommand) -> None:
    """It was: the person that a fact is about counted as one that it makes.

    Folding such a fact fails, so that from then on nobody could read the organisation, record
    anything, or decide.
    """
    with pytest.raises(UnknownIdError) as error:
        check(command)
    assert error.value.unknown == "per_none"


def test_nothing_is_said_of_a_person_before_they_join() -> None:
    """Both in one request passed in the wrong order as well, with the same end."""
    check(person(), left("per_new"))
    with pytest.raises(UnknownIdError):
        check(left("per_new"), person())


@pytest.mark.parametrize(
    ("commands", "field"),
    [
        ([facts_in.FoundOrganisation(name="公司", time_zone=ZONE)], "name"),
        ([person("per_1")], "person"),
        ([person("per_gone")], "person"),
        ([person("per_new"), person("per_new")], "person"),
        ([returned("per_1")], "person"),
        ([left(), returned("per_1"), returned("per_1")], "person"),
        ([territory("ter_all", "ter_all")], "parent"),
        ([territory("ter_new", "ter_new")], "parent"),
        ([territory("ter_all", "ter_east")], "parent"),
        ([opening("imp_open")], "import_id"),
        ([opening("imp_closed")], "import_id"),
        ([opening("imp_new"), opening("imp_new")], "import_id"),
        ([opening(cut_over=NOW + timedelta(days=1))], "cut_over"),
        ([opening(cut_over=datetime(1, 1, 1, tzinfo=UTC))], "cut_over"),
    ],
)
def test_what_contradicts_what_holds_is_refused(
    commands: list[facts_in.FactCommand], field: str
) -> None:
    """An import opened again took other rules, a cut-over to come pinned customers to it."""
    with pytest.raises(InvalidRequestError) as error:
        check(*commands)
    assert error.value.field == field


@pytest.mark.parametrize(
    "commands",
    [
        [territory("ter_x", "ter_y"), territory("ter_y", "ter_x")],
        [territory("ter_x", "ter_east"), territory("ter_all", "ter_x")],
    ],
)
def test_territories_of_one_request_make_no_circle(commands: list[facts_in.FactCommand]) -> None:
    """Each was compared with the organisation as it was before, where there was none."""
    with pytest.raises(InvalidRequestError, match="above itself"):
        check(*commands)


def test_a_circle_may_be_opened_and_closed_otherwise() -> None:
    check(territory("ter_east", None), territory("ter_all", "ter_east"))


def test_an_organisation_is_founded_once_in_a_request() -> None:
    founding = facts_in.FoundOrganisation(name="公司", time_zone=ZONE)
    check(founding, at=organisation().latest)
    with pytest.raises(InvalidRequestError, match="founded before"):
        check(founding, founding, at=organisation().latest)


# --- administrators -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "commands",
    [
        [left("per_admin")],
        [roles("per_admin", "rep")],
        [roles("per_1", "admin"), left("per_1"), left("per_admin")],
        [person("per_new", "admin"), roles("per_new", "rep"), left("per_admin")],
    ],
)
def test_an_administrator_remains(commands: list[facts_in.FactCommand]) -> None:
    """Without one nobody may record facts, hence name another: the ledger was locked for ever."""
    with pytest.raises(InvalidRequestError, match="an administrator must remain"):
        check(*commands)


@pytest.mark.parametrize(
    "commands",
    [
        [roles("per_1", "admin"), left("per_admin")],
        [left("per_admin"), person("per_new", "admin")],
        [roles("per_admin", "admin", "manager")],
        [left("per_admin"), returned("per_admin")],
        [roles("per_admin", "rep"), roles("per_admin", "admin")],
    ],
)
def test_an_administrator_may_go_where_another_takes_over(
    commands: list[facts_in.FactCommand],
) -> None:
    check(*commands)


def test_where_there_never_was_an_administrator_none_must_remain() -> None:
    reps = organisation(facts.PersonJoined("per_1", NAME)).latest
    check(left("per_1"), at=reps)


# --- deciders -----------------------------------------------------------------------------------


def test_a_decider_that_is_not_there_is_not_adopted() -> None:
    with pytest.raises(DeciderMissingError):
        check(facts_in.AdoptDecider(version=99))


def test_a_decider_never_goes_back() -> None:
    newer = organisation(facts.DeciderAdopted(2)).latest
    with pytest.raises(InvalidRequestError, match="never goes back"):
        check(facts_in.AdoptDecider(version=1), at=newer)


def test_every_refusal_says_what_to_do() -> None:
    for command in (left("per_none"), person("per_1"), facts_in.AdoptDecider(version=99)):
        with pytest.raises(LedgerError) as error:
            check(command)
        assert error.value.way_out
