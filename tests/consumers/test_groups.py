"""Groups on the real database: their guards, their conflicts, and what an upgrade makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import psycopg
import pytest

from consumers.checking import would_decide
from consumers.enforcer import EnforcerLimits
from consumers.progress import FencedError
from consumers.rebuilding import compare_guards, rebuild_guards
from ledger import commands, reasons
from ledger import organisation_commands as facts
from ledger.envelope import Event
from ledger.events import decisions as d
from ledger.groups import Group
from ledger.policy import Policy
from ledger.recording import Asked
from ledger.settled import Settled
from ledger.store import guards
from tests.consumers.support import catch_up, check, enforcing
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger

PEOPLE = [f"per_{number:02}" for number in range(31)]
NUMBER = [{"system": "uscc", "value": "91350100M000100Y43"}]
POLICY = Policy(
    daily_claim_limit=None,
    protection_days=0,
    cooldown_days=0,
    approval_rules=(),
    conflict_kinds=("group", "identifier"),
)


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    """Thirty reps of a territory with a head, decided by version 2, where groups are seen."""
    with open_test_ledger(database) as opened:
        opened.found([*PEOPLE, "per_head"], POLICY)
        head = facts.DefineTerritory(territory="ter_1", name="华东", head="per_head")
        opened.recording.record_facts([head, facts.AdoptDecider(version=2)], opened.origin())
        yield opened


def group(ledger: TestLedger, members: int, branches: int = 10) -> list[str]:
    """Register a group, a tree of so many branches a customer; the root comes first."""
    customers = [ledger.register("集团")]
    for number in range(members):
        parent = customers[0 if number < branches else 1 + (number - branches) // branches]
        customers.append(ledger.register(f"分公司 {number}", parent=parent))
    return customers


def brought(ledger: TestLedger, *kinds: type) -> list[Event]:
    return [event for event in ledger.log() if isinstance(event.data, kinds)]


def held(ledger: TestLedger, customer: str) -> Group:
    settled = Settled()
    guards.read(ledger.connection, [("group", customer)], settled)
    return settled.group(customer)


@pytest.mark.parametrize("batch", [7, 500])
def test_two_hundred_members_split_among_thirty_owners(ledger: TestLedger, batch: int) -> None:
    limits = EnforcerLimits(batch_requests_max=batch)
    root, *members = group(ledger, 200)
    for number, member in enumerate(members):
        ledger.claim(member, PEOPLE[number * 7 % 30])
    catch_up(ledger, limits=limits)
    check(ledger)
    (opened,) = brought(ledger, d.ConflictOpened)
    assert opened.data.customer == root
    assert opened.stream == f"ownership-{root}"
    joined = [event.data.parties for event in brought(ledger, d.ConflictEvidenceAdded)]
    assert (
        sorted([*opened.data.parties, *(each for some in joined for each in some)]) == PEOPLE[:30]
    )
    assert sum(held(ledger, root).owners.values()) == 200

    allow = commands.Rule(customer=root, conflict=opened.data.conflict, ruling="allow")
    ledger.ask(allow, "per_head")
    for number, member in enumerate(members[:60]):
        owner = PEOPLE[number * 7 % 30]
        ledger.ask(commands.ReleaseCustomer(customer=member), owner)
        ledger.claim(member, PEOPLE[number % 30])
    catch_up(ledger, limits=limits)
    assert len(brought(ledger, d.ConflictOpened)) == 1
    ledger.ask(commands.ReleaseCustomer(customer=members[0]), PEOPLE[0])
    asked_anew = ledger.claim(members[0], PEOPLE[30])
    catch_up(ledger, limits=limits)
    assert [event.name for event in ledger.decisions(asked_anew)] == [
        "OwnershipGranted.v1",
        "ConflictOpened.v1",
    ]
    check(ledger)


def test_a_part_of_a_group_moves_to_another_and_back(ledger: TestLedger) -> None:
    root, *members = group(ledger, 30, branches=3)
    other, *_ = group(ledger, 3)
    for member, person in zip(members, PEOPLE * 2, strict=False):
        ledger.claim(member, person)
    ledger.ask(commands.ChangeCustomer(customer=members[0], parent=other))
    catch_up(ledger)
    check(ledger)
    assert sum(held(ledger, root).owners.values()) + sum(held(ledger, other).owners.values()) == 30
    (at_root, at_other) = brought(ledger, d.ConflictOpened)
    assert (at_root.data.customer, at_other.data.customer) == (root, other)
    ledger.ask(commands.ChangeCustomer(customer=other, parent=root))
    ledger.ask(commands.ChangeCustomer(customer=other, removed=("parent",)))
    ledger.ask(commands.ChangeCustomer(customer=members[0], parent=root))
    catch_up(ledger)
    check(ledger)
    closed = [
        (event.data.customer, event.data.reason_code) for event in brought(ledger, d.ConflictClosed)
    ]
    assert closed == [
        (other, reasons.GROUP_JOINED),
        (other, reasons.ONE_OWNER),
    ]
    assert held(ledger, root).owners == dict.fromkeys(PEOPLE[:30], 1)


@pytest.mark.parametrize("batch", [1, 500])
def test_a_chain_that_is_longer_than_any_group_is_decided_all_the_same(
    ledger: TestLedger, batch: int
) -> None:
    """Each parent above a customer would have cost a round of deciding, up to more than there are.

    Found by registering 120 customers below each other, which no registration is refused for.
    """
    chain = [ledger.register("总公司")]
    for number in range(120):
        chain.append(ledger.register(f"下属 {number}", parent=chain[-1]))
    ledger.decide()
    ledger.claim(chain[-1], PEOPLE[0])
    command = commands.FileClaim(customer=chain[60], claimant=PEOPLE[1])
    catch_up(ledger, limits=EnforcerLimits(batch_requests_max=batch))
    checked = would_decide(
        ledger.connection,
        ledger.catalogue,
        ledger.recording,
        Asked(command, ledger.origin(PEOPLE[1])),
    )
    ledger.claim(chain[60], PEOPLE[1])
    catch_up(ledger, limits=EnforcerLimits(batch_requests_max=batch))
    check(ledger)
    (opened,) = brought(ledger, d.ConflictOpened)
    assert opened.data.customer == chain[0]
    assert isinstance(checked.draft.more[0], d.ConflictOpened)
    assert checked.draft.more[0].parties == opened.data.parties


def test_a_claim_that_would_split_a_group_says_so_before(ledger: TestLedger) -> None:
    root, first, second = group(ledger, 2)
    ledger.claim(first, PEOPLE[0])
    ledger.decide()
    command = commands.FileClaim(customer=second, claimant=PEOPLE[1])
    before = len(ledger.log())
    asked = Asked(command, ledger.origin(PEOPLE[1]))
    checked = would_decide(ledger.connection, ledger.catalogue, ledger.recording, asked)
    granted, conflict = checked.draft.all
    assert isinstance(granted, d.OwnershipGranted)
    assert isinstance(conflict, d.ConflictOpened)
    assert (conflict.customer, conflict.kind, conflict.asked) == (root, "group", ("per_head",))
    assert len(ledger.log()) == before
    ledger.claim(second, PEOPLE[1])
    ledger.decide()
    assert brought(ledger, d.ConflictOpened)[0].data.parties == conflict.parties


def test_who_registers_what_another_owns_is_in_conflict_with_the_owner(ledger: TestLedger) -> None:
    existing = ledger.register("甲公司", identifiers=NUMBER, claim_for=PEOPLE[0])
    ledger.register("甲公司", PEOPLE[1], identifiers=NUMBER, claim_for=PEOPLE[1])
    ledger.decide()
    check(ledger)
    (opened,) = brought(ledger, d.ConflictOpened)
    assert (opened.data.customer, opened.data.kind) == (existing, "identifier")
    assert opened.data.parties == (PEOPLE[0], PEOPLE[1])
    ruling = commands.Rule(
        customer=existing, conflict=opened.data.conflict, ruling="award", receiver=PEOPLE[1]
    )
    ledger.ask(ruling, "per_head")
    ledger.decide()
    check(ledger)
    (transferred,) = brought(ledger, d.OwnershipTransferred)
    assert transferred.data.owner == PEOPLE[1]


# --- the guards of before ------------------------------------------------------------------------


@pytest.fixture
def owner(ledger: TestLedger) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the database's owner has it while it migrates."""
    with psycopg.connect(ledger.urls.owner_url, autocommit=True) as connection:
        connection.execute("SELECT set_config('search_path', '', false)")
        yield connection


