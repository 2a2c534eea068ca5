"""What every command needs: the open ledger, who acts, and words for what went wrong."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from psycopg import Connection
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from api.bootstrap import Ledger, connected, open_ledger
from api.cli import tables
from api.plain import as_json as as_json  # its name for the commands
from api.settings import load_settings
from ledger.commands import InvalidRequestError
from ledger.envelope import Origin, Source
from ledger.errors import LedgerError
from ledger.recording import new_request_id
from ledger.store.errors import SchemaUnreadableError
from ledger.store.migrations import pending

ID = tables.ID
As = Annotated[
    str | None,
    typer.Option("--as", help="Who acts: an id or a name. Recorded as asserted here."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Ids = Annotated[bool, typer.Option("--ids", help="Show ids as well.")]
RequestId = Annotated[
    str | None,
    typer.Option(help="Your own id of this request; the same again gives the first answer."),
]


def console() -> Console:
    """Return the console for what the command answers."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def notes() -> Console:
    """Return the console for remarks and progress: standard error."""
    return Console(stderr=True, highlight=False)


class NotMigratedError(LedgerError):
    """The database of DATABASE_URL lacks migrations that this version of guishu needs."""

    code = "not_migrated"


@contextmanager
def opened() -> Iterator[Ledger]:
    """Open the ledger that the settings name; migrates the embedded one.

    Raises NotMigratedError, what ``pending`` raises about the server, and what ``open_ledger``
    does.
    """
    settings = load_settings()
    if settings.database_url is not None:
        _must_be_migrated(settings.database_url.get_secret_value())
    with open_ledger(settings, migrating=False) as ledger:
        yield ledger


@contextmanager
def unopened() -> Iterator[Connection[Any]]:
    """Connect to the ledger that the settings name where opening it may be refused.

    Raises NotMigratedError, and what ``connected`` does.
    """
    settings = load_settings()
    if settings.database_url is not None:
        _must_be_migrated(settings.database_url.get_secret_value())
    with connected(settings) as connection:
        yield connection


def _must_be_migrated(url: str) -> None:
    """Raise where a table may be missing: whoever meets that later cannot tell what is wrong."""
    try:
        lacking = pending(url)
    except SchemaUnreadableError:
        # Only the service's role may look, and doctor does so.
        return
    if lacking:
        raise NotMigratedError(
            f"The database lacks {len(lacking)} of this version's migrations.",
            way_out="Run guishu migrate as the database's owner (GUISHU_OWNER_DATABASE_URL).",
        )


def caller() -> str:
    """Return the authenticated principal of the command line: the user of the machine."""
    return f"cli:{getpass.getuser()}"


def origin(actor: str, request_id: str | None = None, occurred: datetime | None = None) -> Origin:
    """Return where a command of this terminal comes from; its actor is only asserted."""
    return Origin(
        caller=caller(),
        request_id=request_id or new_request_id(),
        actor=actor,
        authority="asserted",
        occurred=occurred,
        source=Source("cli"),
    )


def moment(text: str | None, zone: ZoneInfo, field: str) -> datetime | None:
    """Return a moment from what somebody typed: a date (its first moment) or a time, in ``zone``.

    Raises InvalidRequestError.
    """
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(
            field, f"{text!r} is no date or time such as 2026-03-01 or 2026-03-01T09:30"
        ) from None
    placed = parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)
    try:
        placed.astimezone(UTC)
    except OverflowError:
        raise InvalidRequestError(
            field, f"{text!r} lies before the year 1 of UTC, or behind its last"
        ) from None
    return placed


def typed(text: str, field: str) -> str:
    """Return what somebody typed, if the database can be asked for it; else InvalidRequestError.

    Bytes of the terminal that are no UTF-8 reach a program as lone surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(field, f"{text[:60]!r} holds what is not UTF-8") from None
    if "\0" in text:
        raise InvalidRequestError(field, "holds the control character U+0000")
    return text


def day(text: str | None, field: str) -> date | None:
    """Return the day that somebody typed; raises InvalidRequestError."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(field, f"{text!r} is no day such as 2026-03-01") from None


def numbers(given: Iterable[str], field: str) -> list[dict[str, str]]:
    """Return SYSTEM=VALUE options as identifiers or foreign ids; raises InvalidRequestError."""
    found = []
    for each in given:
        system, separator, value = each.partition("=")
        if not separator:
            raise InvalidRequestError(field, f"{each!r} is not SYSTEM=VALUE")
        found.append({"system": system, "value": value})
    return found


def shown(at: datetime | None, zone: ZoneInfo) -> str:
    """Return a moment as people read it, in the organisation's time zone."""
    if at is None:
        return ""
    # Not strftime: it leaves the noughts off early years on some systems.
    return at.astimezone(zone).replace(tzinfo=None).isoformat(" ", "minutes")


def json_text(value: Any) -> str:
    """Return a value as JSON on one line, with Chinese as it is."""
    return json.dumps(as_json(value), ensure_ascii=False)


def print_json(value: Any) -> None:
    """Print a value as JSON, readable, with Chinese as it is."""
    sys.stdout.write(json.dumps(as_json(value), ensure_ascii=False, indent=2) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as a table that the terminal has room for, as api/cli/tables.py lays it out."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    out = console()
    out.print(
        tables.laid_out(title, columns, cells, out.width) if cells else f"{escape(title)}: none"
    )


@contextmanager
def progress_bar(words: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error; the function given takes what is done and the total."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=notes(), transient=True) as progress:
        task = progress.add_task(words, total=1)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=max(total, 1))

        yield advance
