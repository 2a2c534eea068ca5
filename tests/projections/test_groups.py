"""Groups in the read models: their conflicts, whose their members are, and how it is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ledger import reasons
from ledger.deadlines import CLOCK
from ledger.events import requests
from ledger.events.organisation import PolicyAdopted
from ledger.events.values import Identifier
from projections.conflicts import list_conflicts
from projections.deadlines import due
from projections.groups import Split, owned_members, split_unseen
from projections.telling import sentence
from projections.timeline import at_positions, latest_of_groups
from projections.timeline import history as timeline
from tests.projections.history import History
from tests.projections.models import Models

BATCHES = pytest.mark.parametrize("batch", [1, 3, 2_000])


def company(**rules: Any) -> History:
    kinds = ["group", "identifier"]
    history = History().found(protection_days=0, conflict_kinds=kinds, **rules)
    history.territory("ter_east", head="per_head")
    history.join("per_head", "ter_east", ("manager",))
    for person in ("per_a", "per_b", "per_c"):
        history.join(person, "ter_east")
    return history


def group(history: History, *members: str, root: str = "cus_root") -> History:
    history.register(root)
    for member in members:
        request = requests.RegistrationRequested(member, "organisation", "分公司", parent=root)
        history.ask(request)
    return history


@BATCHES
def test_a_groups_conflict_stands_at_its_root_and_its_proofs_at_the_members(
    models: Models, batch: int
) -> None:
    history = group(company(), "cus_1", "cus_2", "cus_3")
    history.claim("cus_1", "per_a")
    second = history.claim("cus_2", "per_b")
    third = history.later(hours=1).claim("cus_3", "per_c")
    models.project(history, batch=batch)
    (row,) = list_conflicts(models.connection, is_open=True)
    assert (row.customer, row.kind, row.owner) == ("cus_root", "group", "per_a")
    assert (row.parties, row.evidence) == (("per_a", "per_b", "per_c"), (second, third))
    proofs = at_positions(models.connection, row.evidence)
    assert [(each.customer, each.event) for each in proofs] == [
        ("cus_2", "ClaimFiled"),
        ("cus_3", "ClaimFiled"),
    ]
    members = owned_members(models.connection, "cus_root")
    assert [(each.customer, each.owner) for each in members] == [
        ("cus_1", "per_a"),
        ("cus_2", "per_b"),
        ("cus_3", "per_c"),
    ]
    assert owned_members(models.connection, "cus_root", limit=1) == members[:1]
    assert [each.event for each in timeline(models.connection, "cus_2")] == [
        "RegistrationRequested",
        "CustomerAdmitted",
        "ClaimFiled",
        "OwnershipGranted",
    ]
    told = [sentence(each, {}) for each in timeline(models.connection, "cus_root")]
    assert told[-2:] == [
        "A conflict of per_a and per_b: members of one group under different owners;"
        " asked: per_head.",
        "One more proof of the conflict, which per_c joins; asked: per_head.",
    ]

    history.later(hours=1).release("cus_2")
    history.release("cus_3")
    models.project(history, batch=batch)
    (row,) = list_conflicts(models.connection, customer="cus_root")
    assert (row.outcome, row.reason_code, row.closed) == ("gone", reasons.ONE_OWNER, history.now)
    assert models.parked() == []


def test_a_groups_conflict_is_found_by_any_of_its_members(models: Models) -> None:
    """Only who knew the root's id found it."""
    history = group(company(), "cus_1", "cus_2")
    below = requests.RegistrationRequested("cus_11", "organisation", "支行", parent="cus_1")
    history.ask(below)
    history.register("cus_other")
    history.claim("cus_1", "per_a")
    conflict = f"cft_{history.claim('cus_2', 'per_b')}"
    history.ask(requests.RulingGiven("cus_root", conflict, "allow", "heard"), actor="per_head")
    history.ask(requests.FollowUpLogged("cus_root", "fol_1", "per_a", "call"), actor="per_a")
    models.project(history)
    for member in ("cus_root", "cus_1", "cus_11", "cus_2"):
        found = list_conflicts(models.connection, customer=member)
        assert [each.conflict for each in found] == [conflict]
    assert list_conflicts(models.connection, customer="cus_other") == []
    assert list_conflicts(models.connection, customer="cus_11", kind="deal") == []
    told = latest_of_groups(models.connection, "cus_11")
    assert [each.event for each in told] == ["ConflictClosed", "RulingGiven", "ConflictOpened"]
    assert {each.customer for each in told} == {"cus_root"}
    assert latest_of_groups(models.connection, "cus_11", before=told[1].position) == told[2:]
    assert latest_of_groups(models.connection, "cus_11", limit=1) == told[:1]
    for other in ("cus_root", "cus_other"):
        assert latest_of_groups(models.connection, other) == []


