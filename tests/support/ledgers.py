"""A ledger for tests: everything a process has, on the database of one test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection

from consumers.enforcer import Enforcer
from consumers.feed import StoreFeed
from ledger import commands, ids
from ledger import organisation_commands as facts
from ledger.commands import CustomerCommand
from ledger.envelope import Event, Origin, decode
from ledger.events.catalogue import Catalogue, catalogue
from ledger.policy import Policy
from ledger.recording import Asked, Recorded, Recording
from ledger.sealing import Vault
from ledger.store import arrays
from ledger.store.committer import CommitterThread
from ledger.store.reading import read_decisions, replay
from tests.support.database import DatabaseUrls

MASTER_KEY = b"k" * 32
ADMINISTRATOR = "per_admin"


@dataclass(frozen=True)
class TestLedger:
    """The write side and an enforcer; ``connection`` is the service's, in autocommit mode."""

    __test__ = False

    urls: DatabaseUrls
    connection: Connection[Any]
    committer: CommitterThread
    vault: Vault
    catalogue: Catalogue
    recording: Recording

    def origin(self, actor: str = ADMINISTRATOR, **fields: Any) -> Origin:
        """Return an origin with a request id of its own."""
        given = {"request_id": ids.new_id(ids.REQUEST), **fields}
        return Origin(caller="test", actor=actor, **given)

    def found(self, people: Sequence[str], policy: Policy | None = None) -> None:
        """Found an organisation with one territory, an administrator and these reps."""
        given: list[facts.FactCommand] = [
            facts.FoundOrganisation(name="测试公司", time_zone="Asia/Shanghai"),
            facts.DefineTerritory(territory="ter_1", name="华东"),
            facts.AddPerson(person=ADMINISTRATOR, name="管理员", roles=("admin",)),
            *(facts.AddPerson(person=each, name=each, territory="ter_1") for each in people),
        ]
        if policy is not None:
            given.append(facts.AdoptPolicy(policy=policy))
        self.recording.record_facts(given, self.origin())

    def ask(self, command: CustomerCommand, actor: str = ADMINISTRATOR) -> Recorded:
        """Record one request."""
        return self.recording.record(Asked(command, self.origin(actor)))

    def register(self, name: str, actor: str = ADMINISTRATOR, **fields: Any) -> str:
        """Record the registration of a customer and return its id."""
        return self.ask(commands.RegisterCustomer(name=name, **fields), actor).customer

    def claim(self, customer: str, claimant: str) -> Recorded:
        """Record a claim."""
        return self.ask(commands.FileClaim(customer=customer, claimant=claimant), claimant)

    @contextmanager
    def enforcer(self) -> Iterator[Enforcer]:
        """Open an enforcer that has taken over."""
        with psycopg.connect(self.urls.service_url, autocommit=True) as connection:
            enforcer = Enforcer(connection, StoreFeed(), self.catalogue)
            enforcer.start()
            yield enforcer

    def decide(self) -> None:
        """Decide all that was recorded."""
        with self.enforcer() as enforcer:
            enforcer.catch_up()

    def decisions(self, recorded: Recorded) -> list[Event]:
        """Return the decisions of a request."""
        stored = read_decisions(self.connection, list(recorded.positions))
        return [decode(self.catalogue, each) for each in stored]

    def log(self) -> list[Event]:
        """Return the whole log."""
        return list(replay(self.connection, self.catalogue))


@contextmanager
def open_test_ledger(urls: DatabaseUrls) -> Iterator[TestLedger]:
    """Open a ledger on the database of a test."""
    with (
        psycopg.connect(urls.service_url, autocommit=True) as connection,
        CommitterThread(urls.service_url) as committer,
    ):
        arrays.register(connection)

        @contextmanager
        def connect() -> Iterator[Connection[Any]]:
            yield connection

        vault = Vault(connect, MASTER_KEY)
        events = catalogue()
        recording = Recording(committer, connect, vault, events)
        yield TestLedger(urls, connection, committer, vault, events, recording)
