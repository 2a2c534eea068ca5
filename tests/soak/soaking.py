"""A soak from its beginning to the verdict."""

from __future__ import annotations

import base64
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from api.bootstrap import Ledger, open_ledger
from api.cli.checks import verify
from api.http import tokens
from api.kafka import cluster_of
from api.settings import Settings
from consumers.kafka.local import LocalKafka
from consumers.kafka.topics import apply_topics
from ledger import commands
from ledger import organisation_commands as facts
from ledger.deciders import LATEST
from ledger.envelope import Origin
from ledger.policy import Policy
from ledger.recording import Asked
from ledger.store.embedded import EmbeddedServer, embedded_server
from ledger.store.migrations import migrate
from ledger.store.reading import head, read_after
from tests.consumers.kafka.support import PARTITIONS, check_topic
from tests.soak.checker import Violation, violations
from tests.soak.clients import Client, Office, client, clients_at_work
from tests.soak.forge import forge
from tests.soak.history import History, entries, history, told
from tests.soak.machine import Machine
from tests.soak.plan import CLIENTS, CUSTOMERS, Plan
from tests.support.database import DatabaseServer, DatabaseUrls

HEAD = "per_head"
PEOPLE = tuple(f"per_{number}" for number in range(1, CLIENTS + 1))
TERRITORY = "ter_1"
# Nobody waits before claiming again, so that customers pass from hand to hand.
POLICY = Policy(daily_claim_limit=None, cooldown_days=0, protection_days=0, conflict_kinds=())
_RELAYED = "SELECT coalesce(min(position), 0) FROM ledger.relay"


def demanded(requester: str, receiver: str) -> Sequence[frozenset[str]]:
    """Whose approvals the policy above demands of a transfer within one territory."""
    steps = (frozenset({HEAD}), frozenset({receiver}))
    return steps if requester != receiver else steps[:1]


@dataclass(frozen=True)
class Soaked:
    """What came of a soak: ``wrong`` is what contradicts the rules, each said with its history."""

    plan: Plan
    history: History
    kills: Counter[str]
    woken: int
    wrong: tuple[str, ...]

    def summary(self) -> str:
        """Return what was done, in some lines."""
        done = Counter((each.kind, each.outcome) for each in self.history.operations)
        each = ", ".join(
            f"{count} {kind} {outcome}" for (kind, outcome), count in sorted(done.items())
        )
        names = Counter(entry.name for entry in self.history.log)
        recorded = ", ".join(f"{count} {name}" for name, count in sorted(names.items()))
        killed = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"{len(self.history.operations)} operations: {each}\n"
            f"{len(self.history.log)} events: {recorded}\n"
            f"{self.kills.total()} kills: {killed}; {self.woken} woken after a freeze"
        )


def soak(
    plan: Plan, folder: Path, kafka: LocalKafka, say: Callable[[str], None] = lambda words: None
) -> Soaked:
    """Carry out a plan in a folder, on a PostgreSQL of its own, and judge what came of it.

    ``say`` is told what it is at.
    """
    say("founding an organisation")
    with embedded_server(folder / "postgres") as postgres:
        migrate(postgres.owner_url)
        settings = _settings(folder, postgres, kafka)
        apply_topics(cluster_of(settings), PARTITIONS)
        # It imports the roles while the organisation is founded.
        with forge(_environment(settings)) as forging:
            with open_ledger(settings, migrating=False) as ledger:
                customers, made = _found(ledger)
            address = f"http://127.0.0.1:{settings.http_port}"
            office = Office(address, customers, PEOPLE, made, HEAD)
            machine = Machine(folder, forging, postgres, kafka)
            try:
                _work(machine, office, plan, say)
                _until_relayed(machine, postgres)
            except BaseException as error:
                error.add_note(machine.words())
                raise
            say("ending the roles")
            deaf = machine.end()
        say("judging")
        with open_ledger(settings, migrating=False) as ledger, ledger.dedicated("soak") as log:
            stored = read_after(log, 0, 10_000_000)
            outages = [
                (since - office.began, upto - office.began) for since, upto in machine.outages
            ]
            judged = history(office.operations, entries(stored), outages)
            verified = verify(ledger, lambda done, total: None)
        wrong = [
            *_told(judged, violations(judged, demanded)),
            *(f"ended by itself: {each}" for each in machine.ended),
            *(f"does not end when it is told to: {each}" for each in deaf),
            *(verified.lines if not verified.good else ()),
        ]
        urls = DatabaseServer(postgres.superuser_url, postgres).urls("guishu")
        wrong += _wrong_with_the_topic(settings, urls)
    return Soaked(plan, judged, machine.kills, machine.woken, tuple(wrong))


def _work(machine: Machine, office: Office, plan: Plan, say: Callable[[str], None]) -> None:
    """Carry out a plan, and return when all that was asked meanwhile is decided and shown."""
    with client(office, 0) as last:
        say("starting the roles")
        _until_answered(machine, office, last)
        say("clients are at work, and processes are killed")
        with clients_at_work(office, plan):
            machine.run(plan)
        say("waiting until all that was asked is decided, shown and relayed")
        machine.heal()
        _until_answered(machine, office, last)


