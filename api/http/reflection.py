"""How far the read models are: what every read says, and what some wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from psycopg import Connection

from projections.runner import NotReflectedError, positions

# How long a read waits for a position that it is to reflect.
REFLECT_SECONDS_MAX = 5.0
_PAUSE_SECONDS = 0.005
# So long a position is told again; what is read behind it reflects that one all the more.
_TOLD_SECONDS = 0.02


class Reflection:
    """Knows a position that all read models reflect; for any number of threads.

    It keeps no connection while it waits, so that many who wait leave some to all others.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Connection[Any]]],
        names: Collection[str],
    ) -> None:
        self._connect = connect
        self._names = frozenset(names)
        self._told = (-_TOLD_SECONDS, 0)

    def reached(self, wanted: int = 0) -> int:
        """Return a position as ``reading`` gives it; raises what that does."""
        with self.reading(wanted) as (_, reached):
            return reached

    @contextmanager
    def reading(self, wanted: int = 0) -> Iterator[tuple[Connection[Any], int]]:
        """Give a connection, and a position that all read models reflect for whoever reads by it.

        It is ``wanted`` or behind it. It is looked up by that connection: the read models do not
        wait for the disk, so behind a crash another one may find them where they were before.
        Raises NotReflectedError where it takes too long, or where they are not made yet.
        """
        began = time.monotonic()
        while True:
            with self._connect() as connection:
                looked, reached, are_made = self._look(connection, wanted)
                if are_made and reached >= wanted:
                    yield connection, reached
                    return
            if looked - began > REFLECT_SECONDS_MAX:
                said = (
                    f"reflect position {reached}, and not {wanted} yet"
                    if are_made
                    else "are being made"
                )
                raise NotReflectedError(
                    f"The read models {said}.", way_out="Ask again a little later."
                )
            time.sleep(_PAUSE_SECONDS)

    def _look(self, connection: Connection[Any], wanted: int) -> tuple[float, int, bool]:
        """Return when it was looked, the position, and whether the read models are made."""
        at, reached = self._told
        looked = time.monotonic()
        # No server is back so soon behind a crash.
        if reached >= wanted and looked - at < _TOLD_SECONDS:
            return looked, reached, True
        found = positions(connection)
        # Without any there are no tables yet: the projector makes them at its first start.
        are_made = self._names <= found.keys()
        reached = min(found.values(), default=0)
        if are_made:
            self._told = (looked, reached)
        return looked, reached, are_made
