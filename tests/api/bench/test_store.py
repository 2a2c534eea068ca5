"""The measurements of the store run, and measure what they say; how fast is not tested here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from api.bench import store
from api.bench.harness import BenchServer, bench_server, describe_machine
from api.bench.store import Scale

SMALL = Scale(
    seconds=0.05,
    rounds=1,
    old_snapshot_rounds=1,
    old_snapshot_appends=500,
    bulk_events=2_000,
    read_events=4_000,
)


@pytest.fixture
def server(servers_folder: Path) -> Iterator[BenchServer]:
    with bench_server(servers_folder) as server:
        yield server


def test_every_measure_is_taken(server: BenchServer, servers_folder: Path) -> None:
    measures = store.measure(server, SMALL)
    assert [measure.at_least for measure in measures] == [20, 1.2, 1.5, 4, 0.8, 0.5]
    for measure in measures:
        assert measure.ours > 0
        assert measure.theirs > 0
    machine = describe_machine(server, servers_folder, "asyncio")
    assert machine.postgresql.startswith("18")
    assert machine.sync_microseconds > 0


def test_the_log_that_is_read_holds_what_the_measure_counts(server: BenchServer) -> None:
    with server.database() as database:
        store._fill_with_decisions(database, SMALL.read_events)
        with psycopg.connect(database.service_url) as connection:
            counted = connection.execute(
                "SELECT count(*), count(causation) FROM ledger.events"
            ).fetchone()
    assert counted == (SMALL.read_events, SMALL.read_events // 2)
