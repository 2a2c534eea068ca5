"""An import from its plan to its report, driven the same way by the command line and over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from psycopg import Connection

from api.bootstrap import Ledger
from api.imports.filing import Filed, Filing, Importer
from api.imports.finding import LedgerDirectory
from api.imports.mapping import Mapping
from api.imports.planning import Plan
from api.imports.report import Report
from api.running import settle
from ledger.envelope import Event
from ledger.events.catalogue import Catalogue
from ledger.organisation import Import, OrganisationAt
from ledger.recording import Recording
from ledger.store.reading import read_requests

Told = Callable[[int, int], None]


def directory_of(
    ledger: Ledger,
    organisation: OrganisationAt,
    mapping: Mapping,
    now: datetime,
    settling: Told = lambda done, total: None,
) -> LedgerDirectory | None:
    """Return what knows whom the ledger holds, None where it is empty."""
    if organisation.name is None:
        return None
    # The names of people and customers stand in the read models only.
    settle(ledger, told=_settled(settling))
    return LedgerDirectory(
        organisation,
        ledger.pool.connection,
        mapping,
        ledger.catalogue,
        ledger.vault,
        now,
    )


def file_plan(
    ledger: Ledger,
    recording: Recording,
    planned: Plan,
    importer: Importer,
    progress: Callable[[str], AbstractContextManager[Told]],
    admit: Callable[[OrganisationAt, Sequence[Import]], None] = lambda organisation, mine: None,
) -> Filed:
    """File a plan, have it decided and projected, and close the import.

    ``recording`` is used by this thread alone. ``progress`` begins a stretch of the work, in words,
    and gives whom to tell how far that is. ``admit`` as of Filing. Raises as ``Filing.run``.
    """
    with progress("filing") as told:
        filing = Filing(
            recording,
            ledger.pool.connection,
            planned,
            importer,
            ledger.vault,
            progress=told,
            admit=admit,
        )
        filed = filing.run()
    with progress("deciding and projecting") as told:
        settle(ledger, told=_settled(told))
        filing.close()
        settle(ledger, told=_settled(told))
    return filed


def _settled(told: Told) -> Callable[[int, int, int], None]:
    return lambda top, decided, projected: told(min(decided, projected), top)


def askers(
    connection: Connection[Any],
    catalogue: Catalogue,
    organisation: OrganisationAt,
    imports: Sequence[Import],
) -> dict[str, Event]:
    """Return by import the fact by which somebody asked for it.

    Where somebody else had to open it, that is the proposal: whoever proposed it is who imports.
    """
    proposed = {
        each.fact.get("import_id"): each.position
        for each in organisation.proposals()
        if each.kind == "import" and each.state == "adopted"
    }
    positions = {
        each.import_id: proposed.get(each.import_id, each.opened_position) for each in imports
    }
    facts = read_requests(connection, catalogue, positions.values())
    return {import_id: facts[position] for import_id, position in positions.items()}


def checked(planned: Plan) -> dict[str, Any]:
    """Return as JSON what would be filed."""
    return {
        "rows": planned.rows,
        "rejects": planned.rejects,
        "actions": planned.counts,
        "found_in_the_ledger": planned.found,
    }


def document(planned: Plan, filed: Filed, brought: Report) -> dict[str, Any]:
    """Return as JSON what was filed, and what came of it."""
    return {
        "rows": planned.rows,
        "rejects": planned.rejects,
        "recorded": dict(filed.recorded),
        "recorded_before": dict(filed.known),
        "found_in_the_ledger": planned.found,
        "refused_at_the_door": dict(filed.refused),
        "check_digit_warnings": filed.check_digit_warnings,
        "report": brought,
    }
