"""The temporary SQLite file in which rows wait until all files are read.

It keeps memory bounded whatever the number of rows: everything that grows with them is in this
file, from the keys already seen to the order of filing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import orjson

from api.imports.rejects import RejectReason, RowRejectedError, shown_text

Role: TypeAlias = Literal["territory", "person", "customer"]

# A source is one integer that sorts by file, then row.
_ROW_BITS = 40
_ROW_MASK = (1 << _ROW_BITS) - 1

CACHE_KIBIBYTES = 32 * 1024
_CACHED = 50_000

# Phases of one instant, in the order of filing.
PHASE_OPENING, PHASE_CLOSE, PHASE_CLAIM, PHASE_FOLLOW_UP, PHASE_OWN_CLOSE = range(-1, 4)

SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;

-- A territory, person or customer. ref is its identity; created says that no row defines it.
-- known is the id in the ledger of one whom no import of this mapping made, found by the field
-- matched_by; holders counts those in the ledger whom it may mean.
CREATE TABLE entity (
    no INTEGER PRIMARY KEY,
    role TEXT NOT NULL,
    ref TEXT NOT NULL,
    name_key TEXT NOT NULL,
    source INTEGER NOT NULL,
    created INTEGER NOT NULL DEFAULT 0,
    name TEXT,
    parent INTEGER,
    opening INTEGER NOT NULL DEFAULT 0,
    known TEXT,
    matched_by TEXT,
    meant TEXT,
    holders INTEGER NOT NULL DEFAULT 0,
    UNIQUE (role, ref)
);
CREATE INDEX entity_by_name ON entity (role, name_key);
CREATE INDEX entity_by_known ON entity (role, known) WHERE known IS NOT NULL;

-- What one row says about an entity; several rows may add to one.
CREATE TABLE definition (
    entity INTEGER NOT NULL,
    source INTEGER NOT NULL,
    key TEXT NOT NULL,
    parent INTEGER,
    territory INTEGER,
    opening INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX definition_by_entity ON definition (entity, source);

-- A name or id by which rows refer to an entity; candidates counts those of the files that it may
-- mean, holders those of the ledger (NULL until they are looked up), known is the one there.
-- meant is whom an earlier import of the same mapping meant.
CREATE TABLE mention (
    no INTEGER PRIMARY KEY,
    role TEXT NOT NULL,
    spoken TEXT NOT NULL,
    key TEXT NOT NULL,
    text TEXT NOT NULL,
    introduces INTEGER NOT NULL,
    entity INTEGER,
    candidates INTEGER NOT NULL DEFAULT 0,
    usable INTEGER NOT NULL DEFAULT 0,
    known TEXT,
    holders INTEGER,
    meant TEXT,
    UNIQUE (role, spoken, key)
);

-- Who manages a territory.
CREATE TABLE manages (
    territory INTEGER NOT NULL,
    person INTEGER NOT NULL,
    head INTEGER NOT NULL,
    source INTEGER NOT NULL
);

-- The same with entities, each pair once, when all is resolved.
CREATE TABLE management (
    territory INTEGER NOT NULL,
    person INTEGER NOT NULL,
    head INTEGER NOT NULL,
    PRIMARY KEY (person, territory)
) WITHOUT ROWID;

-- What happened, with person and customer as mentions, at in microseconds since 1970 in UTC.
CREATE TABLE act (
    at INTEGER NOT NULL,
    phase INTEGER NOT NULL,
    source INTEGER NOT NULL,
    part INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    person INTEGER NOT NULL,
    customer INTEGER NOT NULL,
    opens INTEGER NOT NULL,
    payload BLOB
);

-- Who owns what by the opening balance.
CREATE TABLE opening (
    source INTEGER NOT NULL,
    key TEXT NOT NULL,
    person INTEGER NOT NULL,
    customer INTEGER NOT NULL
);

CREATE TABLE row_key (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    entity INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

CREATE TABLE reject (
    source INTEGER PRIMARY KEY,
    column_name TEXT NOT NULL,
    reason TEXT NOT NULL,
    value TEXT NOT NULL
);

CREATE TABLE fact (ordinal INTEGER PRIMARY KEY, entity INTEGER NOT NULL);

CREATE TABLE timeline (
    ordinal INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    source INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    person INTEGER NOT NULL,
    customer INTEGER NOT NULL,
    payload BLOB
);
"""


@dataclass(frozen=True, slots=True)
class Mention:
    """How a row refers to somebody. ``introduces``: it also makes them, if nobody lists them."""

    role: Role
    spoken: Literal["name", "id"]
    key: str
    text: str
    introduces: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """What a row says about a territory, person or customer."""

    role: Role
    ref: str
    name_key: str
    payload: Mapping[str, Any]
    parent: Mention | None = None
    territory: Mention | None = None
    # (person, is head) for the territory that the row names, or that it defines.
    managers: Sequence[tuple[Mention, bool]] = ()
    managed: Mention | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """What happened; ``opens`` is +1 where it opens an opportunity and -1 where it closes one."""

    kind: str
    meaning: str
    suffix: str
    at: int
    phase: int
    part: int
    person: Mention
    customer: Mention
    opens: int = 0
    payload: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """Who owns a customer at the cut-over."""

    person: Mention
    customer: Mention


@dataclass(slots=True)
class RowDraft:
    """All that one row means. ``by_content`` says that its key is a digest of its content."""

    source: int
    key: str
    by_content: bool
    definitions: list[Definition] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    is_opening: bool = False


def source_of(file_number: int, row: int) -> int:
    """Return the one integer that stands for a row of a file."""
    return file_number << _ROW_BITS | row


