"""Serving HTTP from the command line: beside ``guishu run``, and alone with ``guishu serve``.

Imported by these two only when they begin: other commands need not wait until all routes are made.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import console, notes, opened
from api.http.app import create_app
from api.http.demo_tokens import DemoTokensError, any_in_force, demo_tokens
from api.http.services import open_services
from api.http.serving import AddressError, is_loopback, listen, serving
from projections.ownership import list_ownership


def serve_alone() -> None:
    """Serve HTTP until a signal comes."""
    ended = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: ended.set())
    with opened() as ledger, _serving(ledger, _listen(ledger), ended.set) as address:
        notes().print(f"serving on {address}", markup=False)
        ended.wait()
    notes().print("stopped: everything that was recorded is kept")


@contextmanager
def serving_beside(ledger: Ledger, ended: Callable[[], None]) -> Iterator[str | None]:
    """Serve HTTP beside the block; where the port is taken say so, and do without.

    ``ended`` is called where the server ends, also by a defect, which is raised behind the block.
    """
    try:
        listening = _listen(ledger)
    except AddressError as error:
        notes().print(f"HTTP is not served here: {error} {error.way_out}", markup=False)
        yield None
        return
    with _serving(ledger, listening, ended) as address:
        yield address


def _listen(ledger: Ledger) -> socket.socket:
    """Return the socket to serve on; raises DemoTokensError and AddressError."""
    host = ledger.settings.http_host
    with ledger.pool.connection() as connection:
        if not is_loopback(host) and any_in_force(connection):
            raise DemoTokensError(host)
    return listen(host, ledger.settings.http_port)


@contextmanager
def _serving(ledger: Ledger, listening: socket.socket, ended: Callable[[], None]) -> Iterator[str]:
    with (
        open_services(ledger) as services,
        serving(create_app(services), listening, ended) as address,
    ):
        try:
            yield address
        finally:
            # Else the server would wait for them, and then cut them off without an answer.
            services.end_waits()


def show_address(ledger: Ledger, address: str, *, demo: bool) -> None:
    """Print where HTTP is served; of the demo its people's tokens, and what to try."""
    out = console()
    served = f"HTTP is served on {address} (OpenAPI: {address}/v1/openapi.json)"
    if not demo or not is_loopback(ledger.settings.http_host):
        out.print(served, markup=False)
        return
    organisation = ledger.recording.organisation()
    names = resolve.Names(ledger)
    with ledger.pool.connection() as connection:
        tokens = demo_tokens(connection, ledger.settings.data_directory, organisation)
        *_, last = tokens
        home = organisation.person(last)
        # In the own territory, so that it is granted; the commands above try another one.
        free = list_ownership(
            connection, free=True, territory=home.territory if home else None, limit=1
        )
    # All that is asked for is there: from here on nothing can fail half-way.
    out.print(served, markup=False)
    for person, token in tokens.items():
        known = organisation.person(person)
        roles = ", ".join(sorted(known.roles)) if known else ""
        # On one line, so that it can be copied.
        out.print(f"  {names.person(person)} ({roles}): {token}", markup=False, soft_wrap=True)
    *_, rep = tokens.values()
    customer = free[0].customer if free else "cus_…"
    head = f"curl -sS -H 'Authorization: Bearer {rep}'"
    out.print("over HTTP, as the last of them:", markup=False)
    for each in (
        f"{head} '{address}/v1/customers?limit=3'",
        f"{head} {address}/v1/customers/{customer}/ownership",
        f"{head} -H 'Content-Type: application/json' -H 'Prefer: wait=5'"
        f' -d \'{{"customer": "{customer}"}}\' {address}/v1/claims',
    ):
        out.print(f"  {each}", markup=False, soft_wrap=True)
