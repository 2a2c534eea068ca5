"""Finding what somebody was told of a moment ago, and what the read models may not show yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi.concurrency import run_in_threadpool
from psycopg import Connection

from api.http.services import Services
from api.running import reflected

T = TypeVar("T")
SOON_SECONDS_MAX = 3.0
_PAUSE_SECONDS = 0.01


async def find_soon(
    services: Services,
    find: Callable[[Connection[Any]], T],
    is_enough: Callable[[T], bool] = lambda found: found is not None,
) -> T:
    """Return what ``find`` finds: at once where that is enough.

    Else as it is when what is recorded now is decided and projected, or after some seconds.
    """
    return await run_in_threadpool(_find, services, find, is_enough)


def _find(
    services: Services, find: Callable[[Connection[Any]], T], is_enough: Callable[[T], bool]
) -> T:
    deadline = time.monotonic() + SOON_SECONDS_MAX
    target, requested = 0, True
    while True:
        services.reflection.reached()
        with services.ledger.pool.connection() as connection:
            # Before anything is found: what is projected up to there, is found.
            head, decided, projected = reflected(connection)
            found = find(connection)
        if is_enough(found) or time.monotonic() > deadline:
            return found
        target = target or head
        if requested and decided >= target:
            # What was decided stands behind the requests; that is to be projected as well.
            target, requested = head, False
        if not requested and projected >= target:
            return found
        time.sleep(_PAUSE_SECONDS)
