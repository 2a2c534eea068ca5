"""Any change of an event is found, and the first position that differs is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

from ledger import commands
from ledger import organisation_commands as facts
from ledger.canonical import Entry, leaf_hash
from ledger.envelope import Event
from ledger.events.catalogue import Catalogue
from ledger.policy import Policy
from ledger.store import arrays
from ledger.verification import Report, verify_log
from tests.support.database import DatabaseServer, DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger

_ROW = """
SELECT position, recorded, stream, version, name, body FROM ledger.events WHERE position = %s
"""


def write_history(ledger: TestLedger) -> None:
    """Have a grant, a refusal, a follow-up, a release, another policy and a deal decided."""
    ledger.found(["per_a", "per_b"])
    customer = ledger.ask(
        commands.RegisterCustomer(name="苏州恒信电子有限公司", claim_for="per_a"), "per_a"
    ).customer
    ledger.claim(customer, "per_b")
    ledger.ask(commands.LogFollowUp(customer=customer, person="per_a", note="约好演示"), "per_a")
    ledger.ask(commands.ReleaseCustomer(customer=customer), "per_a")
    ledger.recording.record_fact(facts.AdoptPolicy(policy=Policy(cooldown_days=0)), ledger.origin())
    ledger.decide()
    ledger.ask(commands.RecordDeal(customer=customer, person="per_b", outcome="won"), "per_b")
    ledger.decide()


@dataclass(frozen=True)
class Tampering:
    """A superuser who has taken triggers and constraints away, in a transaction of its own."""

    superuser: psycopg.Connection[Any]
    catalogue: Catalogue
    log: list[Event]

    def audit(self) -> Report:
        return verify_log(self.superuser, self.catalogue)

    def found(self) -> tuple[int, str]:
        failure = self.audit().failure
        assert failure is not None
        return failure.position, failure.check

    def event(self, name: str) -> Event:
        return next(event for event in self.log if event.name == name)

    def position(self, name: str) -> int:
        return self.event(name).position

    def execute(self, statement: str, *values: object) -> None:
        self.superuser.execute(statement.encode(), values)

    def update(self, assignment: str, position: int) -> None:
        """Change one event."""
        statement = sql.SQL("UPDATE ledger.events SET {} WHERE position = {}")
        self.superuser.execute(statement.format(sql.SQL(assignment), position))

    def rehash(self, position: int) -> None:
        """Recompute the leaf hash of an event, as somebody would who knows how."""
        row = self.superuser.execute(_ROW, (position,), binary=True).fetchone()
        assert row is not None
        leaf = leaf_hash(Entry(*row).to_bytes())
        self.execute("UPDATE ledger.events SET leaf = %s WHERE position = %s", leaf, position)

    def rewrite(self, assignment: str, position: int) -> None:
        """Change one event together with its leaf hash."""
        self.update(assignment, position)
        self.rehash(position)

    def swap(self, first: int, second: int) -> None:
        """Let two events change places."""
        for to, at in ((-1, first), (first, second), (second, -1)):
            self.execute("UPDATE ledger.events SET position = %s WHERE position = %s", to, at)

    def forge(self, assignment: str) -> int:
        """Append a copy of the grant, changed, at the end of the log and of its stream."""
        position = len(self.log) + 1
        self.execute(
            "INSERT INTO ledger.events (position, recorded, stream, version, name, body, leaf)"
            " SELECT %s, now(), stream, (SELECT max(version) + 1 FROM ledger.events m"
            " WHERE m.stream = e.stream), name, body, leaf"
            " FROM ledger.events e WHERE position = %s",
            position,
            self.position("OwnershipGranted.v1"),
        )
        self.rewrite(assignment, position)
        return position


@contextmanager
def tampering(ledger: TestLedger) -> Iterator[Tampering]:
    """Open a superuser's transaction, which is rolled back."""
    log = ledger.log()
    with psycopg.connect(ledger.urls.superuser_url) as superuser:
        arrays.register(superuser)
        superuser.execute("ALTER TABLE ledger.events DISABLE TRIGGER ALL")
        superuser.execute("ALTER TABLE ledger.events DROP CONSTRAINT event_is_well_formed")
        yield Tampering(superuser, ledger.catalogue, log)
        superuser.rollback()


@pytest.fixture(scope="module")
def history(postgres: DatabaseServer, migrated_template: str) -> Iterator[TestLedger]:
    """A ledger with a decided history, in which nothing is changed for good."""
    with postgres.database(migrated_template) as urls, open_test_ledger(urls) as opened:
        write_history(opened)
        yield opened


