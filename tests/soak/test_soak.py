"""A short soak; ``make soak`` runs one for as long as asked."""

from __future__ import annotations

import secrets
from pathlib import Path

from consumers.kafka.local import LocalKafka
from tests.soak.plan import plan
from tests.soak.soaking import soak

SECONDS = 12


def test_whatever_is_killed_what_clients_were_told_holds(
    servers_folder: Path, kafka: LocalKafka
) -> None:
    planned = plan(secrets.randbelow(1_000_000), SECONDS)
    again = f"make soak SECONDS={SECONDS} SEED={planned.seed}"
    print(again)  # shown where anything fails
    soaked = soak(planned, servers_folder, kafka)
    assert not soaked.wrong, "\n".join([again, soaked.summary(), *soaked.wrong])
    assert soaked.kills.total() == len(planned.kills), again
    assert soaked.woken == len(planned.freezes), again
    assert {each.outcome for each in soaked.history.operations} >= {"acknowledged"}, again
    assert any(each.name == "OwnershipGranted" for each in soaked.history.log), again
