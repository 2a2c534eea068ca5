"""A process that keeps the time until it is killed; for the tests.

Says, after each batch, how many deadlines of it nobody had recorded before.
"""

from __future__ import annotations

import sys
import threading

import psycopg

from consumers.clock import ClockLimits, keep_time
from ledger.store import arrays
from tests.support.clocks import DatabaseClock
from tests.support.database import DatabaseUrls
from tests.support.ledgers import open_test_ledger


def main(service_url: str, batch: int) -> None:
    """Keep the time."""
    urls = DatabaseUrls("", "", service_url, "")
    stop = threading.Event()
    limits = ClockLimits(batch_requests_max=batch, poll_seconds=0.01, standby_seconds=0.05)
    with (
        open_test_ledger(urls) as ledger,
        psycopg.connect(service_url, autocommit=True) as connection,
    ):
        arrays.register(connection)
        keep_time(
            connection,
            ledger.recording,
            stop,
            stop.wait,
            limits,
            now=DatabaseClock.now,
            raised=lambda count: print(count, flush=True),
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
