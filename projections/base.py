"""What a projection is: a name, a version, tables, and a fold from events to rows.

The SQL of a projection names its tables without a schema: the runner sets the search path, to
``projections`` for the live tables, to ``projections_fresh`` for a rebuild beside them, and to
``projections_check`` where verify fills a copy to compare. So a projection is written once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from psycopg import Connection

from ledger.envelope import Event
from ledger.events.values import Sealed

LIVE, FRESH, CHECK = "projections", "projections_fresh", "projections_check"
SCHEMAS = (LIVE, FRESH, CHECK)


class Change(NamedTuple):
    """An event, and for a decision that a projection needs it for, the request that caused it."""

    event: Event
    cause: Event | None


class Unsealer(Protocol):
    """Opens personal data: ledger.sealing.Vault."""

    def open_text(self, event: Event, name: str, value: str | Sealed | None) -> str | None:
        """Return the text of a field; None where its key was destroyed."""
        ...


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a projection.

    ``columns`` is what stands between the brackets of CREATE TABLE, keys included. ``indexes`` are
    the CREATE INDEX statements; a rebuild makes them once the rows are in. ``keys`` are those that
    the fold relies on (a unique index with a condition), and are made with the table. All names
    are without a schema. ``digest_without`` names columns that may differ between a rebuild and
    the live table, such as surrogate numbers.
    """

    name: str
    columns: str
    indexes: tuple[str, ...] = ()
    digest_without: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ()


class Projection(Protocol):
    """One read model. ``apply`` is given changes in order of position and writes set by set."""

    @property
    def name(self) -> str:
        """The stable name under which its position is tracked."""
        ...

    @property
    def version(self) -> int:
        """Rises when tables or fold change; a new version is rebuilt."""
        ...

    @property
    def tables(self) -> Sequence[Table]:
        """Its tables."""
        ...

    @property
    def handles(self) -> frozenset[str]:
        """The names of the events that it wants."""
        ...

    @property
    def needs_cause(self) -> frozenset[str]:
        """The names of the decisions that it wants together with their requests."""
        ...

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring, in the caller's transaction and search path.

        What fails raises, and nothing of the batch is kept. The connection may be in pipeline
        mode: the server works on a statement while the next is made. So no COPY; an error may
        come with a later statement; ``rowcount`` is known only after a fetch. Where a statement
        must meet a number of rows, it says so itself:
        ``SELECT projections.require_rows(count(*), %b) FROM changed``.
        """
        ...


def by_name(projections: Sequence[Projection]) -> Mapping[str, Projection]:
    """Return the projections by their names."""
    return {projection.name: projection for projection in projections}
