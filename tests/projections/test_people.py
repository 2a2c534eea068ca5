"""People, territories, policies and imports: given facts, then rows."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from ledger.events import organisation as facts
from ledger.events.catalogue import catalogue
from ledger.events.values import ForeignId
from ledger.organisation import Absence, Delegation, Territory
from projections import people
from projections.base import Projection
from projections.people import People, PeopleFound, Person
from projections.rebuild import compare
from tests.projections.failing import FailsOnce
from tests.projections.history import History, OpenUnsealer
from tests.projections.models import Models


def join(history: History, person: str, name: str, *foreign: ForeignId) -> int:
    """Let somebody join with a name, a phone and numbers elsewhere."""
    return history.fact(
        facts.PersonJoined(
            person,
            history.seal(person, "name", name),
            "ter_east",
            ("rep",),
            date(2026, 1, 5),
            foreign,
            history.seal(person, "phone", "13800138000"),
        )
    )


def people_only(models: Models, *destroyed: str) -> Models:
    """Keep only the read model of people, where the keys of some were destroyed."""
    models.projections = [People(OpenUnsealer([f"key_{each}" for each in destroyed]))]
    return models


def known(models: Models, person: str) -> Person:
    """Return a person that must be there."""
    found = people.person(models.connection, person)
    assert found is not None
    return found


def ids(found: tuple[Person, ...]) -> list[str]:
    return [each.person for each in found]


def test_who_joined_is_shown_with_all_that_was_said(models: Models) -> None:
    history = History()
    join(history, "per_1", "张伟", ForeignId("crm", "007"))
    history.fact(facts.PersonAway("per_1", date(2026, 3, 1), date(2026, 3, 8)))
    history.fact(facts.DelegateNamed("per_1", "per_2", date(2026, 3, 1), date(2026, 3, 8)))
    people_only(models).project(history)
    assert known(models, "per_1") == Person(
        "per_1",
        "张伟",
        "ter_east",
        ("rep",),
        date(2026, 1, 5),
        None,
        "13800138000",
        None,
        (ForeignId("crm", "007"),),
        (Absence(date(2026, 3, 1), date(2026, 3, 8)),),
        (Delegation("per_2", date(2026, 3, 1), date(2026, 3, 8)),),
    )
    assert people.person(models.connection, "per_2") is None


def test_a_change_without_a_name_keeps_the_name_and_one_with_a_name_replaces_it(
    models: Models,
) -> None:
    history = History()
    join(history, "per_1", "张伟")
    history.fact(facts.PersonChanged("per_1", "ter_north", ("rep", "manager")))
    people_only(models).project(history)
    changed = known(models, "per_1")
    assert (changed.name, changed.territory, changed.roles) == (
        "张伟",
        "ter_north",
        ("rep", "manager"),
    )
    married = history.seal("per_1", "name", "张伟民")
    history.fact(facts.PersonChanged("per_1", "ter_west", ("rep",), married))
    models.project(history)
    assert (known(models, "per_1").name, known(models, "per_1").territory) == ("张伟民", "ter_west")


def test_who_left_has_left_from_that_day_on_and_is_there_again_after_returning(
    models: Models,
) -> None:
    history = History()
    join(history, "per_1", "张伟")
    history.fact(facts.PersonLeft("per_1", date(2026, 6, 1)))
    people_only(models).project(history)
    gone = known(models, "per_1")
    assert not people.has_left(gone, date(2026, 5, 31))
    assert people.has_left(gone, date(2026, 6, 1))
    history.fact(facts.PersonReturned("per_1", date(2026, 9, 1)))
    models.project(history)
    back = known(models, "per_1")
    assert not people.has_left(back, date(2026, 6, 1))
    assert back.joined_on == date(2026, 9, 1)


@pytest.mark.parametrize("batch", [1, 100])
def test_absences_and_delegations_end_before_their_day(models: Models, batch: int) -> None:
    history = History()
    join(history, "per_1", "张伟")
    day = [date(2026, 3, number) for number in range(32)[1:]]
    history.fact(facts.PersonAway("per_1", day[0], day[8]))
    history.fact(facts.DelegateNamed("per_1", "per_2", day[2], day[8]))
    history.fact(facts.AbsenceEnded("per_1", day[4]))
    history.fact(facts.DelegationEnded("per_1", day[2]))
    # Stated behind it: nothing has ended that.
    history.fact(facts.PersonAway("per_1", day[3], day[6]))
    people_only(models).project(history, batch=batch)
    found, folded = known(models, "per_1"), history.organisation.latest.person("per_1")
    assert found.absences == (Absence(day[0], day[4]), Absence(day[3], day[6]))
    assert found.delegations == ()
    assert folded is not None
    assert (folded.absences, folded.delegations) == (found.absences, found.delegations)


def test_people_are_listed_in_the_order_of_joining_a_page_at_a_time(models: Models) -> None:
    history = History()
    for number in (3, 1, 2):
        join(history, f"per_{number}", f"名{number}")
    people_only(models).project(history)
    first = people.list_people(models.connection, limit=2)
    assert [each.person for each in first] == ["per_3", "per_1"]
    rest = people.list_people(models.connection, after="per_1", limit=2)
    assert [each.person for each in rest] == ["per_2"]
    assert people.list_people(models.connection, territory="ter_west") == []


def test_somebody_is_found_by_id_whole_name_and_foreign_id(models: Models) -> None:
    history = History()
    join(history, "per_1", "Zhang Wei", ForeignId("crm", "A-007"))
    join(history, "per_2", "李娜", ForeignId("erp", "A-007"))
    people_only(models).project(history)

    def found(text: str) -> PeopleFound:
        return people.find_people(models.connection, text)

    assert ids(found("per_2").exact) == ["per_2"]
    # Full-width letters, another case, more spaces: the same name.
    assert ids(found("ＺＨＡＮＧ  wei").exact) == ["per_1"]
    assert ids(found("a007").exact) == ["per_1", "per_2"]
    assert ids(found("ERP:A-007").exact) == ["per_2"]
    assert found("per_2").near == ()


def test_an_unknown_name_or_id_suggests_near_ones_the_nearest_first(models: Models) -> None:
    history = History()
    for number, name in enumerate(("张伟", "张玮琪", "李娜", "Anna Schmidt")):
        join(history, f"per_0000{number}", name)
    people_only(models).project(history)

    def near(text: str) -> list[str]:
        found = people.find_people(models.connection, text)
        assert found.exact == ()
        return ids(found.near)

    assert near("张纬")[0] == "per_00000"
    assert near("Ana Schmitt") == ["per_00003"]
    assert "per_00002" in near("per_0002")
    assert near("王五") == []


def test_every_candidate_is_looked_at_and_not_just_the_first_page(models: Models) -> None:
    history = History()
    for number in range(2_100):
        join(history, f"per_{number:05}", f"员工{number:05}")
    join(history, "per_99999", "欧阳修")
    people_only(models).project(history)
    assert ids(people.find_people(models.connection, "欧阳秀").near) == ["per_99999"]


def test_an_erased_name_is_none_and_nobody_is_found_by_it(models: Models) -> None:
    history = History()
    join(history, "per_1", "张伟")
    join(history, "per_2", "李娜")
    people_only(models, "per_1").project(history)
    assert (known(models, "per_1").name, known(models, "per_1").phone) == (None, None)
    assert people.names(models.connection, ["per_1", "per_2", "per_3"]) == {
        "per_1": None,
        "per_2": "李娜",
    }
    assert people.find_people(models.connection, "张伟") == PeopleFound((), ())


def test_territories_are_as_defined_last_and_read_as_a_tree(models: Models) -> None:
    history = History()
    history.territory("ter_b", "ter_all")  # its parent is defined later
    history.territory("ter_all")
    history.territory("ter_a", "ter_all")
    history.fact(
        facts.TerritoryDefined(
            "ter_b", "华东", "ter_a", "per_1", ("per_2",), (ForeignId("crm", "E"),)
        )
    )
    history.territory("ter_lost", "ter_nowhere")
    people_only(models).project(history)
    listed = people.list_territories(models.connection)
    assert [each.territory for each in listed] == ["ter_b", "ter_all", "ter_a", "ter_lost"]
    assert listed[0] == Territory(
        "ter_b",
        "华东",
        "ter_a",
        "per_1",
        frozenset({"per_1", "per_2"}),
        (ForeignId("crm", "E"),),
    )
    tree = people.territory_tree(models.connection)
    assert [(each.territory.territory, each.depth) for each in tree] == [
        ("ter_all", 0),
        ("ter_a", 1),
        ("ter_b", 2),
        ("ter_lost", 0),
    ]


def test_policies_imports_and_the_organisation_are_shown(models: Models) -> None:
    people_only(models).project(History())
    assert people.organisation(models.connection) == people.OrganisationProfile(None, "UTC", 1)
    history = History()
    history.fact(facts.DeciderAdopted(1))
    history.fact(facts.OrganisationFounded("华东机电", "Asia/Shanghai"))
    adopted = history.fact(facts.PolicyAdopted(1, {"holding_limit": 5}, "为了公平"))
    cut_over = datetime(2026, 1, 1, tzinfo=UTC)
    opened = history.fact(
        facts.ImportOpened("imp_1", "crm", "Asia/Shanghai", {"cooldown_days": 0}, cut_over)
    )
    models.project(history)
    assert people.organisation(models.connection) == people.OrganisationProfile(
        "华东机电", "Asia/Shanghai", 1
    )
    (policy,) = people.policies(models.connection)
    assert (policy.number, policy.position, policy.rules, policy.comment) == (
        1,
        adopted,
        {"holding_limit": 5},
        "为了公平",
    )
    (open_import,) = people.imports(models.connection)
    assert (open_import.opened_position, open_import.cut_over) == (opened, cut_over)
    assert open_import.closed_at is None
    history.fact(facts.ImportClosed("imp_1"))
    models.project(history)
    (closed_import,) = people.imports(models.connection)
    assert closed_import.closed_at is not None


def everything() -> History:
    """Return a history with every fact of a person."""
    history = History().found()
    history.territory("ter_east", head="per_1")
    for number in range(5):
        join(history, f"per_{number}", f"名{number}", ForeignId("crm", str(number)))
    history.fact(
        facts.PersonChanged("per_0", "ter_west", (), history.seal("per_0", "name", "新名"))
    )
    history.leave("per_0")
    history.fact(facts.PersonReturned("per_0", date(2026, 9, 1)))
    history.leave("per_1")
    history.territory("ter_east", head="per_2")
    return history


def test_rows_are_the_same_whatever_the_batches(models: Models) -> None:
    people_only(models).project(everything(), batch=1)
    assert compare(models.connect, models.projections, catalogue()) == []
    assert models.rows("SELECT count(*) FROM people") == [(6,)]


def test_a_failed_batch_leaves_nothing_behind_and_is_applied_again(models: Models) -> None:
    failing: Projection = FailsOnce(People(OpenUnsealer()))
    models.projections = [failing]
    models.project(everything())
    assert compare(models.connect, models.projections, catalogue()) == []
    assert models.parked() == []
