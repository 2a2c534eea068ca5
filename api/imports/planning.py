"""From a mapping and a folder of files to a plan: what would be filed, in which order, what not.

Nothing is filed here. A plan is made whole before its first action is filed, so that people see
the counts and the rejects first, and so that the order does not depend on that of the files.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from api.imports.actions import ACTION_KINDS, Action
from api.imports.emitting import read_actions
from api.imports.errors import (
    FileUnreadableError,
    MappingInvalidError,
    MappingProblem,
    WorkspaceUnusableError,
)
from api.imports.finding import Directory
from api.imports.interpreting import FileInterpreter
from api.imports.mapping import FileRows, Mapping
from api.imports.reading import Row, read_rows
from api.imports.rejects import RowRejectedError, append_reject, write_rejects
from api.imports.resolving import order, resolve
from api.imports.staging import Staging, source_of, split_source
from api.imports.values import from_microseconds
from ledger.commands import InvalidRequestError, occurred_within

REJECTS_FILE = "rejects.csv"
STAGING_FILE = "staging.sqlite3"

_PROGRESS_ROWS = 1_000

_COUNT_ACTIONS = """
SELECT role, count(*) FROM entity WHERE known IS NULL GROUP BY role
UNION ALL SELECT kind, count(*) FROM timeline GROUP BY kind
"""
_COUNT_FOUND = """
SELECT role, count(DISTINCT known) FROM entity WHERE known IS NOT NULL GROUP BY role
"""
# Which action makes somebody of that role.
_KINDS = {
    "territory": "define_territory",
    "person": "add_person",
    "customer": "register_customer",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far planning is: rows read of the file at hand, and of all files so far."""

    stage: Literal["reading", "resolving", "ordering"]
    file: str
    file_rows: int
    rows: int


ReportProgress: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What became of one file: its rows below the header (blank ones left out), and rejects."""

    file: str
    rows: int
    rejects: int


class Plan:
    """What an import would file. It holds a temporary file until it is closed.

    ``counts`` are the actions by kind (all of ``ACTION_KINDS``), ``found`` by the same kinds those
    whom the ledger holds already and this mapping did not make, ``rejects`` the rejected rows by
    reason code; ``rejects_path`` lists them for people. ``earliest`` and ``latest`` are the times
    (UTC) of the first and last act, None where nothing has a date. ``cut_over`` (UTC) is when the
    opening balance holds.
    """

    def __init__(
        self, mapping: Mapping, staging: Staging, files: tuple[FileSummary, ...], rejects_path: Path
    ) -> None:
        self.mapping = mapping
        self.name = mapping.name
        self.cut_over = mapping.constants.cut_over_instant()
        self.files = files
        self.rejects_path = rejects_path
        self._staging = staging
        self._labels = [file.file for file in files]
        self.counts = self._count_actions()
        self.found = self._count(_COUNT_FOUND)
        self.rejects = self._count_rejects()
        self.earliest, self.latest = self._span()

    @property
    def rows(self) -> int:
        """The rows read of all files."""
        return sum(file.rows for file in self.files)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file; the list of rejects stays."""
        self._staging.close()

    def actions(self, start: int = 0) -> Iterator[Action]:
        """Yield the actions in the order of filing, leaving out the first ``start`` of them.

        Facts come first: territories, people, customers, parents before children. Then the acts
        by effective time; at one instant the opening balance, closes of older opportunities with
        the release that a last one brings, claims, follow-ups, then other deals and closes of
        what began at the same instant; else by file and row. The same files and mapping give the
        same actions in the same order, whatever the order of the mapping's files.
        """
        yield from read_actions(self._staging.connection, self._labels, start)

    def reject(self, file: str, row: int, column: str, code: str, words: str) -> bool:
        """List a row that was refused when it was filed; say whether it was not listed before."""
        source = source_of(self._labels.index(file), row)
        if not self._staging.reject(source, code, column, words):
            return False
        append_reject(self.rejects_path, file, row, column, code, words)
        return True

    def _count_actions(self) -> dict[str, int]:
        return dict.fromkeys(ACTION_KINDS, 0) | self._count(_COUNT_ACTIONS)

    def _count(self, query: str) -> dict[str, int]:
        counted = self._staging.connection.execute(query)
        return {_KINDS.get(kind, kind): count for kind, count in counted}

    def _count_rejects(self) -> dict[str, int]:
        return dict(
            self._staging.connection.execute(
                "SELECT reason, count(*) FROM reject GROUP BY reason ORDER BY count(*) DESC, reason"
            )
        )

    def _span(self) -> tuple[datetime | None, datetime | None]:
        first, last = self._staging.connection.execute(
            "SELECT min(at), max(at) FROM timeline WHERE kind <> 'open_with_owner'"
        ).fetchone()
        if first is None:
            return None, None
        return from_microseconds(first), from_microseconds(last)


