"""An import as a job: what was uploaded is filed, and goes on where it stopped.

An import under a name belongs to whoever began it: nobody else may file under it, for the ids of
rows and whom they mean follow from the name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api.bootstrap import Ledger
from api.imports import planning
from api.imports.driving import askers, checked, directory_of, document, file_plan
from api.imports.filing import Importer
from api.imports.mapping import Mapping, parse_mapping
from api.imports.planning import Plan, plan
from api.imports.report import report
from api.jobs import table
from api.jobs.holding import Holding
from api.jobs.table import Job
from ledger.errors import LedgerError
from ledger.organisation import Import, OrganisationAt
from ledger.recording import NotPermittedError, Recording


class ImportOfAnotherError(LedgerError):
    """Somebody else imports under this name."""

    code = "import_of_another"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Somebody else has imported under the name {name}.",
            way_out="Give the mapping a name of your own.",
        )


class NotFoundedError(LedgerError):
    """The ledger has no organisation yet."""

    code = "not_founded"

    def __init__(self) -> None:
        super().__init__(
            "This ledger belongs to no organisation yet.",
            way_out="Found it with guishu init, or by an import on the command line.",
        )


def must_be_own(ledger: Ledger, caller: str) -> Callable[[OrganisationAt, Sequence[Import]], None]:
    """Return what raises ImportOfAnotherError for imports that another caller has begun."""

    def admit(organisation: OrganisationAt, mine: Sequence[Import]) -> None:
        if not mine:
            return
        with ledger.pool.connection() as connection:
            asked = askers(connection, ledger.catalogue, organisation, mine)
        if any(each.caller != caller for each in asked.values()):
            raise ImportOfAnotherError(mine[0].name)

    return admit


def do(ledger: Ledger, job: Job, holding: Holding) -> Any:
    """Import what was uploaded for the job; return what was filed, and what came of it.

    Raises ImportOfAnotherError, NotPermittedError, and what planning and filing raise.
    """
    mapping = parse_mapping(job.parameters["mapping"])
    now = datetime.now(UTC)
    # A recording is used by one thread at a time, and this is one more.
    recording = Recording(ledger.committer, ledger.pool.connection, ledger.vault, ledger.catalogue)
    organisation = recording.organisation()
    if organisation.name is None:
        raise NotFoundedError
    _must_be_administrator(organisation, job.actor, now)
    admit = must_be_own(ledger, job.caller)
    admit(organisation, [each for each in organisation.imports() if each.name == mapping.name])
    with _folder(job.job) as folder:
        _fetch(ledger, job, folder / "files")
        settling = _telling(holding, "settling what was before")
        directory = directory_of(ledger, organisation, mapping, now, settling)
        with plan(
            mapping,
            folder / "files",
            folder / "work",
            now=now,
            progress=_reading(holding),
            directory=directory,
        ) as planned:
            if job.parameters["check"]:
                _keep_rejects(ledger, job, holding, planned)
                return checked(planned)
            filed = file_plan(
                ledger, recording, planned, _importer(job), _stretches(holding), admit
            )
            _keep_rejects(ledger, job, holding, planned)
            holding.tell("reporting", len(planned), len(planned))
            with ledger.pool.connection() as connection:
                brought = report(
                    connection, ledger.catalogue, recording.organisation(), filed.import_ids
                )
            return document(planned, filed, brought)


def _importer(job: Job) -> Importer:
    # Of the rows, the actors are only named by the files.
    on_behalf_of = job.actor if job.on_behalf else None
    return Importer(job.actor, job.caller, "asserted", on_behalf_of)


def _must_be_administrator(organisation: OrganisationAt, actor: str, now: datetime) -> None:
    """Raise NotPermittedError where the right to import was lost since the job was asked for."""
    person = organisation.person(actor)
    day = organisation.day(now)
    if person is None or "admin" not in person.roles or person.has_left(day):
        raise NotPermittedError(
            "Only an administrator who has not left may import.",
            way_out="Act as a person with the role admin.",
        )


@contextmanager
def _folder(job: str) -> Iterator[Path]:
    """Make a folder for a job that only this user can read; what a killed one left is removed."""
    prefix = f"guishu-{job}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        yield Path(folder)


def _fetch(ledger: Ledger, job: Job, folder: Path) -> None:
    """Write what was uploaded into a folder."""
    folder.mkdir()
    with ledger.pool.connection() as connection:
        for name in table.file_names(connection, job.job):
            if name.startswith(table.UPLOADED):
                with (folder / name.removeprefix(table.UPLOADED)).open("wb") as file:
                    for piece in table.pieces_of(connection, job.job, name):
                        file.write(piece)


def _keep_rejects(ledger: Ledger, job: Job, holding: Holding, planned: Plan) -> None:
    holding.check()
    with planned.rejects_path.open("rb") as file, ledger.pool.connection() as connection:
        pieces = iter(lambda: file.read(table.PIECE_BYTES), b"")
        table.put_file(connection, job.job, holding.worker, table.REJECTS, pieces)


def _reading(holding: Holding) -> planning.ReportProgress:
    def tell(progress: planning.Progress) -> None:
        holding.tell(progress.stage, progress.rows, progress.rows)

    return tell


def _telling(holding: Holding, words: str) -> Callable[[int, int], None]:
    return lambda done, total: holding.tell(words, done, total)


def _stretches(holding: Holding) -> Any:
    @contextmanager
    def begin(words: str) -> Iterator[Callable[[int, int], None]]:
        holding.check()
        yield _telling(holding, words)

    return begin


def files_of(mapping: Mapping) -> list[str]:
    """Return the names of the files that a mapping reads, in its order."""
    return list(dict.fromkeys(each.file for each in mapping.files))