@pytest.fixture
def tampered(history: TestLedger) -> Iterator[Tampering]:
    with tampering(history) as opened:
        yield opened


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    """A ledger of the test's own, with the same history."""
    with open_test_ledger(database) as opened:
        write_history(opened)
        yield opened


def replaced(old: str, new: str) -> str:
    """Return the assignment that replaces words in a body."""
    return f"body = convert_to(replace(convert_from(body, 'UTF8'), '{old}', '{new}'), 'UTF8')"


def audit(ledger: TestLedger) -> Report:
    return verify_log(ledger.connection, ledger.catalogue)


def test_an_untouched_log_is_good(history: TestLedger) -> None:
    told: list[int] = []
    report = verify_log(history.connection, history.catalogue, told.append)
    assert report.good
    assert (report.events, report.decisions) == (len(history.log()), 8)
    assert (report.undecided, report.parked) == ([], {})
    assert told == [len(history.log())]
    assert "decided again, each the same" in "\n".join(report.lines())


def test_an_empty_log_is_good(database: DatabaseUrls) -> None:
    with open_test_ledger(database) as empty:
        assert audit(empty) == Report()


NAMES = ["PersonJoined.v1", "ClaimFiled.v1", "OwnershipGranted.v1"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("assignment", "check"),
    [
        ("recorded = recorded + interval '1 microsecond'", "leaf"),
        ("stream = stream || 'x'", "version"),
        ("version = version + 100", "version"),
        ("name = 'Noted.v1'", "leaf"),
        ("name = 'Unheard.v1'", "leaf"),
        (r"body = body || '\x20'::bytea", "leaf"),
        ("leaf = sha256(leaf)", "leaf"),
        ("causation = 1", "cause"),
        ("ordinal = coalesce(ordinal, 0) + 1", "cause"),
    ],
)
def test_a_change_of_any_column_is_found(
    tampered: Tampering, name: str, assignment: str, check: str
) -> None:
    position = tampered.position(name)
    tampered.update(assignment, position)
    assert tampered.found() == (position, check)


@pytest.mark.parametrize("name", NAMES)
def test_an_event_that_was_moved_leaves_a_hole(tampered: Tampering, name: str) -> None:
    position = tampered.position(name)
    tampered.update("position = position + 1000", position)
    assert tampered.found() == (position, "dense")


@pytest.mark.parametrize("name", NAMES)
def test_an_event_that_was_deleted_leaves_a_hole(tampered: Tampering, name: str) -> None:
    position = tampered.position(name)
    tampered.execute("DELETE FROM ledger.events WHERE position = %s", position)
    assert tampered.found() == (position, "dense")


def test_two_events_that_changed_places_are_found(tampered: Tampering) -> None:
    position = tampered.position("ClaimRefused.v1")
    tampered.swap(position, position + 1)
    assert tampered.found() == (position, "version")


def test_two_requests_of_one_moment_that_changed_places_are_found_by_their_ids(
    ledger: TestLedger,
) -> None:
    """Nothing depends on which of two customers was entered first, but their request ids know."""
    register = commands.RegisterCustomer
    first, second = (ledger.ask(register(name=name)).positions[0] for name in ("甲公司", "乙公司"))
    with tampering(ledger) as tampered:
        tampered.execute(
            "UPDATE ledger.events SET recorded ="
            " (SELECT recorded FROM ledger.events WHERE position = %s) WHERE position = %s",
            first,
            second,
        )
        tampered.swap(first, second)
        tampered.rehash(first)
        tampered.rehash(second)
        assert tampered.found() == (first, "request_id")


@pytest.mark.parametrize("dropped", [1, 2, 5])
def test_a_tail_that_was_cut_off_is_missed_by_those_who_have_seen_it(
    tampered: Tampering, dropped: int
) -> None:
    """The progress of the enforcer and the request ids stand beside the log, in other tables."""
    end = len(tampered.log) - dropped
    tampered.execute("DELETE FROM ledger.events WHERE position > %s", end)
    position, check = tampered.found()
    assert check in {"tail", "undecided"}
    assert position <= end + 1


