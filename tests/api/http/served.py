"""The application behind a real server, for what only a real connection shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from api.http.serving import listen, serving
from tests.api.http.office import Office


@contextmanager
def served(office: Office) -> Iterator[str]:
    """Serve an office on a free port beside the block; gives the address."""
    with serving(office.app, listen("127.0.0.1", 0)) as address:
        try:
            yield address
        finally:
            office.services.end_waits()
