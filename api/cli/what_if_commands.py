"""What would have come of another policy: the recorded requests decided again, nothing written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from api import what_ifs
from api.cli import resolve
from api.cli.context import (
    Json,
    moment,
    notes,
    opened,
    print_json,
    print_table,
    progress_bar,
)
from api.cli.policy_commands import rules_of
from ledger import organisation_commands as facts
from ledger.commands import InvalidRequestError, parse
from ledger.what_if import Count, Report

# So many names stand in a line that names the customers behind a number.
_NAMED = 3


def what_if(
    policy: Annotated[Path, typer.Option(help="A TOML file with what differs from the defaults.")],
    since: Annotated[
        str, typer.Option(help="Requests recorded from then on are decided again (2026-03-01).")
    ],
    show: Annotated[
        int, typer.Option(min=1, max=10_000, help="So many customers a table; --json has all.")
    ] = 20,
    json: Json = False,
) -> None:
    """Say what would be different had another policy been in force since a day; writes nothing.

    Deadlines are raised anew, each at the moment at which it would have fallen due.
    """
    with opened() as ledger:
        names = resolve.Names(ledger)
        begin = moment(since, names.zone, "since")
        if begin is None:
            raise InvalidRequestError("since", "is no moment")
        command = parse(facts.AdoptPolicy, {"policy": rules_of(ledger, policy)})
        with progress_bar("deciding again") as advance:
            report = what_ifs.run(ledger, command.policy, begin, advance)
        if json:
            print_json(what_ifs.document(report))
            return
        _print(report, names, show)


def _print(report: Report, names: resolve.Names, show: int) -> None:
    print_table(
        f"{report.requests:,} requests decided again, positions {report.after + 1:,} to"
        f" {report.upto:,}",
        ("what would differ", "how many", "customers", "such as"),
        [
            _row("decisions", report.decisions, names),
            _row("the same on other terms", report.terms, names),
            _row("requests with other approval steps", report.steps, names),
            _listed("owners today", list(report.owners), names),
            _listed("would await approval today", report.waiting, names),
            _listed("would no longer await it", report.not_waiting, names),
        ],
    )
    if report.steps.total:
        notes().print(
            f"approval steps: {report.steps_asked:,} were asked for, and"
            f" {report.steps_would_be:,} would be"
        )
    if report.changes:
        print_table(
            "decisions",
            ("decided", "would be", "how many", "customers", "such as"),
            [
                (decided, *_row(would_be, count, names))
                for (decided, would_be), count in what_ifs.ordered(report)
            ],
        )
    if report.owners:
        _print_owners(report, names, show)
    for remark in _remarks(report, names):
        notes().print(remark, markup=False, soft_wrap=True)


def _print_owners(report: Report, names: resolve.Names, show: int) -> None:
    print_table(
        "owners today",
        ("customer", "owner", "would be"),
        [
            (names.customer(customer), names.person(owner) or "free", names.person(other) or "free")
            for customer, (owner, other) in list(report.owners.items())[:show]
        ],
    )
    left = len(report.owners) - show
    if left > 0:
        notes().print(f"and {left:,} more: --show {len(report.owners)}, or --json")


def _row(words: str, count: Count, names: resolve.Names) -> Sequence[str]:
    customers = list(count.customers)
    return words, f"{count.total:,}", f"{len(customers):,}", _such_as(customers, names)


def _listed(words: str, customers: Sequence[str], names: resolve.Names) -> Sequence[str]:
    number = f"{len(customers):,}"
    return words, number, number, _such_as(customers, names)


def _such_as(customers: Sequence[str], names: resolve.Names) -> str:
    return ", ".join(names.customer(each) for each in customers[:_NAMED])


def _remarks(report: Report, names: resolve.Names) -> Iterable[str]:
    """Yield what is to be known about the figures."""
    if report.dropped.total or report.raised.total:
        yield (
            f"{report.dropped.total:,} deadlines of the clock were left out, and"
            f" {report.raised.total:,} raised anew as they would have fallen due."
        )
    for words, count in (
        ("requests could not be decided again", report.undecidable),
        ("requests have no decision yet", report.undecided),
    ):
        if count.total:
            such_as = _such_as(list(count.customers), names)
            yield f"{count.total:,} {words}, and count nowhere above: {such_as}"
