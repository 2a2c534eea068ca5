"""What ``guishu verify`` and ``guishu doctor`` look at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from psycopg import Connection

from api import parked
from api.bootstrap import Ledger
from api.cli.calendar_commands import provisional
from api.cli.resolve import NotFoundError
from api.dead_letters import counts, dead_letters
from api.falling_due import unstated_years
from api.running import reflected
from consumers.clock import database_now
from consumers.enforcer import CONSUMER
from consumers.rebuilding import compare_guards
from ledger.store.migrations import POSTGRES_VERSION_MIN, status
from ledger.store.reading import head
from ledger.verification import verify_log
from projections.rebuild import compare
from projections.runner import parked_streams, positions

OLD_SNAPSHOT_SECONDS = 60
CALENDAR_DAYS_AHEAD = 31
SHOWN_MAX = 10
COUNTED_MAX = 1_000
# A gibibyte holds the log of a few hundred thousand events, and time to react.
FREE_BYTES_MIN = 1 << 30

# Who holds the lock of consumers.progress.become_leader.
_LEADER = """
SELECT pid FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 2
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid = (hashtext(%s)::bigint & 4294967295)::oid
  AND objid = (hashtext(current_database())::bigint & 4294967295)::oid
"""
_PARKED_REQUESTS = """
SELECT position, error, count(*) OVER () FROM ledger.parked_requests
WHERE error IS NOT NULL ORDER BY position LIMIT %s
"""
_OLD_SNAPSHOTS = """
SELECT pid, extract(epoch FROM now() - xact_start)::integer FROM pg_stat_activity
WHERE backend_xmin IS NOT NULL AND datname = current_database()
  AND now() - xact_start > make_interval(secs => %s)
"""
_RIGHTS = """
SELECT has_table_privilege('ledger.events', 'UPDATE')
    OR has_table_privilege('ledger.events', 'DELETE')
    OR has_table_privilege('ledger.events', 'TRUNCATE'), current_user
"""


@dataclass(frozen=True, slots=True)
class Verified:
    """Whether everything is as it must be, and what to tell people."""

    good: bool
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that doctor looked at; ``way_out`` says what to do where it is not good."""

    good: bool
    what: str
    found: str
    way_out: str = ""


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
        customer = parked.customer_of_parked(connection, position)
    if customer is None:
        raise NotFoundError(
            f"No request is parked at {position}.", way_out="guishu doctor lists those that are."
        )
    return customer


def examine(ledger: Ledger) -> list[Finding]:
    """Look for what usually goes wrong, as the service's role; each trouble has a way out."""
    findings = [_migrations(ledger), _disk(ledger)]
    with ledger.pool.connection() as connection:
        findings.insert(0, _server(connection, ledger))
        findings += [
            *_followers(connection),
            _read_models(connection, ledger),
            _parked_requests(connection),
            _parked_streams(connection),
            _unreadable_records(connection),
            _calendar(connection, ledger),
            _old_snapshots(connection),
            _role(connection),
        ]
    return findings


def _server(connection: Connection[Any], ledger: Ledger) -> Finding:
    version = connection.info.server_version
    which = "embedded" if ledger.database.embedded else "by DATABASE_URL"
    row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    size = _bytes(row[0]) if row else "unknown"
    good = version // 10_000 >= POSTGRES_VERSION_MIN
    return Finding(
        good,
        "database",
        f"PostgreSQL {version // 10_000}.{version % 10_000}, {which}, {size}",
        "" if good else f"Upgrade it to PostgreSQL {POSTGRES_VERSION_MIN} or newer.",
    )


def _migrations(ledger: Ledger) -> Finding:
    migrated = status(ledger.database.service_url)
    pending = ", ".join(str(each.number) for each in migrated.pending)
    return Finding(
        not migrated.pending,
        "migrations",
        f"{len(migrated.applied)} applied" + (f"; pending: {pending}" if pending else ""),
        "Run guishu migrate as the database's owner." if pending else "",
    )


def _disk(ledger: Ledger) -> Finding:
    if not ledger.database.embedded:
        return Finding(True, "disk", "the server's: not to be seen from here")
    usage = shutil.disk_usage(ledger.settings.data_directory)
    return disk_room(usage.free, usage.total, ledger.settings.data_directory)


def disk_room(free: int, total: int, directory: Path) -> Finding:
    """Say whether ``free`` of ``total`` bytes leave the log room to grow."""
    good = free >= FREE_BYTES_MIN
    return Finding(
        good,
        "disk",
        f"{_bytes(free)} free of {_bytes(total)} at {directory}",
        "" if good else "Free some space, or move the data directory to a larger disk.",
    )


def _bytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def _followers(connection: Connection[Any]) -> list[Finding]:
    """Say how far the log is decided and projected, and whether somebody is at it."""
    top, decided, projected = reflected(connection)
    lagging = sorted(name for name, at in positions(connection).items() if at < top)
    return [
        Finding(True, "log", f"{top:,} events"),
        _follower(connection, "decided", CONSUMER, top, decided, ""),
        _follower(connection, "projected", "projector", top, max(projected, 0), ", ".join(lagging)),
    ]


