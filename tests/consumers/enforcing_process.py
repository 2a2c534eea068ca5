"""A process that enforces as it is told, a command a line; for the tests.

Answers each command with the position reached, or with the name of the error.
"""

from __future__ import annotations

import sys
import threading

import psycopg

from consumers.enforcer import Enforcer, EnforcerLimits
from consumers.enforcing import EnforcingLimits, enforce
from consumers.feed import StoreFeed
from ledger.errors import LedgerError
from ledger.events.catalogue import catalogue
from tests.consumers.support import PROCESS


def main(conninfo: str, batch: int, idle_ms: int) -> None:
    """Obey until the input ends."""
    limits = EnforcerLimits(batch_requests_max=batch)

    def connect() -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(conninfo, autocommit=True, application_name=PROCESS)

    with connect() as connection:
        connection.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, false)", (str(idle_ms),)
        )
        enforcer = Enforcer(connection, StoreFeed(), catalogue(), limits)
        print("ready", flush=True)
        for line in sys.stdin:
            try:
                match line.strip():
                    case "start":
                        enforcer.start()
                    case "once":
                        enforcer.run_once()
                    case "catch_up":
                        enforcer.catch_up()
                    case "enforce":
                        stop = threading.Event()
                        seconds = idle_ms / 1_000
                        bounds = EnforcingLimits(
                            idle_seconds_max=seconds, standby_seconds=0.1, enforcer=limits
                        )
                        print("enforcing", flush=True)
                        enforce(connect, StoreFeed(), catalogue(), stop, stop.wait, bounds)
                print(enforcer.position, flush=True)
            except (LedgerError, psycopg.Error) as error:
                print(type(error).__name__, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
