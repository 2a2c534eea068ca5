"""The names of fields are part of what is sealed: the real recording meets the read models here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledger import commands
from ledger import organisation_commands as facts
from ledger.envelope import Origin
from ledger.events.catalogue import catalogue
from ledger.recording import Asked, Recording
from ledger.sealing import Vault
from ledger.store.committer import CommitterThread
from projections import customers, follow_ups, people, telling, timeline
from projections.registry import all_projections
from tests.projections.models import Models

ADMINISTRATOR = "per_admin"


@pytest.fixture
def recording(models: Models) -> Iterator[Recording]:
    """Records with real keys; the read models open with the same."""
    vault = Vault(models.connect, b"m" * 32)
    models.projections = all_projections(vault)
    with CommitterThread(models.urls.service_url) as committer:
        recording = Recording(committer, models.connect, vault, catalogue())
        person = facts.AddPerson(
            person=ADMINISTRATOR,
            name="陈建国",
            roles=("admin",),
            phone="13800138000",
            email="chen@example.org",
        )
        recording.record_fact(person, Origin("test", "admin", ADMINISTRATOR))
        yield recording


def ask(recording: Recording, command: commands.CustomerCommand, number: int) -> str:
    """Record a command; return the id of what it made, else the customer's."""
    asked = Asked(command, Origin("test", f"request {number}", ADMINISTRATOR))
    recorded = recording.record(asked)
    return recorded.made or recorded.customer


def register(recording: Recording) -> str:
    """Register an individual about whom everything is sealed; return its id."""
    return ask(
        recording,
        commands.parse(
            commands.RegisterCustomer,
            {
                "name": "张三小吃店",
                "kind": "individual",
                "identifiers": [{"system": "licence", "value": "L-77"}],
                "contacts": [{"name": "张三", "phone": "13900139000", "email": "z@example.org"}],
                "sites": [{"name": "老店", "address": "人民路1号"}],
            },
        ),
        1,
    )


def project(models: Models) -> None:
    models.runner().catch_up()
    assert models.parked() == []


def test_everything_that_is_sealed_is_opened(models: Models, recording: Recording) -> None:
    customer = register(recording)
    follow_up = ask(
        recording,
        commands.LogFollowUp(
            customer=customer, person=ADMINISTRATOR, note="谈了价格", agreed="下周再来"
        ),
        2,
    )
    ask(
        recording,
        commands.FileClaim(customer=customer, claimant=ADMINISTRATOR, note="老客户"),
        3,
    )
    ask(recording, commands.ReleaseCustomer(customer=customer, reason="没有预算"), 4)
    project(models)
    connection = models.connection

    administrator = people.person(connection, ADMINISTRATOR)
    assert administrator is not None
    assert (administrator.name, administrator.phone, administrator.email) == (
        "陈建国",
        "13800138000",
        "chen@example.org",
    )
    found = customers.customer(connection, customer)
    assert found is not None
    assert found.customer.name == "张三小吃店"
    assert [each.value for each in found.identifiers] == ["L-77"]
    (shown,) = found.contacts
    assert (shown.name, shown.phone, shown.email) == ("张三", "13900139000", "z@example.org")
    (site,) = found.sites
    assert (site.name, site.address) == ("老店", "人民路1号")
    logged = follow_ups.follow_up(connection, follow_up)
    assert logged is not None
    assert (logged.note, logged.agreed) == ("谈了价格", "下周再来")
    words = [each.words for each in timeline.history(connection, customer)]
    assert words == [
        {"name": "张三小吃店"},
        {"note": "谈了价格", "agreed": "下周再来"},
        {"note": "老客户"},
        {"reason": "没有预算"},
    ]


def test_once_a_key_is_destroyed_a_rebuild_knows_nothing_of_its_subject(
    models: Models, recording: Recording
) -> None:
    customer = register(recording)
    project(models)
    models.connection.execute("DELETE FROM keys.subject_keys WHERE subject = %s", (customer,))
    # Another process, whose vault does not remember the key.
    models.projections = all_projections(Vault(models.connect, b"m" * 32))
    models.rebuild()
    found = customers.customer(models.connection, customer)
    assert found is not None
    assert found.customer.name is None
    assert [each.value for each in found.identifiers] == [None]
    assert [(each.name, each.address) for each in found.sites] == [(None, None)]
    # The contact is a subject of its own.
    assert [each.name for each in found.contacts] == ["张三"]
    assert customers.search(models.connection, "小吃店") == []
    (registered,) = timeline.history(models.connection, customer)
    assert registered.words == {"name": None}
    assert telling.sentence(registered, {}) == (
        "per_admin registered the customer under a name that was erased."
    )