def plan(
    mapping: Mapping,
    folder: Path,
    workspace: Path,
    *,
    now: datetime,
    progress: ReportProgress | None = None,
    directory: Directory | None = None,
) -> Plan:
    """Read all files of ``mapping`` in ``folder``, list rejects, and return what would be filed.

    ``workspace`` is a folder for the list of rejects and for a temporary file, which the returned
    plan owns: close it. ``now`` is the present in UTC, by which dates are in the future. Memory
    does not grow with the number of rows. ``progress`` is called about every 1,000 rows.
    ``directory`` knows whom the ledger holds already; None stands for an empty ledger.

    Raises MappingInvalidError where the cut-over is no time at which anything can have held, a
    FileRefusedError for a file that cannot be used as a whole, and WorkspaceUnusableError where
    ``workspace`` cannot be written; no plan is left behind then.
    """
    _check_cut_over(mapping, now)
    # By name, so that the order in the mapping means nothing.
    files = sorted(mapping.files, key=lambda file: file.label)
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        staging = Staging(workspace / STAGING_FILE)
        try:
            told = progress or (lambda _: None)
            planner = _Planner(mapping, files, staging, now, told, directory)
            return planner.plan(folder, workspace / REJECTS_FILE)
        except BaseException:
            staging.close()
            raise
    except (sqlite3.OperationalError, OSError) as error:
        raise WorkspaceUnusableError(
            f"The folder {workspace} cannot be used for temporary files: {error}.",
            way_out="Free some space there, or name another folder.",
        ) from error


def _check_cut_over(mapping: Mapping, now: datetime) -> None:
    """Raise what the ledger would say when the import is opened, before anything is filed."""
    try:
        occurred_within(mapping.constants.cut_over_instant(), now, field="")
    except InvalidRequestError as error:
        sentence = f"{mapping.constants.cut_over} cannot be the cut-over: {error}."
        problem = MappingProblem("[constants]", "cut_over", sentence)
        raise MappingInvalidError([problem], source=mapping.name) from None


class _Planner:
    def __init__(
        self,
        mapping: Mapping,
        files: list[FileRows],
        staging: Staging,
        now: datetime,
        progress: ReportProgress,
        directory: Directory | None,
    ) -> None:
        self._mapping = mapping
        self._files = files
        self._staging = staging
        self._future_limit = now + timedelta(days=mapping.constants.future_tolerance_days)
        self._progress = progress
        self._directory = directory
        self._rows = 0

    def plan(self, folder: Path, rejects_path: Path) -> Plan:
        rows = [self._stage_file(number, folder) for number in range(len(self._files))]
        self._progress(Progress("resolving", "", 0, self._rows))
        resolve(self._staging, self._mapping, self._files, self._directory)
        self._progress(Progress("ordering", "", 0, self._rows))
        order(self._staging, self._mapping)
        self._staging.connection.execute("COMMIT")
        self._write_rejects(rejects_path)
        summaries = tuple(
            FileSummary(file.label, file_rows, rejected)
            for file, file_rows, rejected in zip(
                self._files, rows, self._rejects_by_file(), strict=True
            )
        )
        return Plan(self._mapping, self._staging, summaries, rejects_path)

    def _stage_file(self, number: int, folder: Path) -> int:
        file = self._files[number]
        path = _path_inside(folder, file.file)
        interpreter = FileInterpreter(number, file, self._mapping, self._future_limit)
        count = 0
        for row in read_rows(path, file.table_format(), file.columns()):
            count += 1
            try:
                self._staging.add(interpreter.draft(row))
            except RowRejectedError as rejected:
                source = source_of(number, row.number)
                column = rejected.column or _identifying_column(file, row)
                self._staging.reject(source, rejected.reason, column, rejected.shown)
            if count % _PROGRESS_ROWS == 0:
                self._progress(Progress("reading", file.label, count, self._rows + count))
        self._rows += count
        self._progress(Progress("reading", file.label, count, self._rows))
        return count

    def _write_rejects(self, path: Path) -> None:
        def lines() -> Iterator[tuple[str, int, str, str, str]]:
            for source, column, reason, value in self._staging.rejects():
                number, row = split_source(source)
                yield self._files[number].label, row, column, reason, value

        write_rejects(path, lines())

    def _rejects_by_file(self) -> list[int]:
        counts = [0] * len(self._files)
        for number, count in self._staging.connection.execute(
            "SELECT source >> 40, count(*) FROM reject GROUP BY 1"
        ):
            counts[number] = count
        return counts


def _path_inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise FileUnreadableError(
            name,
            f"It lies outside {folder}.",
            way_out="Copy the file into the folder that is imported.",
        )
    return path


def _identifying_column(file: FileRows, row: object) -> str:
    """Return the key's column where a whole row is rejected, as a broken one has no columns."""
    return "+".join(file.key) if isinstance(row, Row) else ""
