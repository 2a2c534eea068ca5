"""The measurements of the read models run, at a size at which their figures say nothing."""

from __future__ import annotations

from pathlib import Path

from api.bench.harness import bench_server
from api.bench.projections import Scale, measure

SMALL = Scale(
    events=3_000,
    more_events=6_000,
    customers=200,
    people=20,
    look_up_events=1_000,
    few_look_up_events=100,
    look_ups=20,
    rounds=1,
    single_claims=5,
)


def test_everything_is_measured(servers_folder: Path) -> None:
    with bench_server(servers_folder) as server:
        measures = measure(server, SMALL)
    assert [measure.unit for measure in measures] == [
        "events/s",
        "events/s",
        "MiB",
        "ms",
        "ms",
        "ms",
    ]
    assert all(measure.ours > 0 and measure.theirs > 0 for measure in measures)