def _settings(folder: Path, postgres: EmbeddedServer, kafka: LocalKafka) -> Settings:
    return Settings(
        database_url=postgres.service_url,  # type: ignore[arg-type]  # pydantic makes it a secret
        master_key=base64.b64encode(secrets.token_bytes(32)).decode(),  # type: ignore[arg-type]
        data_directory=folder,
        kafka_bootstrap=kafka.bootstrap,
        kafka_topic_prefix=f"soak-{secrets.token_hex(6)}",
        kafka_partitions=PARTITIONS,
        http_port=_free_port(),
    )


def _environment(settings: Settings) -> dict[str, str]:
    """Return the settings as the roles are given them."""
    if settings.database_url is None or settings.master_key is None:
        raise AssertionError("both are given above")
    return {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "GUISHU_MASTER_KEY": settings.master_key.get_secret_value(),
        "GUISHU_DATA_DIRECTORY": str(settings.data_directory),
        "GUISHU_HTTP_PORT": str(settings.http_port),
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap or "",
        "GUISHU_KAFKA_TOPIC_PREFIX": settings.kafka_topic_prefix,
        "GUISHU_KAFKA_PARTITIONS": str(settings.kafka_partitions),
    }


def _free_port() -> int:
    """Return a port that nobody has: what is killed comes back on it."""
    with socket.socket() as probe:
        # Below those that systems give to outgoing connections, which might take it meanwhile.
        for port in range(20_000 + secrets.randbelow(9_000), 30_000):
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AssertionError("no port is free")


def _found(ledger: Ledger) -> tuple[list[str], dict[str, str]]:
    """Found an organisation with some customers; return these, and the tokens of its people."""
    stated: list[facts.FactCommand] = [
        facts.FoundOrganisation(name="测试公司", time_zone="Asia/Shanghai"),
        facts.DefineTerritory(territory=TERRITORY, name="华东"),
        facts.AddPerson(person=HEAD, name=HEAD, territory=TERRITORY, roles=("admin", "manager")),
        *(facts.AddPerson(person=each, name=each, territory=TERRITORY) for each in PEOPLE),
        facts.DefineTerritory(territory=TERRITORY, name="华东", head=HEAD),
        facts.AdoptPolicy(policy=POLICY),
        facts.AdoptDecider(version=LATEST),
    ]
    ledger.recording.record_facts(stated, Origin("setup", "req_found", HEAD))
    registered = [
        ledger.recording.record(
            Asked(
                commands.RegisterCustomer(name=f"客户{number}"),
                Origin("setup", f"req_{number}", HEAD),
            )
        )
        for number in range(CUSTOMERS)
    ]
    expires = datetime.now(UTC) + timedelta(days=1)
    with ledger.pool.connection() as connection:
        made = {
            person: tokens.make_token(
                connection,
                kind="person",
                principal=person,
                roles=("admin", "manager") if person == HEAD else ("rep",),
                made_by="soak",
                expires=expires,
            )
            for person in (HEAD, *PEOPLE)
        }
    return [each.customer for each in registered], made


def _until_answered(machine: Machine, office: Office, last: Client) -> None:
    """Return when all that was asked is decided, and the read models show it."""

    def is_decided(customer: str) -> bool:
        done = last.follow_up(customer, wait_seconds=2)
        return done.outcome == "acknowledged" and bool(done.decisions)

    def is_shown(customer: str) -> bool:
        return last.read(customer, HEAD, is_fresh=True).outcome == "acknowledged"

    for each in office.customers:
        machine.wait_until(lambda: is_decided(each))  # noqa: B023 - used at once
    for each in office.customers:
        machine.wait_until(lambda: is_shown(each))  # noqa: B023 - used at once


def _until_relayed(machine: Machine, postgres: EmbeddedServer) -> None:
    """Return when the whole log is in the topic."""

    def is_relayed() -> bool:
        with psycopg.connect(postgres.superuser_url, dbname="guishu", autocommit=True) as asking:
            row = asking.execute(_RELAYED).fetchone()
            return row is not None and int(row[0]) >= head(asking)

    machine.wait_until(is_relayed)


def _wrong_with_the_topic(settings: Settings, urls: DatabaseUrls) -> list[str]:
    """Return what is wrong with what Kafka has of the log."""
    try:
        check_topic(cluster_of(settings), urls)
    except AssertionError as error:
        return [f"the topic is not what the log is: {error}"]
    return []


def _told(judged: History, found: Sequence[Violation]) -> list[str]:
    """Return violations in words, the first of each customer with that customer's history."""
    said: set[str | None] = set()
    words = []
    for each in found:
        words.append(f"{each.rule}: {each.sentence} (customer {each.customer})")
        if each.customer not in said:
            words.append(told(judged, each.customer))
        said.add(each.customer)
    return words