def test_a_decision_that_was_cut_off_is_missed_even_where_the_log_has_grown_again(
    ledger: TestLedger,
) -> None:
    with tampering(ledger) as tampered:
        deal = tampered.position("DealRecorded.v1")
        tampered.execute("DELETE FROM ledger.events WHERE position = %s", len(tampered.log))
        tampered.superuser.commit()
    ledger.recording.record_fact(facts.AdoptPolicy(policy=Policy()), ledger.origin())
    failure = audit(ledger).failure
    assert failure is not None
    assert (failure.position, failure.check) == (deal, "undecided")


def test_a_forged_decision_without_a_cause_is_found(tampered: Tampering) -> None:
    cause = f'"causation":{tampered.event("OwnershipGranted.v1").causation},'
    without = f"replace(replace(convert_from(body, 'UTF8'), '{cause}', ''), '\"ordinal\":0,', '')"
    position = tampered.forge(f"body = convert_to({without}, 'UTF8')")
    assert tampered.found() == (position, "once")


def test_a_forged_second_decision_of_a_request_is_found(tampered: Tampering) -> None:
    """The database refuses the same ordinal twice; with another one it is a second decision."""
    cause = tampered.event("OwnershipGranted.v1").causation
    words = replaced('"ordinal":0', '"ordinal":1')
    position = tampered.forge(f"causation = {cause}, ordinal = 1, {words}")
    assert tampered.found() == (position, "once")


def test_a_forged_decision_of_what_is_no_request_is_found(tampered: Tampering) -> None:
    cause = tampered.event("OwnershipGranted.v1").causation
    words = replaced(f'"causation":{cause}', '"causation":1')
    position = tampered.forge(f"causation = 1, ordinal = 0, {words}")
    assert tampered.found() == (position, "once")


def test_a_forged_grant_of_a_request_that_waits_is_found(ledger: TestLedger) -> None:
    """Somebody decides in the enforcer's place: deciding again brings something else."""
    customer = next(each for each in ledger.log() if each.name == "ClaimFiled.v1").data.customer
    waiting = ledger.claim(customer, "per_b").positions[0]
    with tampering(ledger) as tampered:
        cause = tampered.event("OwnershipGranted.v1").causation
        words = replaced(f'"causation":{cause}', f'"causation":{waiting}')
        position = tampered.forge(f"causation = {waiting}, ordinal = 0, {words}")
        assert tampered.found() == (position, "decision")


def test_a_forged_parking_of_what_was_decided_is_found(tampered: Tampering) -> None:
    granted = tampered.event("OwnershipGranted.v1")
    body = (
        f'{{"caller":"enforcer","data":{{"customer":"{granted.data.customer}",'
        f'"error":"ValueError","request":{granted.causation}}}}}'
    )
    position = tampered.forge(f"name = 'RequestParked.v1', body = convert_to('{body}', 'UTF8')")
    assert tampered.found() == (position, "parking")