def _follower(
    connection: Connection[Any], what: str, consumer: str, top: int, reached: int, which: str
) -> Finding:
    row = connection.execute(_LEADER, (f"guishu {consumer}",)).fetchone()
    runs = f"session {row[0]} is at it" if row else "nobody is at it"
    if reached >= top:
        return Finding(True, what, f"everything; {runs}")
    # What is decided makes the log longer, so that the distance alone may stay while all is well.
    lagging = f" ({which})" if which else ""
    found = f"up to position {reached:,}, {top - reached:,} behind{lagging}; {runs}"
    way_out = (
        "Wait and look again; if the position does not rise, see what guishu run says."
        if row
        else "Start guishu run."
    )
    return Finding(False, what, found, way_out)


def _read_models(connection: Connection[Any], ledger: Ledger) -> Finding:
    if connection.execute("SELECT to_regclass('projections.tracking')").fetchone() == (None,):
        return Finding(False, "read models", "none is made yet", "Start guishu run.")
    stored = dict(connection.execute("SELECT name, version FROM projections.tracking").fetchall())
    wanted = {each.name: each.version for each in ledger.projections}
    missing = sorted(wanted.keys() - stored.keys())
    outdated = [
        f"{name} is of version {stored[name]}, this guishu has {version}"
        for name, version in sorted(wanted.items())
        if stored.get(name, version) != version
    ]
    words = [*outdated, *(f"{name} is not made yet" for name in missing)]
    way_out = "Start guishu run." if missing else ""
    return Finding(
        not words,
        "read models",
        "; ".join(words) or f"{len(wanted)}, each of this version",
        "Run guishu rebuild." if outdated else way_out,
    )


def _parked_requests(connection: Connection[Any]) -> Finding:
    rows = connection.execute(_PARKED_REQUESTS, (SHOWN_MAX,)).fetchall()
    if not rows:
        return Finding(True, "parked requests", "none")
    count = rows[0][2]
    told = "; ".join(f"{position}: {error}" for position, error, _ in rows)
    return Finding(
        False,
        "parked requests",
        _first_of(count, told),
        f"Upgrade guishu if that mends it, then: guishu unpark {rows[0][0]} --decider VERSION.",
    )


def _parked_streams(connection: Connection[Any]) -> Finding:
    parked = parked_streams(connection, COUNTED_MAX)
    if not parked:
        return Finding(True, "parked streams", "none")
    # The words may quote personal data, and doctor's answers are passed on.
    told = "; ".join(
        f"{each.projection} leaves {each.stream} alone from {each.position} on ({each.code})"
        for each in parked[:SHOWN_MAX]
    )
    return Finding(
        False,
        "parked streams",
        _first_of(len(parked), told),
        "Upgrade guishu if that mends it, then run guishu rebuild.",
    )


def _unreadable_records(connection: Connection[Any]) -> Finding:
    """Say whether others write into the log's topic; their content is not told."""
    count = counts(connection)["record"]
    if not count:
        return Finding(True, "unreadable records", "none")
    letters = dead_letters(connection, SHOWN_MAX, "record")
    return Finding(
        False,
        "unreadable records",
        _first_of(count, "; ".join(each.id for each in letters)),
        "Find out who writes into the topic (guishu dead-letters show), then guishu dead-letters"
        " replay or drop them.",
    )


def _first_of(count: int, told: str) -> str:
    if count <= SHOWN_MAX:
        return told
    number = f"{count:,}" if count < COUNTED_MAX else f"{COUNTED_MAX:,} or more"
    return f"{number}, the first of them: {told}"


def _old_snapshots(connection: Connection[Any]) -> Finding:
    old = connection.execute(_OLD_SNAPSHOTS, (OLD_SNAPSHOT_SECONDS,)).fetchall()
    told = "; ".join(f"session {pid}: {seconds:,} s" for pid, seconds in old)
    return Finding(
        not old,
        "old snapshots",
        told or "none that this role may see",
        "They keep the server from tidying up: end the sessions that forgot them." if old else "",
    )


def _calendar(connection: Connection[Any], ledger: Ledger) -> Finding:
    """Say of which years holidays are stated, where the policy counts working days."""
    organisation, now = ledger.recording.organisation(), database_now(connection)
    if connection.execute("SELECT to_regclass('projections.deadlines')").fetchone() == (None,):
        return Finding(True, "calendar", "nothing falls due yet")
    recycling = organisation.policy.policy.recycling
    if not recycling.rules or recycling.days != "working":
        return Finding(True, "calendar", "the policy counts no working days")
    years = unstated_years(connection, organisation, now)
    if not years:
        return Finding(True, "calendar", "stated as far as anything falls due")
    # The next year is announced in November: before, nobody can state it.
    soon = organisation.day(now + timedelta(days=CALENDAR_DAYS_AHEAD)).year
    return Finding(
        min(years) > soon,
        "calendar",
        provisional(years),
        "Run guishu calendar seed, or guishu calendar state.",
    )


def _role(connection: Connection[Any]) -> Finding:
    row = connection.execute(_RIGHTS).fetchone()
    if row is None:
        raise AssertionError("a SELECT without FROM gives a row")
    may_change, name = row
    return Finding(
        not may_change,
        "role",
        f"{name} {'can change' if may_change else 'can only add to'} the log",
        "Take these rights from it: REVOKE UPDATE, DELETE, TRUNCATE ON ledger.events."
        if may_change
        else "",
    )
