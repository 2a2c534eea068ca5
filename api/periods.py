"""The period that figures are of, told the same way on the command line and over HTTP."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from ledger.commands import InvalidRequestError
from ledger.organisation import OrganisationAt

DAYS = 30
# No day of any time zone lies before the first moment that there is.
EARLIEST = date(1900, 1, 1)


def period(
    since: date | None, until: date | None, organisation: OrganisationAt
) -> tuple[date, date]:
    """Return the first day, and the first one behind; by default the last 30 days, today included.

    Raises InvalidRequestError.
    """
    end = until or organisation.day(datetime.now(UTC)) + timedelta(days=1)
    if end <= EARLIEST:
        raise InvalidRequestError("until", f"{end} is not behind {EARLIEST}")
    begin = since or max(EARLIEST, end - timedelta(days=DAYS))
    if begin < EARLIEST:
        raise InvalidRequestError("since", f"{begin} lies before {EARLIEST}")
    if begin >= end:
        raise InvalidRequestError("since", f"{begin} is not before {end}")
    return begin, end
