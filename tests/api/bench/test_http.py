"""The measurements of HTTP, at a size at which their figures say nothing, and without wrk."""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.bench import http as measures
from api.bench.harness import bench_server
from api.bench.load import Load, LoadToolMissingError, wrk
from api.bench.main import run_all


def one_by_one(
    address: str,
    requests: Sequence[tuple[str, str | None]],
    headers: Mapping[str, str],
    *,
    connections: int,
    seconds: float,
) -> Load:
    """Send a few of the requests, each of which must succeed."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    for path, body in requests[:3]:
        connection.request("GET" if body is None else "POST", path, body, dict(headers))
        answer = connection.getresponse()
        assert answer.read()
        assert answer.status < 300, path
    connection.close()
    return Load(3.0, 1.0, 2.0)


def test_everything_is_measured(servers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "wrk", one_by_one)
    scale = measures.Scale(
        seconds=1,
        rounds=1,
        customers=40,
        events=4_000,
        paged_events=2_000,
        subscribers=5,
        decisions=10,
    )
    with bench_server(servers_folder) as server:
        found = measures.measure(server, scale)
    assert [each.at_least for each in found] == [1 / 15, 0, 1 / 5, 10, 1, 0.7, 1 / 1.5, 0.5]
    assert all(each.ours > 0 and each.theirs > 0 for each in found)


def test_it_is_missed_before_anything_else_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP comes last: an hour of other measures was lost, for their file is written at the end."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LoadToolMissingError):
        run_all([], small=True, output=tmp_path / "bench" / "bench.json")
    assert list(tmp_path.iterdir()) == []


def test_without_the_load_generator_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LoadToolMissingError, match="wrk"):
        wrk("http://127.0.0.1:1", [("/", None)], {}, connections=1, seconds=1)
