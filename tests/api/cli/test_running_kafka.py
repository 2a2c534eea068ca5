"""All roles as processes of this machine, beside a real Apache Kafka of their own."""

from __future__ import annotations

import os
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from api.bootstrap import open_ledger
from api.http.tokens import make_token
from api.settings import Settings
from consumers.kafka.connecting import Cluster
from consumers.kafka.records import Linked
from ledger import commands
from ledger import organisation_commands as facts
from ledger.envelope import Origin
from ledger.recording import Asked
from tests.api.cli.test_guishu import Terminal
from tests.consumers.kafka.support import events_of, topic
from tests.support.processes import wait_until

ROLES = ["relay", "projector", "enforcer-1", "enforcer-2", "clock", "serve"]
PARTITIONS = 2


def living_in(folder: Path) -> dict[int, str]:
    """Return the processes that work in a folder or below it, by number, with their commands.

    Whatever is started there stays there: guishu, its keepers, the servers and their children.
    """
    found = {}
    for each in Path("/proc").iterdir():
        try:
            where = Path(os.readlink(each / "cwd"))
            command = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        # One that has ended and is not waited for yet has no command.
        if each.name.isdigit() and command and where.is_relative_to(folder):
            found[int(each.name)] = command
    return found


def claimed(terminal: Terminal, customer: str, key: str) -> tuple[int, str]:
    """File a claim over HTTP; return its position, and what came of it."""
    (address,) = re.findall(r"HTTP is served on (\S+)", terminal.shown())
    headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=30"}
    answer = httpx.post(
        f"{address}/v1/claims", json={"customer": customer}, headers=headers, timeout=60
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["claim"], answer.json()["status"]


def relayed(terminal: Terminal) -> list[Linked]:
    """Return the events that stand in the topic."""
    (bootstrap,) = re.findall(r"kafka: running on (\S+)", terminal.shown())
    records = topic(Cluster(bootstrap, "guishu"), PARTITIONS)
    return [each for partition in records for each in events_of(partition)]


def pids_of(terminal: Terminal, role: str) -> list[int]:
    """Return as which processes a role was started so far."""
    return [int(each) for each in re.findall(rf"^{role}: .*process (\d+)$", terminal.shown(), re.M)]


def founded(folder: Path) -> tuple[str, str]:
    """Found an organisation in a data folder; return a free customer and its head's token."""
    with open_ledger(Settings(data_directory=folder)) as ledger:
        facts_stated: list[facts.FactCommand] = [
            facts.FoundOrganisation(name="测试公司", time_zone="Asia/Shanghai"),
            facts.AddPerson(person="per_1", name="管理员", roles=("admin", "manager")),
        ]
        ledger.recording.record_facts(facts_stated, Origin("setup", "req_found", "setup"))
        registered = ledger.recording.record(
            Asked(commands.RegisterCustomer(name="客户一"), Origin("setup", "req_1", "per_1"))
        )
        expires = datetime.now(UTC) + timedelta(hours=1)
        with ledger.pool.connection() as connection:
            token = make_token(
                connection,
                kind="person",
                principal="per_1",
                roles=("admin", "manager"),
                made_by="test",
                expires=expires,
            )
    return registered.customer, token


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")
def test_all_roles_run_and_are_brought_back_and_none_is_left(servers_folder: Path) -> None:
    """Killed, it leaves nothing running; told to end in the middle of its start, neither."""
    customer, token = founded(servers_folder / "data")
    terminal = Terminal(servers_folder, GUISHU_KAFKA_PARTITIONS=f"{PARTITIONS}")
    running = terminal.run(command="run-kafka", until="HTTP is served on")
    try:
        assert all(len(pids_of(terminal, role)) == 1 for role in ROLES)
        claim, status = claimed(terminal, customer, token)
        assert status == "granted"

        def decision_is_relayed() -> bool:
            return any(each.event.causation == claim for each in relayed(terminal))

        wait_until(decision_is_relayed)
        (killed,) = pids_of(terminal, "projector")
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(pids_of(terminal, "projector")) == 2)
        assert "projector: killed by SIGKILL; it is started again" in terminal.shown()
    finally:
        running.kill()
        running.wait()
    wait_until(lambda: not living_in(servers_folder), seconds_max=90)

    kept = servers_folder / "data" / "kafka" / "1" / "data"
    assert any(each.stat().st_size for each in kept.glob("guishu.log.v1-*/*.log"))

    again = terminal.run(command="run-kafka", until="starting Apache Kafka")
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 0, terminal.shown()
    assert living_in(servers_folder) == {}