class TestWhoeverRecomputesTheHash:
    """Who changes the leaf hash together with its event is found wherever something follows."""

    @pytest.mark.parametrize(
        ("name", "old", "new", "differs", "check"),
        [
            # A decision, against what its request and the state bring.
            ("OwnershipGranted.v1", "per_a", "per_b", "itself", "decision"),
            ("OwnershipGranted.v1", '"ownership":1', '"ownership":2', "itself", "decision"),
            ("ClaimRefused.v1", "owned_by_another", "already_yours", "itself", "decision"),
            ("OwnershipGranted.v1", '"decider":1', '"decider":2', "itself", "decider"),
            # A request, by its own decision.
            ("ClaimFiled.v1", '"claimant":"per_a"', '"claimant":"per_b"', "decision", "decision"),
            ("ReleaseRequested.v1", '"actor":"per_a"', '"actor":"per_b"', "decision", "decision"),
            ("DealRecorded.v1", '"customer":"cus', '"customer":"cuz', "itself", "stream"),
            # A fact, by the decisions that depend on it.
            ("PersonJoined.v1", '"person":"per_a"', '"person":"per_c"', "grant", "decision"),
        ],
    )
    def test_what_decides_anything_is_found(
        self, tampered: Tampering, name: str, old: str, new: str, differs: str, check: str
    ) -> None:
        changed = next(
            event
            for event in tampered.log
            if event.name == name and getattr(event.data, "person", "per_a") != "per_admin"
        )
        caused = (each for each in tampered.log if each.causation == changed.position)
        tampered.rewrite(replaced(old, new), changed.position)
        expected = {
            "itself": changed.position,
            "decision": next(caused, changed).position,
            "grant": tampered.position("OwnershipGranted.v1"),
        }
        assert tampered.found() == (expected[differs], check)

    @pytest.mark.parametrize(
        ("assignment", "check"),
        [
            ("recorded = recorded - interval '1 hour'", "recorded"),
            ("name = 'Unheard.v1'", "readable"),
            (r"body = body || '\x20'::bytea", "canonical"),
            (r"body = '\x7b7d'::bytea", "readable"),
            (r"body = '\xff'::bytea", "readable"),
            (r"body = '[1.5]'::bytea", "readable"),
            (r"body = '[]'::bytea", "readable"),
            ("stream = 'ownership-' || stream, version = 1", "stream"),
        ],
    )
    def test_what_has_no_right_form_is_found(
        self, tampered: Tampering, assignment: str, check: str
    ) -> None:
        position = tampered.position("DealRecorded.v1")
        tampered.rewrite(assignment, position)
        assert tampered.found() == (position, check)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('"index":0', '"index":1'),
            ('"request_id":"', '"request_id":"x'),
            ('"caller":"test"', '"caller":"tess"'),
        ],
    )
    def test_a_request_that_bears_another_id_is_found(
        self, tampered: Tampering, old: str, new: str
    ) -> None:
        position = tampered.position("ReleaseRequested.v1")
        tampered.rewrite(replaced(old, new), position)
        assert tampered.found() == (position, "request_id")

    @pytest.mark.parametrize(
        ("name", "old", "new"),
        [
            ("FollowUpLogged.v1", '"channel":"call"', '"channel":"mail"'),
            ("PolicyAdopted.v1", '"cooldown_days":0', '"cooldown_days":1'),
        ],
    )
    def test_what_nothing_follows_from_is_left_to_the_proofs(
        self, tampered: Tampering, name: str, old: str, new: str
    ) -> None:
        """The limit of this audit: only a checkpoint kept elsewhere tells that a channel was
        another one, or a policy by which nothing was decided yet.
        """
        tampered.rewrite(replaced(old, new), tampered.position(name))
        assert tampered.audit().good


@pytest.mark.parametrize(
    "assignment",
    ["first_position = first_position + 1", "first_position = first_position - 1", "events = 2"],
)
def test_a_request_id_that_names_other_events_is_found(
    tampered: Tampering, assignment: str
) -> None:
    position = tampered.position("ReleaseRequested.v1")
    statement = sql.SQL("UPDATE ledger.request_ids SET {} WHERE first_position = {}")
    tampered.superuser.execute(statement.format(sql.SQL(assignment), position))
    assert tampered.found() == (position, "request_id")


def test_a_request_id_that_was_made_up_is_found(tampered: Tampering) -> None:
    tampered.execute("INSERT INTO ledger.request_ids VALUES ('test', 'req_made_up', '', 7, 1)")
    assert tampered.found() == (7, "request_id")


def test_a_request_id_may_be_erased(tampered: Tampering) -> None:
    tampered.execute("DELETE FROM ledger.request_ids")
    assert tampered.audit().good


def test_requests_that_wait_are_listed_and_no_difference(ledger: TestLedger) -> None:
    recorded = ledger.ask(commands.RegisterCustomer(name="杭州锐思软件有限公司"))
    report = audit(ledger)
    assert report.good
    assert report.undecided == list(recorded.positions)
    assert f"1 requests wait for their decision: {recorded.positions[0]}" in list(report.lines())


def test_it_reads_page_by_page_and_sees_across_their_borders(
    history: TestLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request and its decision, and the events of one request, may stand on different pages."""
    monkeypatch.setattr("ledger.verification.PAGE_EVENTS", 1)
    monkeypatch.setattr("ledger.verification.PAGE_REQUEST_IDS", 1)
    told: list[int] = []
    assert verify_log(history.connection, history.catalogue, told.append).good
    assert told == list(range(1, len(history.log()) + 1))


def test_a_person_without_a_territory_stays_readable(ledger: TestLedger) -> None:
    """PersonChanged without a territory was recorded and could never be read again.

    What is None is left out of the stored JSON, and the field had no default; no further fact of
    the organisation could be recorded after it.
    """
    change = facts.ChangePerson(person="per_a", territory=None, roles=("rep",))
    ledger.recording.record_fact(change, ledger.origin())
    person = ledger.recording.organisation().person("per_a")
    assert person is not None
    assert person.territory is None
    assert audit(ledger).good
