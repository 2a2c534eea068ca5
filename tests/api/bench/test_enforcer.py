"""The measurement of the enforcer runs, at a size at which its figures say nothing."""

from __future__ import annotations

from pathlib import Path

from api.bench.enforcer import Scale, measure
from api.bench.harness import bench_server


def test_everything_is_measured(servers_folder: Path) -> None:
    scale = Scale(claims=700, customers=300, reps=7, rounds=2, single_claims=5)
    with bench_server(servers_folder) as server:
        measures = measure(server, scale)
    assert [measure.unit for measure in measures] == ["claims/s", "events/s", "ms", "ms"]
    assert all(measure.ours > 0 and measure.theirs > 0 for measure in measures)