def forget_groups(owner: psycopg.Connection[Any]) -> None:
    """Leave the guards as they were before there were groups."""
    owner.execute("DELETE FROM ledger.guards WHERE key LIKE 'group%'")
    owner.execute(
        "UPDATE ledger.guards SET state ="
        " convert_to((convert_from(state, 'UTF8')::jsonb - 'children')::text, 'UTF8')"
        " WHERE key LIKE 'customer%' AND state IS NOT NULL"
    )


def filled(ledger: TestLedger) -> list[str]:
    customers = group(ledger, 30, branches=3)
    for customer, person in zip(customers[1::2], PEOPLE, strict=False):
        ledger.claim(customer, person)
    ledger.register("独立公司", claim_for=PEOPLE[0], attributes={"parent": "cus_x"})
    ledger.ask(commands.ChangeCustomer(customer=customers[1], parent=customers[2]))
    ledger.decide()
    return customers


def test_the_migration_makes_the_guards_of_groups(
    ledger: TestLedger, owner: psycopg.Connection[Any]
) -> None:
    customers = filled(ledger)
    forget_groups(owner)
    assert f"group {customers[0]}" in compare_guards(ledger.connection, ledger.catalogue)
    statement = files("migrations").joinpath("0007_groups.sql").read_bytes()
    with enforcing(ledger) as old:
        with owner.transaction():
            owner.execute(statement)
        assert compare_guards(ledger.connection, ledger.catalogue) == []
        # Whoever would go on without keeping them is stopped.
        ledger.claim(customers[2], PEOPLE[5])
        with pytest.raises(FencedError):
            old.catch_up()
    ledger.decide()
    check(ledger)


