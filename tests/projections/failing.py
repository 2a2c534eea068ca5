"""A projection that fails once, after it has written: what it wrote must not be kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from projections.base import Change, Projection, Table


class FailsOnce:
    """Does what another projection does, and fails at the end of its first batch."""

    def __init__(self, inner: Projection) -> None:
        self._inner = inner
        self.failed = False

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def version(self) -> int:
        return self._inner.version

    @property
    def tables(self) -> Sequence[Table]:
        return self._inner.tables

    @property
    def handles(self) -> frozenset[str]:
        return self._inner.handles

    @property
    def needs_cause(self) -> frozenset[str]:
        return self._inner.needs_cause

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        self._inner.apply(connection, changes)
        if not self.failed:
            self.failed = True
            raise RuntimeError("the first batch fails")
