"""Whatever people do and in whatever steps it is decided, deciding the log again gives the log."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from consumers.enforcer import EnforcerLimits
from consumers.rebuilding import compare_guards, rebuild_guards
from ledger import commands
from ledger import organisation_commands as facts
from ledger.commands import CustomerCommand
from ledger.conditions import Condition
from ledger.events import decisions
from ledger.policy import Policy, TerritoryRule
from ledger.recording import Asked
from ledger.verification import verify_log
from tests.consumers.support import catch_up, check, failing_at
from tests.support.database import DatabaseServer
from tests.support.ledgers import ADMINISTRATOR, TestLedger, open_test_ledger

PEOPLE = [f"per_{number}" for number in range(4)]
NUMBERS = ["91350100M000100Y43", "91110000MADEM0000X", "91310000MADEM00018"]
REGIONS = ["华东", "华北"]

EXAMPLES = 20

people = st.sampled_from(PEOPLE)
actors = st.sampled_from([*PEOPLE, ADMINISTRATOR])


def any_of(number: int, things: list[str]) -> str:
    return things[number % len(things)]


class People(RuleBasedStateMachine):
    """People at work on a few customers, and an enforcer that comes by now and then."""

    def __init__(self, server: DatabaseServer, template: str) -> None:
        super().__init__()
        self._opened = ExitStack()
        urls = self._opened.enter_context(server.database(template))
        self.ledger: TestLedger = self._opened.enter_context(open_test_ledger(urls))
        self.ledger.found(PEOPLE, Policy(holding_limit=3, daily_claim_limit=4))
        self.customers: list[str] = []
        self.acts: list[tuple[str, str]] = []
        self.waiting: list[tuple[str, str]] = []
        self.left: set[str] = set()
        self.is_checked = False

    @initialize(people=st.lists(st.none() | people, min_size=2, max_size=4))
    def begin(self, people: list[str | None]) -> None:
        """Begin with some customers, free and owned."""
        for claimant in people:
            self.register(None, claimant, None, ADMINISTRATOR)
        self.decide(500)

    def teardown(self) -> None:
        try:
            self.ledger.decide()
            self.unpark_all()
            check(self.ledger)
            self.rebuild()
            check(self.ledger)
        finally:
            self._opened.close()

    def ask(self, command: CustomerCommand, actor: str) -> None:
        recorded = self.ledger.ask(command, actor)
        if recorded.made is not None:
            self.acts.append((recorded.customer, recorded.made))

    # --- people at work ------------------------------------------------------------------------

    @rule(
        number=st.none() | st.sampled_from(NUMBERS),
        claimant=st.none() | people,
        parent=st.none() | st.integers(0, 99),
        actor=actors,
    )
    def register(
        self, number: str | None, claimant: str | None, parent: int | None, actor: str
    ) -> None:
        fields: dict[str, object] = {
            "name": f"客户{len(self.customers)}",
            "identifiers": [{"system": "uscc", "value": number}] if number else [],
            "attributes": {"region": REGIONS[len(self.customers) % 2]},
            "overrides": ["check_digit"],
            "claim_for": claimant,
        }
        if parent is not None and self.customers:
            fields["parent"] = any_of(parent, self.customers)
        command = commands.parse(commands.RegisterCustomer, fields)
        self.customers.append(self.ledger.ask(command, actor).customer)

    @precondition(lambda self: self.customers)
    @rule(which=st.integers(0, 99), claimant=people)
    def claim(self, which: int, claimant: str) -> None:
        customer = any_of(which, self.customers)
        self.ask(commands.FileClaim(customer=customer, claimant=claimant), claimant)

    @precondition(lambda self: self.customers)
    @rule(which=st.integers(0, 99), actor=actors)
    def release(self, which: int, actor: str) -> None:
        self.ask(commands.ReleaseCustomer(customer=any_of(which, self.customers)), actor)

    @precondition(lambda self: self.customers)
    @rule(which=st.integers(0, 99), assignee=people, actor=actors)
    def assign(self, which: int, assignee: str, actor: str) -> None:
        customer = any_of(which, self.customers)
        self.ask(commands.AssignCustomer(customer=customer, assignee=assignee), actor)

    @precondition(lambda self: self.customers)
    @rule(
        which=st.integers(0, 99),
        number=st.sampled_from(NUMBERS),
        parent=st.integers(0, 99),
        closed=st.none() | st.booleans(),
        removed=st.sets(st.sampled_from(["parent", "identifier:uscc", "attribute:region"])),
        actor=actors,
    )
    def change(
        self,
        which: int,
        number: str,
        parent: int,
        closed: bool | None,
        removed: set[str],
        actor: str,
    ) -> None:
        fields: dict[str, object] = {
            "customer": any_of(which, self.customers),
            "removed": sorted(removed),
            "overrides": ["check_digit"],
            "closed": closed,
        }
        if "identifier:uscc" not in removed:
            fields["identifiers"] = [{"system": "uscc", "value": number}]
        if "parent" not in removed:
            fields["parent"] = any_of(parent, self.customers)
        self.ask(commands.parse(commands.ChangeCustomer, fields), actor)

    @precondition(lambda self: self.customers)
    @rule(which=st.integers(0, 99), person=people, days=st.integers(0, 9))
    def follow_up(self, which: int, person: str, days: int) -> None:
        customer = any_of(which, self.customers)
        occurred = datetime.now(UTC) - timedelta(days=days)
        command = commands.LogFollowUp(customer=customer, person=person)
        origin = self.ledger.origin(person, occurred=occurred)
        recorded = self.ledger.recording.record(Asked(command, origin))
        self.acts.append((customer, recorded.made or ""))

    @precondition(lambda self: self.customers)
    @rule(which=st.integers(0, 99), person=people, won=st.booleans())
    def deal(self, which: int, person: str, won: bool) -> None:
        outcome = "won" if won else "lost"
        fields = {"customer": any_of(which, self.customers), "person": person, "outcome": outcome}
        self.ask(commands.parse(commands.RecordDeal, fields), person)

    @precondition(lambda self: self.acts)
    @rule(which=st.integers(0, 99), won=st.none() | st.booleans(), actor=actors)
    def correct(self, which: int, won: bool | None, actor: str) -> None:
        customer, act = self.acts[which % len(self.acts)]
        kind: type[CustomerCommand]
        if act.startswith("fol"):
            fields = {"customer": customer, "follow_up": act}
            kind = commands.VoidFollowUp if won is None else commands.CorrectFollowUp
        else:
            fields = {"customer": customer, "deal": act}
            kind = commands.VoidDeal if won is None else commands.CorrectDeal
            if won is not None:
                fields["outcome"] = "won" if won else "lost"
        self.ask(commands.parse(kind, fields), actor)

    @precondition(lambda self: self.customers)
    @rule(
        which=st.integers(0, 99),
        person=people,
        share=st.none() | st.sampled_from(["20", "60"]),
        until=st.none() | st.integers(0, 9),
        actor=actors,
    )
    def collaborate(
        self, which: int, person: str, share: str | None, until: int | None, actor: str
    ) -> None:
        fields: dict[str, object] = {
            "customer": any_of(which, self.customers),
            "person": person,
            "share": share,
            "until_day": datetime.now(UTC).date() + timedelta(days=until) if until else None,
        }
        command = commands.parse(commands.RequestCollaboration, fields)
        recorded = self.ledger.ask(command, actor)
        self.waiting.append((recorded.customer, recorded.made or ""))

    @precondition(lambda self: self.customers)
    @rule(
        which=st.integers(0, 99),
        receiver=people,
        collaborators=st.none() | st.sampled_from(["keep", "end"]),
        actor=actors,
    )
    def transfer(self, which: int, receiver: str, collaborators: str | None, actor: str) -> None:
        fields: dict[str, object] = {
            "customer": any_of(which, self.customers),
            "receiver": receiver,
            "collaborators": collaborators,
        }
        recorded = self.ledger.ask(commands.parse(commands.RequestTransfer, fields), actor)
        self.waiting.append((recorded.customer, recorded.made or ""))

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 99), how=st.integers(0, 3), actor=actors)
    def answer(self, which: int, how: int, actor: str) -> None:
        customer, name = self.waiting[which % len(self.waiting)]
        command: CustomerCommand
        match how:
            case 0:
                command = commands.Refuse(customer=customer, approval=name)
            case 1:
                command = commands.EndCollaboration(customer=customer, collaboration=name)
            case _:
                command = commands.Approve(customer=customer, approval=name)
        self.ask(command, actor)

    @rule(
        which=st.integers(0, 99),
        ruling=st.sampled_from(["keep", "award", "award", "split", "allow", "dismiss"]),
        receiver=people,
        share=st.none() | st.sampled_from(["20", "60"]),
        actor=st.sampled_from([PEOPLE[0], ADMINISTRATOR, ADMINISTRATOR]),
    )
    def rule_on(
        self, which: int, ruling: str, receiver: str, share: str | None, actor: str
    ) -> None:
        opened = [
            event.data
            for event in self.ledger.log()
            if isinstance(event.data, decisions.ConflictOpened)
        ]
        if not opened:
            return
        about = opened[-1 - which % len(opened)]
        fields: dict[str, object] = {
            "customer": about.customer,
            "conflict": about.conflict,
            "ruling": ruling,
        }
        if ruling == "award":
            fields["receiver"] = receiver
        if ruling == "split":
            fields["parts"] = [{"person": about.parties[1], "share": share}]
        recorded = self.ledger.ask(commands.parse(commands.Rule, fields), actor)
        # An award may await approval under the id that its position gives it.
        self.waiting.append((recorded.customer, f"apr_{recorded.positions[0]}"))

    # --- the organisation ----------------------------------------------------------------------

    @rule(limit=st.none() | st.integers(0, 3), cooldown=st.integers(0, 2), scoped=st.booleans())
    def adopt(self, limit: int | None, cooldown: int, scoped: bool) -> None:
        condition = Condition(attribute="region", operator="is", value="华东")
        rules = (TerritoryRule(territory="ter_1", conditions=(condition,)),) if scoped else ()
        policy = Policy(holding_limit=limit, cooldown_days=cooldown, territory_rules=rules)
        self.ledger.recording.record_fact(facts.AdoptPolicy(policy=policy), self.ledger.origin())

    @rule(person=people)
    def leave_or_return(self, person: str) -> None:
        day = datetime.now(UTC).date() - timedelta(days=1)
        fact: facts.FactCommand = facts.MarkLeft(person=person, left_on=day)
        if person in self.left:
            fact = facts.MarkReturned(person=person, returned_on=day)
        self.left ^= {person}
        self.ledger.recording.record_fact(fact, self.ledger.origin())

    # --- the enforcer --------------------------------------------------------------------------

    @rule(batch=st.sampled_from([1, 2, 5, 500]))
    def decide(self, batch: int) -> None:
        self.is_checked = False
        catch_up(self.ledger, limits=EnforcerLimits(batch_requests_max=batch))

    @rule(nth=st.integers(0, 9))
    def decide_with_a_defect(self, nth: int) -> None:
        self.is_checked = False
        report = verify_log(self.ledger.connection, self.ledger.catalogue)
        waiting = [position for position in report.undecided if position not in report.parked]
        if waiting:
            position = waiting[nth % len(waiting)]
            catch_up(self.ledger, versions={1: failing_at(position)})

    @rule()
    def unpark_all(self) -> None:
        self.is_checked = False
        while parked := verify_log(self.ledger.connection, self.ledger.catalogue).parked:
            for position in parked:
                customer = next(
                    event.data.customer
                    for event in self.ledger.log()
                    if isinstance(event.data, decisions.RequestParked)
                    and event.data.request == position
                )
                command = commands.UnparkRequest(customer=customer, request=position, decider=1)
                self.ledger.ask(command)
            self.ledger.decide()

    @rule()
    def rebuild(self) -> None:
        self.is_checked = False
        with psycopg.connect(self.ledger.urls.service_url, autocommit=True) as connection:
            rebuild_guards(connection, self.ledger.catalogue)

    @invariant()
    def the_log_is_good(self) -> None:
        # What was only asked has changed nothing that is checked.
        if self.is_checked:
            return
        self.is_checked = True
        report = verify_log(self.ledger.connection, self.ledger.catalogue)
        assert report.good, list(report.lines())
        assert compare_guards(self.ledger.connection, self.ledger.catalogue) == []


def test_deciding_the_log_again_gives_the_log(
    postgres: DatabaseServer, migrated_template: str
) -> None:
    class OnThisServer(People):
        def __init__(self) -> None:
            super().__init__(postgres, migrated_template)

    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            print_blob=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