def test_they_are_made_again_from_the_log(
    ledger: TestLedger, owner: psycopg.Connection[Any]
) -> None:
    customers = filled(ledger)
    kept = held(ledger, customers[0])
    forget_groups(owner)
    rebuild_guards(ledger.connection, ledger.catalogue)
    assert compare_guards(ledger.connection, ledger.catalogue) == []
    assert held(ledger, customers[0]) == kept != Group()


# --- reviews -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 500])
def test_a_review_of_any_member_finds_what_was_split_unseen(ledger: TestLedger, batch: int) -> None:
    limits = EnforcerLimits(batch_requests_max=batch)
    unseeing = POLICY.model_copy(update={"conflict_kinds": ()})
    ledger.recording.record_fact(facts.AdoptPolicy(policy=unseeing), ledger.origin())
    root, *members = group(ledger, 12, branches=3)
    for number, member in enumerate(members):
        ledger.claim(member, PEOPLE[number % 3])
    catch_up(ledger, limits=limits)
    assert brought(ledger, d.ConflictOpened) == []
    ledger.recording.record_facts(
        [facts.AdoptPolicy(policy=POLICY), facts.AdoptDecider(version=3)], ledger.origin()
    )
    for member in (members[-1], members[0]):
        ledger.ask(commands.ReviewGroup(customer=member))
    catch_up(ledger, limits=limits)
    (opened,) = brought(ledger, d.ConflictOpened)
    assert (opened.data.customer, opened.data.parties) == (root, tuple(PEOPLE[:3]))
    (refused,) = brought(ledger, d.GroupReviewRefused)
    assert (refused.data.customer, refused.data.reason) == (members[0], reasons.CONFLICT_OPEN)
    check(ledger)
