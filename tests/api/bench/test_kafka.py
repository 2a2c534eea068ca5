"""The measurement of Kafka runs, at a size at which its figures say nothing."""

from __future__ import annotations

from pathlib import Path

from api.bench.enforcer import Scale as Claims
from api.bench.harness import bench_server
from api.bench.kafka import Scale, measure


def test_everything_is_measured(servers_folder: Path) -> None:
    scale = Scale(
        claims=Claims(claims=300, customers=200, reps=7),
        rounds=1,
        paced_seconds=0.2,
        kills=0,
        events=1_500,
        records=1_000,
    )
    with bench_server(servers_folder) as server:
        measures = measure(server, scale)
    assert [each.unit for each in measures] == [
        *("claims/s", "claims/s", "ms", "ms", "events/s", "records/s", "s")
    ]
    assert all(each.ours > 0 and each.theirs > 0 for each in measures)
