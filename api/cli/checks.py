"""What ``guishu verify`` and ``guishu doctor`` look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from api.bootstrap import Ledger
from api.cli.resolve import NotFoundError
from api.running import reflected
from consumers.rebuilding import compare_guards
from ledger.store.migrations import status
from ledger.store.reading import head
from ledger.verification import verify_log
from projections.rebuild import compare
from projections.runner import positions

OLD_SNAPSHOT_SECONDS = 60
SHOWN_MAX = 10


@dataclass(frozen=True, slots=True)
class Verified:
    """Whether everything is as it must be, and what to tell people."""

    good: bool
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that doctor looked at."""

    good: bool
    what: str
    found: str


def verify(ledger: Ledger, progress: Callable[[int, int], None]) -> Verified:
    """Check the log by deciding it again, and the read models by making them again aside."""
    with ledger.dedicated("verify") as connection:
        top = head(connection)
        report = verify_log(
            connection, ledger.catalogue, lambda position: progress(position, 2 * top)
        )
        stale = compare_guards(connection, ledger.catalogue)
    lines = list(report.lines())
    if stale:
        some = ", ".join(key.replace("\x1f", " ") for key in stale[:SHOWN_MAX])
        lines.append(
            f"{len(stale):,} guards are not what the log makes of them: {some};"
            " run guishu rebuild --guards"
        )
    else:
        lines.append("the enforcer's guards are what the log makes of them")
    differences = compare(
        lambda: ledger.dedicated("verify"),
        ledger.projections,
        ledger.catalogue,
        lambda position: progress(top + position, 2 * top),
    )
    lines += [
        f"read model {each.table}: {each.live_rows:,} rows, and the log makes"
        f" {each.expected_rows:,}; the first that differs is {each.key}; run guishu rebuild"
        for each in differences
    ]
    if not differences:
        lines.append(f"{len(ledger.projections)} read models are what the log makes of them")
    return Verified(report.good and not stale and not differences, tuple(lines))


def customer_of_parked(ledger: Ledger, position: int) -> str:
    """Return whose request is parked at a position; raises NotFoundError."""
    with ledger.pool.connection() as connection:
        row = connection.execute(
            "SELECT customer FROM ledger.parked_requests WHERE position = %s AND error IS NOT NULL",
            (position,),
        ).fetchone()
    if row is None:
        raise NotFoundError(
            f"No request is parked at {position}.", way_out="guishu doctor lists those that are."
        )
    return str(row[0])


def examine(ledger: Ledger) -> list[Finding]:
    """Look for what usually goes wrong."""
    findings = []
    migrated = status(ledger.database.service_url)
    pending = ", ".join(str(each.number) for each in migrated.pending)
    findings.append(
        Finding(
            not migrated.pending,
            "migrations",
            f"{len(migrated.applied)} applied" + (f"; pending: {pending}" if pending else ""),
        )
    )
    with ledger.pool.connection() as connection:
        top, decided, projected = reflected(connection)
        findings.append(Finding(True, "log", f"{top:,} events"))
        findings.append(Finding(decided >= top, "decided", f"{top - decided:,} positions behind"))
        lagging = [name for name, at in positions(connection).items() if at < top]
        words = f"{top - projected:,} positions behind" + (
            f": {', '.join(sorted(lagging))}" if lagging else ""
        )
        findings.append(Finding(projected >= top, "projected", words))
        parked = connection.execute(
            "SELECT position, error FROM ledger.parked_requests WHERE error IS NOT NULL"
            " ORDER BY position LIMIT 10"
        ).fetchall()
        findings.append(
            Finding(
                not parked,
                "parked requests",
                "; ".join(f"{position}: {error}" for position, error in parked) or "none",
            )
        )
        if positions(connection):
            streams = connection.execute(
                "SELECT projection, stream, position, code FROM projections.parked"
                " ORDER BY position LIMIT 10"
            ).fetchall()
            told = "; ".join(f"{row[0]} {row[1]} at {row[2]}: {row[3]}" for row in streams)
            findings.append(Finding(not streams, "parked streams", told or "none"))
        old = connection.execute(
            "SELECT pid, extract(epoch FROM now() - xact_start)::integer FROM pg_stat_activity"
            " WHERE backend_xmin IS NOT NULL AND datname = current_database()"
            " AND now() - xact_start > make_interval(secs => %s)",
            (OLD_SNAPSHOT_SECONDS,),
        ).fetchall()
        told = "; ".join(f"process {pid}: {seconds} s" for pid, seconds in old)
        findings.append(Finding(not old, "old snapshots", told or "none"))
        rights = connection.execute(
            "SELECT has_table_privilege('ledger.events', 'UPDATE')"
            " OR has_table_privilege('ledger.events', 'DELETE')"
            " OR has_table_privilege('ledger.events', 'TRUNCATE'), current_user"
        ).fetchone()
        if rights is not None:
            can = "can change" if rights[0] else "can only add to"
            findings.append(Finding(not rights[0], "role", f"{rights[1]} {can} the log"))
    return findings
