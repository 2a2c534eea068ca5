"""What callers put into paths and queries, bounded so that the database can be asked for it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, Field, StringConstraints

from ledger import commands
from ledger.commands import EARLIEST, YEARS, AnyDay, Id

_LAST = datetime(9999, 12, 30, tzinfo=UTC)
# No day of any time zone lies before the first moment that there is.
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(9999, 12, 30)


def _within_time(moment: datetime) -> datetime:
    if not EARLIEST <= moment <= _LAST:
        raise ValueError(f"lies before {EARLIEST.year}, or behind {_LAST.year}")
    return moment.astimezone(UTC)


def _within_days(day: date) -> date:
    if not FIRST_DAY <= day <= LAST_DAY:
        raise ValueError(f"lies before {FIRST_DAY}, or behind {LAST_DAY}")
    return day


def _askable(text: str) -> str:
    return text.replace("\0", "")


Moment = Annotated[commands.Moment, AfterValidator(_within_time)]
"""A moment with its zone, from 1900 on; UTC when it is read."""
Day = Annotated[AnyDay, AfterValidator(_within_days), Field(json_schema_extra={"pattern": YEARS})]
"""A calendar day of the organisation."""
Text = Annotated[str, StringConstraints(max_length=300), AfterValidator(_askable)]
"""What somebody looks for."""

PersonId = Annotated[Id, Path(description="The person's id.")]
TerritoryId = Annotated[Id, Path(description="The territory's id.")]
