"""Figures per territory: how long approvals take, and how conflicts 撞单 end."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli import resolve
from api.cli.context import Json, day, notes, opened, print_json, print_table
from api.periods import period
from projections.case_figures import ApprovalTimes, CaseFigures, case_figures


def figures(
    since: Annotated[
        str | None,
        typer.Option(help="The first day, such as 2026-03-01; else 30 days earlier."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="The first day behind the period; else tomorrow.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell how long approvals took (审批时长), and how conflicts (撞单) ended.

    By the territory in which the customer was when the approval or conflict was opened.
    """
    with opened() as ledger:
        names = resolve.Names(ledger)
        organisation = names.organisation
        begin, end = period(day(since, "since"), day(until, "until"), organisation)
        with ledger.pool.connection() as connection:
            found = case_figures(
                connection, organisation.start_of(begin), organisation.start_of(end)
            )
        if json:
            print_json({"since": begin, "until": end, "territories": found})
            return
        print_table(
            f"approvals ended from {begin} until before {end}",
            ("territory", "outcome", "number", "median", "longest", "still open"),
            [row for each in found for row in _approval_rows(each)],
        )
        print_table(
            f"conflicts from {begin} until before {end}",
            ("territory", "opened", "ruled", "gone", "still open"),
            [
                (
                    _name(each),
                    str(each.conflicts_opened),
                    ", ".join(f"{how} {number}" for how, number in each.ruled.items()),
                    str(each.gone),
                    str(each.conflicts_open),
                )
                for each in found
            ],
        )
        notes().print("Of approvals that needed a step. --json has the figures in seconds.")


def _name(figures: CaseFigures) -> str:
    return figures.name or figures.territory or "(none)"


def _approval_rows(figures: CaseFigures) -> list[tuple[str, ...]]:
    still_open = str(figures.approvals_open)
    if not figures.approvals:
        return [(_name(figures), "", "0", "", "", still_open)]
    return [
        (_name(figures), *_times(each), still_open if number == 0 else "")
        for number, each in enumerate(figures.approvals)
    ]


def _times(times: ApprovalTimes) -> tuple[str, ...]:
    return (
        times.outcome,
        str(times.approvals),
        lasting(times.median_seconds),
        lasting(times.longest_seconds),
    )


def lasting(seconds: int) -> str:
    """Return how long something took, in its two largest units, such as ``2 d 3 h``."""
    parts: list[str] = []
    left = seconds
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])
