"""The measurement of a hand-over runs, at a size at which its figures say nothing."""

from __future__ import annotations

from pathlib import Path

from api.bench.hand_over import Scale, measure
from api.bench.harness import bench_server


def test_everything_is_measured(servers_folder: Path) -> None:
    with bench_server(servers_folder) as server:
        found = measure(server, Scale(customers=600))
    assert [each.unit for each in found] == ["s", "ms", "s", "ms"]
    assert all(each.ours > 0 for each in found)
