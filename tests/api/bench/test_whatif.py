"""The measurement of what-if runs, at a size at which its figure says nothing."""

from __future__ import annotations

from pathlib import Path

from api.bench.harness import bench_server
from api.bench.whatif import Scale, measure


def test_everything_is_measured(servers_folder: Path) -> None:
    scale = Scale(requests=700, customers=100, reps=5, rounds=2)
    with bench_server(servers_folder) as server:
        found = measure(server, scale)
    assert [each.at_least for each in found] == [1, 1]
    assert all(each.unit == "requests/s" and each.ours > 0 for each in found)