@pytest.mark.parametrize("days", [None, 30])
@BATCHES
def test_its_ruling_falls_due_at_a_root_that_nobody_owns(
    models: Models, batch: int, days: int | None
) -> None:
    rules = [] if days is None else [{"follow_up_days": days}]
    history = group(company(recycling={"rules": rules}), "cus_1", "cus_2")
    history.claim("cus_1", "per_a")
    conflict = f"cft_{history.claim('cus_2', 'per_b')}"
    for kind in ("ruling_reminder", "ruling_pass_on"):
        models.project(history, batch=batch)
        first = due(models.connection, history.now + timedelta(days=9))[0]
        assert (first.customer, first.kind, first.subject) == ("cus_root", kind, conflict)
        history.now = max(history.now, first.due)
        history.ask(requests.DeadlineReached("cus_root", kind, conflict, first.due), actor=CLOCK)
    # The root is owned and free again, and its conflict goes on.
    history.claim("cus_root", "per_a")
    history.release("cus_root")
    history.release("cus_2")
    models.project(history, batch=batch)
    (row,) = list_conflicts(models.connection)
    assert (row.outcome, row.reason_code) == ("gone", reasons.ONE_OWNER)
    assert "cus_root" not in {
        each.customer for each in due(models.connection, history.now + timedelta(days=99))
    }
    assert models.parked() == []


def test_of_many_parties_some_are_named(models: Models) -> None:
    history = company()
    people = [f"per_{number:02}" for number in range(9)]
    for person in people:
        history.join(person, "ter_east")
    for customer in ("cus_root", "cus_top"):
        group(history, *(f"{customer}_{number}" for number in range(9)), root=customer)
    for number, person in enumerate(people):
        history.claim(f"cus_root_{number}", person)
    history.ask(requests.CustomerChangeRequested("cus_root", parent="cus_top"))
    models.project(history)
    (told,) = (
        sentence(each, {})
        for each in timeline(models.connection, "cus_top")
        if each.event == "ConflictOpened"
    )
    assert told.startswith("A conflict of per_00 and per_01 and per_02 and per_03 and per_04")
    assert "per_04 and 4 others: members of one group" in told


@BATCHES
def test_who_registers_it_again_is_a_party(models: Models, batch: int) -> None:
    history = company()
    history.register("cus_1", uscc="91350100M000100Y43")
    history.claim("cus_1", "per_a")
    numbers = (Identifier("uscc", "91350100M000100Y43"),)
    again = requests.RegistrationRequested("cus_2", "organisation", "公司", numbers)
    position = history.ask(again, actor="per_b")
    models.project(history, batch=batch)
    (row,) = list_conflicts(models.connection, party="per_b")
    assert (row.customer, row.kind, row.evidence) == ("cus_1", "identifier", (position,))
    (proof,) = at_positions(models.connection, row.evidence)
    assert (proof.customer, proof.event) == ("cus_2", "RegistrationRequested")
    told = [sentence(each, {}) for each in timeline(models.connection, "cus_1")]
    assert told[-1] == (
        "A conflict of per_a and per_b: the same identifier entered again; asked: per_head."
    )


@BATCHES
def test_groups_that_were_split_unseen_are_listed_until_they_were_reviewed(
    models: Models, batch: int
) -> None:
    history = History().found(protection_days=0)
    history.join("per_a")
    history.join("per_b")
    for root, owners in (("cus_x", "ab"), ("cus_y", "aa"), ("cus_z", "ba")):
        group(history, *(f"{root}_{number}" for number in (1, 2)), root=root)
        for number, owner in enumerate(owners, 1):
            history.claim(f"{root}_{number}", f"per_{owner}")
    history.register("cus_alone")
    history.claim("cus_alone", "per_a")
    models.project(history, batch=batch)
    listed = [Split("cus_x", 2, 2), Split("cus_z", 2, 2)]
    assert split_unseen(models.connection) == listed
    assert split_unseen(models.connection, limit=1) == listed[:1]

    history.fact(PolicyAdopted(2, {"conflict_kinds": ["group"]}))
    for member in ("cus_x_1", "cus_y_1"):
        history.ask(requests.GroupReviewRequested(member))
    models.project(history, batch=batch)
    assert split_unseen(models.connection) == listed[1:]
    (row,) = list_conflicts(models.connection, customer="cus_x_1")
    assert (row.customer, row.parties) == ("cus_x", ("per_a", "per_b"))
    asked = "per_admin asked whether the customer's group is under several owners."
    told = [sentence(each, {}) for each in timeline(models.connection, "cus_x_1")]
    assert told[-2] == asked
    told = [sentence(each, {}) for each in timeline(models.connection, "cus_y_1")]
    assert told[-2:] == [
        asked,
        f"The review found no conflict: {reasons.SENTENCES[reasons.GROUP_NOT_SPLIT]}",
    ]
    assert models.parked() == []
