"""What the measurements share: a server of their own, interleaved samples, and what came out.

A figure alone says more about the machine than about guishu. So every measure is a ratio of two
figures, whose samples are taken in turn, in one run, on one server.
"""

from __future__ import annotations

import os
import platform
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from rich.table import Table

from ledger.store.embedded import OWNER_ROLE, SERVICE_ROLE, EmbeddedServer, embedded_server
from ledger.store.migrations import migrate


@dataclass(frozen=True, slots=True)
class Measure:
    """Two figures of one run, in ``unit``, and the ratio of ours to theirs.

    The figures are medians; the ratio is the median of the ratios of neighbouring samples. For a
    figure of which less is better ``ratio`` is theirs to ours, so that more is always better.
    """

    name: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    at_least: float

    @property
    def holds(self) -> bool:
        return self.ratio >= self.at_least


Sample = Callable[[], float]


def interleaved(samples: Mapping[str, Sample], rounds: int) -> dict[str, list[float]]:
    """Take every sample once a round, in turn; returns the figures by name, in order."""
    taken: dict[str, list[float]] = {name: [] for name in samples}
    for _ in range(rounds):
        for name, sample in samples.items():
            taken[name].append(sample())
    return taken


def compare(
    name: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    unit: str,
    at_least: float,
    less_is_better: bool = False,
) -> Measure:
    """Return the measure of figures that were taken in turn, of the same number of rounds."""
    ratios = [
        other / mine if less_is_better else mine / other
        for mine, other in zip(ours, theirs, strict=True)
    ]
    return Measure(
        name,
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        unit=unit,
        ratio=statistics.median(ratios),
        at_least=at_least,
    )


@dataclass(frozen=True, slots=True)
class BenchDatabase:
    """A fresh database on the measurements' server; libpq connection strings."""

    name: str
    owner_url: str
    service_url: str
    superuser_url: str


@dataclass(frozen=True, slots=True)
class BenchServer:
    """The server on which everything of one run is measured."""

    embedded: EmbeddedServer

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[BenchDatabase]:
        """Make a database, with all migrations unless told otherwise, and drop it afterwards.

        A checkpoint comes first, so that no sample pays for the writes of the one before.
        """
        name = f"bench_{secrets.token_hex(4)}"
        database = BenchDatabase(
            name,
            self.embedded.url(OWNER_ROLE, name),
            self.embedded.url(SERVICE_ROLE, name),
            make_conninfo(self.embedded.superuser_url, dbname=name),
        )
        identifier = sql.Identifier(name)
        create = sql.SQL("CREATE DATABASE {} OWNER {}")
        self._execute(create.format(identifier, sql.Identifier(OWNER_ROLE)))
        try:
            if migrated:
                migrate(database.owner_url)
            self._execute(sql.SQL("CHECKPOINT"))
            yield database
        finally:
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))

    def _execute(self, statement: sql.Composed | sql.SQL) -> None:
        with psycopg.connect(self.embedded.superuser_url, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def bench_server(folder: Path) -> Iterator[BenchServer]:
    """Start a server of the measurements' own, on the disk of ``folder``; it is gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="bench-", dir=folder) as directory,
        embedded_server(directory) as server,
    ):
        yield BenchServer(server)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run was measured on."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    postgresql: str
    event_loop: str
    # How long it takes until eight KiB more of a file are safely on the disk, in microseconds.
    sync_microseconds: float


def describe_machine(server: BenchServer, folder: Path, event_loop: str) -> Machine:
    """Look at the machine, and measure its disk at ``folder``."""
    with psycopg.connect(server.embedded.superuser_url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 0,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=platform.platform(),
        python=sys.version.split()[0],
        postgresql=str(row[0]) if row else "unknown",
        event_loop=event_loop,
        sync_microseconds=_sync_microseconds(folder),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _sync_microseconds(folder: Path, times: int = 200) -> float:
    taken: list[float] = []
    with TemporaryFile(dir=folder) as file:
        for _ in range(times):
            file.write(bytes(8_192))
            file.flush()
            before = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - before)
    return statistics.median(taken) * 1e6


def to_document(machine: Machine, measures: Sequence[Measure]) -> dict[str, Any]:
    """Return a run as JSON-ready data."""
    return {
        "machine": asdict(machine),
        "measures": [{**asdict(measure), "holds": measure.holds} for measure in measures],
    }


def to_table(measures: Sequence[Measure]) -> Table:
    """Return a run as a table for people."""
    table = Table("what", "guishu", "beside", "unit", "ratio", "at least", "")
    for measure in measures:
        table.add_row(
            measure.name,
            f"{measure.ours:,.4g}" if measure.ours < 100 else f"{measure.ours:,.0f}",
            f"{measure.theirs:,.4g}" if measure.theirs < 100 else f"{measure.theirs:,.0f}",
            measure.unit,
            f"{measure.ratio:.2f}",
            f"{measure.at_least:g}",
            "" if measure.holds else "[bold red]falls short[/]",
        )
    return table
