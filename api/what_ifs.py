"""What-ifs, told the same way on the command line and over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from api.bootstrap import Ledger
from ledger import what_if as deciding
from ledger.policy import Policy
from ledger.what_if import Count, Report
from projections.intervals import position_at

_MICROSECOND = timedelta(microseconds=1)
# So many customers stand in a list of a job's result; the numbers count all of them.
LISTED_MAX = 1_000


def run(
    ledger: Ledger, policy: Policy, since: datetime, told: Callable[[int, int], None]
) -> Report:
    """Decide again what was recorded from ``since`` on (with its zone); write nothing."""
    with ledger.dedicated("what-if") as connection:
        after = position_at(connection, since - _MICROSECOND)
        return deciding.what_if(connection, ledger.catalogue, policy, after, told)


def ordered(report: Report) -> list[tuple[tuple[str, str], Count]]:
    """Return the changes, the most frequent first."""
    return sorted(report.changes.items(), key=lambda each: -each[1].total)


def document(report: Report, *, listed_max: int | None = None) -> dict[str, Any]:
    """Return a report as JSON has it.

    ``listed_max`` bounds every list of customers; ``left_out`` then says, by the list, how many
    more there are.
    """
    owners = [
        {"customer": customer, "owner": owner, "would_be": would_be}
        for customer, (owner, would_be) in report.owners.items()
    ]
    changes = [
        {"decided": decided, "would_be": would_be, **asdict(count)}
        for (decided, would_be), count in ordered(report)
    ]
    told: dict[str, Any] = {**asdict(report), "changes": changes, "owners": owners}
    if listed_max is None:
        return told
    left_out: dict[str, int] = {}
    for name, value in told.items():
        if isinstance(value, dict) and "customers" in value:
            value["customers"] = _cut(value["customers"], listed_max, name, left_out)
        elif name in {"owners", "waiting", "not_waiting"}:
            left = len(value) - listed_max
            if left > 0:
                told[name], left_out[name] = value[:listed_max], left
    for each in changes:
        name = f"{each['decided']} > {each['would_be']}"
        each["customers"] = _cut(each["customers"], listed_max, name, left_out)
    return told | {"left_out": left_out}


def _cut(
    customers: Mapping[str, int], listed_max: int, name: str, left_out: dict[str, int]
) -> dict[str, int]:
    left = len(customers) - listed_max
    if left > 0:
        left_out[name] = left
    return dict(islice(customers.items(), listed_max))
