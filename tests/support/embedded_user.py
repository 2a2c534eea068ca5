"""A process that uses an embedded server until its standard input ends; for the tests.

Answers each line that it reads with the number of the server's process, or the error's code.
"""

from __future__ import annotations

import os
import select
import signal
import sys

import psycopg

from ledger.errors import LedgerError
from ledger.store.embedded import EmbeddedServer, embedded_server


def main() -> None:
    """Use the server in the folder that the first argument names."""
    # A shell starts what runs in its background with SIGINT ignored, and that is inherited. This
    # process plays one in the foreground of a terminal, wherever the tests themselves run.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with embedded_server(sys.argv[1]) as server:
            print(_server_process(server), flush=True)
            while _next_line():
                print(_server_process(server), flush=True)
    except LedgerError as error:
        print(error.code, flush=True)
        raise
    except KeyboardInterrupt:
        sys.exit(130)


def _next_line() -> bool:
    """Wait for an empty line; False at the end of the input.

    A signal that comes just before a blocking read would be noticed only after it.
    """
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
    return os.read(sys.stdin.fileno(), 1) != b""


def _server_process(server: EmbeddedServer) -> str:
    with psycopg.connect(server.service_url, connect_timeout=10) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("guishu_app",)
    return str(server.postmaster_pid())


if __name__ == "__main__":
    main()