def split_source(source: int) -> tuple[int, int]:
    """Return (file number, row)."""
    return source >> _ROW_BITS, source & _ROW_MASK


class Staging:
    """Writes rows into the temporary file. Only its owner may read it; ``close`` removes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        # The import may be filed by another thread than the one that read the files.
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self.connection.executescript(SCHEMA)
            self.connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES:d}")
            self.connection.execute("BEGIN")
        except BaseException:
            self.close()
            raise
        self._mention_no = lru_cache(_CACHED)(self._find_or_add_mention)

    def close(self) -> None:
        """Close and remove the temporary file; closing again does nothing."""
        self.connection.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def add(self, draft: RowDraft) -> None:
        """Stage a row, or raise RowRejectedError with nothing staged of it."""
        suffix = self._settled_key(draft)
        for each in draft.definitions:
            self._add_definition(each, draft)
        for act in draft.acts:
            self.connection.execute(
                "INSERT INTO act VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    act.at,
                    act.phase,
                    draft.source,
                    act.part,
                    act.kind,
                    f"{act.meaning}/{draft.key}{suffix}{act.suffix}",
                    self._mention_no(act.person),
                    self._mention_no(act.customer),
                    act.opens,
                    None if act.payload is None else orjson.dumps(act.payload),
                ),
            )
        for opening in draft.openings:
            self.connection.execute(
                "INSERT INTO opening VALUES (?, ?, ?, ?)",
                (
                    draft.source,
                    f"owner/{draft.key}",
                    self._mention_no(opening.person),
                    self._mention_no(opening.customer),
                ),
            )

    def reject(self, source: int, reason: str, column: str, value: str) -> bool:
        """List a row that cannot be used; the first reason stands. Say whether this is the first.

        ``reason`` is a RejectReason, or the code of an error of the ledger's door.
        """
        cursor = self.connection.execute(
            "INSERT OR IGNORE INTO reject VALUES (?, ?, ?, ?)",
            (source, shown_text(column), str(reason), shown_text(value)),
        )
        return cursor.rowcount == 1

    def rejects(self) -> Iterator[tuple[int, str, str, str]]:
        """Yield (source, column, reason, value) in the order of files and rows."""
        yield from self.connection.execute(
            "SELECT source, column_name, reason, value FROM reject ORDER BY source"
        )

    def _settled_key(self, draft: RowDraft) -> str:
        """Return what makes the key unique among rows of equal content; check the other keys."""
        for each in draft.definitions:
            self._check_key(each.role, draft, self._entity_no(each, draft.source))
        for opening in draft.openings:
            self._check_key("owner", draft, self._mention_no(opening.customer))
        suffix = ""
        for meaning in sorted({act.meaning for act in draft.acts}):
            seen = self._count_key(meaning, draft.key)
            if draft.by_content:
                suffix = f"-{seen}"
            elif seen > 1:
                raise RowRejectedError(RejectReason.KEY_DUPLICATE, shown=draft.key)
        return suffix

    def _check_key(self, kind: str, draft: RowDraft, entity: int) -> None:
        self.connection.execute(
            "INSERT OR IGNORE INTO row_key VALUES (?, ?, ?, 1)", (kind, draft.key, entity)
        )
        (known,) = self.connection.execute(
            "SELECT entity FROM row_key WHERE kind = ? AND key = ?", (kind, draft.key)
        ).fetchone()
        if known != entity:
            raise RowRejectedError(RejectReason.KEY_DUPLICATE, shown=draft.key)

    def _count_key(self, kind: str, key: str) -> int:
        # RETURNING would do it in one, but SQLite has it only since 3.35, and RHEL 9 has 3.34.
        self.connection.execute(
            "INSERT INTO row_key VALUES (?, ?, 0, 1)"
            " ON CONFLICT (kind, key) DO UPDATE SET seen = seen + 1",
            (kind, key),
        )
        (seen,) = self.connection.execute(
            "SELECT seen FROM row_key WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        return int(seen)

    def _entity_no(self, each: Definition, source: int) -> int:
        cursor = self.connection.execute(
            "INSERT OR IGNORE INTO entity (role, ref, name_key, source) VALUES (?, ?, ?, ?)",
            (each.role, each.ref, each.name_key, source),
        )
        if cursor.rowcount == 1 and cursor.lastrowid is not None:
            return cursor.lastrowid
        (number,) = self.connection.execute(
            "SELECT no FROM entity WHERE role = ? AND ref = ?", (each.role, each.ref)
        ).fetchone()
        return int(number)

    def _add_definition(self, each: Definition, draft: RowDraft) -> None:
        self.connection.execute(
            "INSERT INTO definition VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                self._entity_no(each, draft.source),
                draft.source,
                f"{each.role}/{draft.key}",
                None if each.parent is None else self._mention_no(each.parent),
                None if each.territory is None else self._mention_no(each.territory),
                draft.is_opening,
                orjson.dumps(each.payload),
            ),
        )
        if each.managed is None:
            return
        for person, head in each.managers:
            self.connection.execute(
                "INSERT INTO manages VALUES (?, ?, ?, ?)",
                (self._mention_no(each.managed), self._mention_no(person), head, draft.source),
            )

    def _find_or_add_mention(self, mention: Mention) -> int:
        self.connection.execute(
            "INSERT INTO mention (role, spoken, key, text, introduces) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (role, spoken, key)"
            " DO UPDATE SET introduces = max(introduces, excluded.introduces)",
            (mention.role, mention.spoken, mention.key, mention.text, mention.introduces),
        )
        (number,) = self.connection.execute(
            "SELECT no FROM mention WHERE role = ? AND spoken = ? AND key = ?",
            (mention.role, mention.spoken, mention.key),
        ).fetchone()
        return int(number)
