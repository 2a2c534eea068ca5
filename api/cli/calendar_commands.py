"""Commands about working days and holidays: which are stated, and stating them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from psycopg import Connection

from api import holidays
from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import (
    As,
    Json,
    console,
    day,
    notes,
    opened,
    origin,
    print_json,
    print_table,
)
from api.cli.following import follow
from api.cli.four_eyes_commands import is_to_be_proposed, propose
from api.falling_due import unstated_years
from ledger import organisation_commands as facts
from ledger.commands import InvalidRequestError, parse
from ledger.organisation import OrganisationAt
from ledger.working_days import StatedYear, WorkingDays

Year = Annotated[int, typer.Argument(min=facts.YEAR_MIN, max=facts.YEAR_MAX)]
Days = Annotated[list[str], typer.Option(help="A day such as 2026-10-01; may be repeated.")]


def calendar_app() -> typer.Typer:
    """Return the commands about working days."""
    app = typer.Typer(
        help="Working days (工作日) and holidays (节假日), as facts of the organisation.",
        no_args_is_help=False,
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(calendar)
    app.command("seed")(seed)
    app.command("state")(state)
    app.command("show")(show)
    return app


def calendar(context: typer.Context, json: Json = False) -> None:
    """List the years that are stated; or `show` the days of one, `seed` or `state` others."""
    if context.invoked_subcommand is not None:
        return
    with opened() as ledger:
        stated = _in_order(ledger.recording.organisation().working_days)
        if json:
            print_json(stated)
            return
        print_table(
            "years stated",
            ("year", "holidays", "weekend days worked", "source"),
            [
                (each.year, len(each.holidays), len(each.workdays), each.source or "people")
                for each in stated
            ],
        )
        notes().print("In any other year Monday to Friday are worked.", markup=False)


def show(year: Year, json: Json = False) -> None:
    """Show the holidays of a year, and the days of weekends that are worked (调休)."""
    with opened() as ledger:
        stated = ledger.recording.organisation().working_days.years.get(year)
        if json:
            print_json(stated)
            return
        if stated is None:
            console().print(provisional([year]), markup=False, soft_wrap=True)
            return
        source = f" (by {stated.source})" if stated.source else ""
        named = [(each, "holiday") for each in stated.holidays]
        named += [(each, "worked") for each in stated.workdays]
        print_table(
            f"{year}{source}",
            ("day", "", "is"),
            [(each, f"{each:%a}", what) for each, what in sorted(named)],
        )


def seed(
    years: Annotated[
        list[int] | None,
        typer.Argument(
            min=facts.YEAR_MIN,
            max=facts.YEAR_MAX,
            help="Years; without any the last one, this and the next, as far as they are known.",
        ),
    ] = None,
    as_: As = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Even where people have stated a year otherwise.")
    ] = False,
    json: Json = False,
) -> None:
    """State the holidays of mainland China, as the library chinesecalendar knows them.

    What is stated so already is not stated again; where four eyes are required, it is proposed.
    From then on it stays as it is, whatever a newer library says.
    """
    with opened() as ledger:
        organisation = ledger.recording.organisation()
        if years:
            wanted = [holidays.year_of_library(each) for each in dict.fromkeys(years)]
        else:
            wanted = holidays.years_around(organisation.day(datetime.now(UTC)))
        stated = organisation.working_days.years
        new = [each for each in wanted if not holidays.says_the_same(stated.get(each.year), each)]
        if not replace:
            _must_not_be_peoples(stated.get(each.year) for each in new)
        if new and _is_proposed(ledger, new, as_, json=json):
            return
        position = _record(ledger, new, as_) if new else None
        if json:
            print_json({"stated": [each.year for each in new], "position": position})
            return
        said = ", ".join(str(each.year) for each in new)
        out = console()
        out.print(f"stated: {said}" if said else "nothing to state: it is known", markup=False)


def _must_not_be_peoples(stated: Iterable[StatedYear | None]) -> None:
    for each in stated:
        if each is not None and each.source is None:
            raise InvalidRequestError(
                "year", f"people have stated {each.year} otherwise; --replace replaces that"
            )


def state(
    year: Year,
    as_: As = None,
    holiday: Days = [],  # noqa: B006 - typer copies it
    workday: Days = [],  # noqa: B006 - typer copies it
    json: Json = False,
) -> None:
    """State all holidays of a year from Monday to Friday, and all days of weekends worked.

    It replaces what was stated of the year, from now on.
    """
    with opened() as ledger:
        fields = {
            "year": year,
            "holidays": [day(each, "holiday") for each in holiday],
            "workdays": [day(each, "workday") for each in workday],
        }
        command = parse(facts.StateCalendar, fields)
        if _is_proposed(ledger, [command], as_, json=json):
            return
        position = _record(ledger, [command], as_)
        if json:
            print_json({"stated": [year], "position": position})
            return
        words = f"{year}: {len(holiday)} holidays, {len(workday)} weekend days worked"
        console().print(words, markup=False)


def _is_proposed(
    ledger: Ledger, years: Sequence[facts.StateCalendar], as_: str | None, *, json: bool
) -> bool:
    """Propose the years, each for itself, where somebody else has to adopt them; say whether so."""
    if not any(is_to_be_proposed(ledger, each) for each in years):
        return False
    propose(ledger, *years, actor=resolve.actor(ledger, as_), json=json)
    return True


def _record(ledger: Ledger, stated: list[facts.StateCalendar], as_: str | None) -> int:
    actor = resolve.actor(ledger, as_)
    recorded = ledger.recording.record_facts(stated, origin(actor))
    follow(ledger, recorded[-1].position)
    return recorded[-1].position


def _in_order(calendar: WorkingDays) -> list[StatedYear]:
    return [calendar.years[year] for year in sorted(calendar.years)]


# --- what is provisional ------------------------------------------------------------------------


def provisional(years: Sequence[int]) -> str:
    """Say what it means that of these years nothing was stated."""
    named = ", ".join(map(str, years))
    return (
        f"Of {named} no holidays are stated: Monday to Friday count, and what falls due then is"
        " provisional (guishu calendar seed)."
    )


def tell_what_is_provisional(
    connection: Connection[Any], organisation: OrganisationAt, now: datetime
) -> None:
    """Say, beside a list of what falls due, of which years nothing was stated."""
    years = unstated_years(connection, organisation, now)
    if years:
        notes().print(provisional(years), markup=False, soft_wrap=True)
