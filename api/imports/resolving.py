"""From staged rows to an order of filing: who is meant, what contradicts, what comes when.

All of it is SQL over the temporary file, so that memory does not grow with the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import orjson

from api.imports.finding import Directory, Found, Wanted
from api.imports.mapping import (
    ClaimRow,
    DealRow,
    FileRows,
    FollowUpRow,
    KindColumn,
    Mapping,
    OpportunityRow,
)
from api.imports.naming import in_ledger
from api.imports.rejects import RejectReason
from api.imports.staging import PHASE_OPENING, Role, Staging, split_source
from api.imports.values import id_key, match_key, microseconds

PAGE_ROWS = 1_000

_ROLES: tuple[Role, ...] = ("territory", "person", "customer")
# The reason and the way out must fit behind it, into what a list shows of a value.
_SHOWN_OF_NAME_MAX = 60
_WAYS_OUT = {
    "territory": "give all but one another name",
    "person": "name the person by an id, of the files' system or the ledger's own",
    "customer": "name the customer by an id, of the files' system or the ledger's own",
}

_PURGES = (
    "DELETE FROM act WHERE source IN (SELECT source FROM reject)",
    "DELETE FROM opening WHERE source IN (SELECT source FROM reject)",
    "DELETE FROM manages WHERE source IN (SELECT source FROM reject)",
    "DELETE FROM definition WHERE source IN (SELECT source FROM reject)",
)

_PRUNE_ENTITIES = """
DELETE FROM entity
 WHERE NOT created
   AND NOT EXISTS (SELECT 1 FROM definition WHERE definition.entity = entity.no)
"""

_DEFINED = """
SELECT e.no, e.role, e.ref, e.meant, d.payload
  FROM (SELECT no, role, ref, meant FROM entity WHERE no > ? ORDER BY no LIMIT ?) e
  JOIN definition d ON d.entity = e.no
 ORDER BY e.no, d.source
"""
_LINK = "UPDATE entity SET known = ?, matched_by = ?, holders = ? WHERE no = ?"
# Two ids in the files, one name in the ledger: nobody can tell which of the two it is.
_SHARED_NAMESAKES = """
UPDATE entity SET holders = holders + 1
 WHERE matched_by = 'name' AND ref LIKE 'id:%' AND known IS NOT NULL
   AND EXISTS (SELECT 1 FROM entity o
                WHERE o.role = entity.role AND o.known = entity.known AND o.no <> entity.no
                  AND o.ref LIKE 'id:%')
"""
_AMBIGUOUS = """
SELECT d.source, e.role, e.matched_by, d.payload
  FROM entity e JOIN definition d ON d.entity = e.no WHERE e.holders > 1
"""

# Rows whose requests tell whom they meant when they were imported before; only those of which
# that is not known yet, and each names two.
_RECALLED = (
    (
        ("person", "customer"),
        """SELECT a.rowid, a.key, a.person, a.customer
             FROM act a JOIN mention p ON p.no = a.person JOIN mention c ON c.no = a.customer
            WHERE a.rowid > ? AND (p.meant IS NULL OR c.meant IS NULL)
            ORDER BY a.rowid LIMIT ?""",
    ),
    (
        ("person", "customer"),
        """SELECT o.rowid, o.key, o.person, o.customer
             FROM opening o JOIN mention p ON p.no = o.person JOIN mention c ON c.no = o.customer
            WHERE o.rowid > ? AND (p.meant IS NULL OR c.meant IS NULL)
            ORDER BY o.rowid LIMIT ?""",
    ),
    (
        ("parent", "territory"),
        """SELECT d.rowid, d.key, d.parent, d.territory
             FROM definition d
             LEFT JOIN mention p ON p.no = d.parent LEFT JOIN mention t ON t.no = d.territory
            WHERE d.rowid > ? AND d.key LIKE 'customer/%'
              AND (p.no IS NOT NULL AND p.meant IS NULL OR t.no IS NOT NULL AND t.meant IS NULL)
            ORDER BY d.rowid LIMIT ?""",
    ),
)
_REMEMBER = "UPDATE mention SET meant = ? WHERE no = ? AND meant IS NULL"
_REMEMBER_DEFINED = """
UPDATE entity
   SET meant = (SELECT m.meant FROM mention m
                 WHERE m.entity = entity.no AND m.meant IS NOT NULL ORDER BY m.no LIMIT 1)
"""

# Whom the ledger holds is looked up where no file lists them.
_NOT_LOOKED_UP = """
SELECT no, role, spoken, key, text, introduces, meant FROM mention
 WHERE no > ? AND candidates = 0 AND holders IS NULL ORDER BY no LIMIT ?
"""
_ADD_KNOWN = """
INSERT OR IGNORE INTO entity (role, ref, name_key, source, created, name, known)
VALUES (?, ?, '', 0, 1, ?, ?)
"""
_SETTLE_KNOWN = """
UPDATE mention
   SET entity = (SELECT min(e.no) FROM entity e
                  WHERE e.role = mention.role AND e.known = mention.known)
 WHERE candidates = 0 AND known IS NOT NULL
"""
# Several entities of the files may be one in the ledger.
_SETTLE_SAME = """
UPDATE mention
   SET entity = (SELECT min(o.no) FROM entity e JOIN entity o
                     ON o.role = e.role AND o.known = e.known
                  WHERE e.no = mention.entity)
 WHERE entity IN (SELECT no FROM entity WHERE known IS NOT NULL)
"""

# A name means whoever has it, if only one has; an id is the identity itself.
_SETTLE_NAMES = """
UPDATE mention
   SET (entity, candidates) = (
       SELECT min(e.no), count(*) FROM entity e
        WHERE e.role = mention.role AND e.name_key = mention.key)
 WHERE spoken = 'name'
"""
_SETTLE_IDS = """
UPDATE mention
   SET (entity, candidates) = (
       SELECT min(e.no), count(*) FROM entity e
        WHERE e.role = mention.role AND e.ref = 'id:' || mention.key)
 WHERE spoken = 'id'
"""
_SETTLE_USABLE = """
UPDATE mention
   SET usable = candidates = 1
             OR candidates = 0 AND coalesce(holders, 0) = 1
             OR candidates = 0 AND coalesce(holders, 0) = 0 AND spoken = 'name'
                AND (introduces OR role IN (SELECT value FROM json_each(?)))
"""

# What refers to somebody: customers first, as a row is read.
_UNUSABLE = (
    (
        "act",
        """SELECT a.source, m.role, m.text, m.candidates, m.holders, a.key
             FROM act a JOIN mention m ON m.no = a.customer WHERE NOT m.usable""",
    ),
    (
        "act",
        """SELECT a.source, m.role, m.text, m.candidates, m.holders, a.key
             FROM act a JOIN mention m ON m.no = a.person WHERE NOT m.usable""",
    ),
    (
        "opening",
        """SELECT o.source, m.role, m.text, m.candidates, m.holders, o.key
             FROM opening o JOIN mention m ON m.no = o.customer WHERE NOT m.usable""",
    ),
    (
        "opening",
        """SELECT o.source, m.role, m.text, m.candidates, m.holders, o.key
             FROM opening o JOIN mention m ON m.no = o.person WHERE NOT m.usable""",
    ),
    (
        "parent",
        """SELECT d.source, m.role, m.text, m.candidates, m.holders, d.key
             FROM definition d JOIN mention m ON m.no = d.parent WHERE NOT m.usable""",
    ),
    (
        "territory",
        """SELECT d.source, m.role, m.text, m.candidates, m.holders, d.key
             FROM definition d JOIN mention m ON m.no = d.territory WHERE NOT m.usable""",
    ),
    (
        "manager",
        """SELECT g.source, m.role, m.text, m.candidates, m.holders, ''
             FROM manages g JOIN mention m ON m.no = g.person WHERE NOT m.usable""",
    ),
)

_UNKNOWN: dict[tuple[str, bool], RejectReason] = {
    ("customer", False): RejectReason.CUSTOMER_UNKNOWN,
    ("customer", True): RejectReason.CUSTOMER_AMBIGUOUS,
    ("person", False): RejectReason.PERSON_UNKNOWN,
    ("person", True): RejectReason.PERSON_AMBIGUOUS,
    ("territory", False): RejectReason.TERRITORY_UNKNOWN,
    ("territory", True): RejectReason.TERRITORY_AMBIGUOUS,
}

_SETTLE_PARENTS = """
UPDATE entity
   SET parent = (
       SELECT m.entity FROM definition d JOIN mention m ON m.no = d.parent
        WHERE d.entity = entity.no ORDER BY d.source LIMIT 1)
 WHERE no IN (SELECT entity FROM definition WHERE parent IS NOT NULL)
"""

# Below somebody whose own row is rejected; only where such a parent is not made up for.
_BELOW_REJECTED = """
WITH RECURSIVE lost (no) AS (
    SELECT d.entity FROM definition d JOIN mention m ON m.no = d.parent WHERE NOT m.usable
    UNION
    SELECT e.no FROM entity e JOIN lost ON e.parent = lost.no
)
SELECT d.source, m.text FROM definition d
  JOIN lost ON lost.no = d.entity LEFT JOIN mention m ON m.no = d.parent
"""

# What is not below a root goes round in a circle, or hangs from one.
_IN_CYCLES = """
WITH RECURSIVE reached (no) AS (
    SELECT no FROM entity WHERE parent IS NULL
    UNION ALL
    SELECT e.no FROM entity e JOIN reached ON e.parent = reached.no
)
SELECT d.source, m.text FROM definition d
  JOIN entity e ON e.no = d.entity LEFT JOIN mention m ON m.no = d.parent
 WHERE e.parent IS NOT NULL AND e.no NOT IN (SELECT no FROM reached)
"""

_SECOND_OWNERS = """
SELECT source, text FROM (
    SELECT o.source, p.text, coalesce(p.entity, -p.no) AS person,
           first_value(coalesce(p.entity, -p.no)) OVER (
               PARTITION BY coalesce(c.entity, -c.no) ORDER BY o.source) AS first
      FROM opening o JOIN mention p ON p.no = o.person JOIN mention c ON c.no = o.customer)
 WHERE person <> first
"""
_REPEATED_OPENINGS = """
DELETE FROM opening WHERE source IN (
    SELECT source FROM (
        SELECT o.source, row_number() OVER (PARTITION BY c.entity ORDER BY o.source) AS place
          FROM opening o JOIN mention c ON c.no = o.customer)
     WHERE place > 1)
"""

_CREATE_MISSING = """
INSERT INTO entity (role, ref, name_key, source, created, name)
SELECT m.role, 'name:' || m.key, m.key, min(u.source), 1, m.text
  FROM (SELECT person AS no, source FROM act
        UNION ALL SELECT customer, source FROM act
        UNION ALL SELECT person, source FROM opening
        UNION ALL SELECT customer, source FROM opening
        UNION ALL SELECT parent, source FROM definition WHERE parent IS NOT NULL
        UNION ALL SELECT territory, source FROM definition WHERE territory IS NOT NULL
        UNION ALL SELECT territory, source FROM manages
        UNION ALL SELECT person, source FROM manages) u
  JOIN mention m ON m.no = u.no
 WHERE m.candidates = 0 AND m.known IS NULL
 GROUP BY m.no ORDER BY min(u.source), m.no
"""

_MANAGEMENT = """
INSERT INTO management (territory, person, head)
SELECT territory, person,
       row_number() OVER (PARTITION BY territory ORDER BY head DESC, source) = 1
  FROM (SELECT t.entity AS territory, p.entity AS person,
               max(g.head) AS head, min(g.source) AS source
          FROM manages g
          JOIN mention t ON t.no = g.territory JOIN mention p ON p.no = g.person
         GROUP BY t.entity, p.entity)
"""

_ORDER_FACTS = """
INSERT INTO fact (entity)
WITH RECURSIVE tree (no, role, source, depth) AS (
    SELECT no, role, source, 0 FROM entity WHERE parent IS NULL
    UNION ALL
    SELECT e.no, e.role, e.source, depth + 1 FROM entity e JOIN tree ON e.parent = tree.no
)
SELECT no FROM tree
 WHERE NOT EXISTS (SELECT 1 FROM entity e WHERE e.no = tree.no AND e.known IS NOT NULL)
    OR no IN (SELECT territory FROM management UNION SELECT person FROM management)
 ORDER BY CASE role WHEN 'territory' THEN 0 WHEN 'person' THEN 1 ELSE 2 END, depth, source, no
"""

_OPENING_ACTS = """
INSERT INTO act
SELECT ?, ?, source, 0, 'open_with_owner', key, person, customer, 0, NULL FROM opening
"""

# A close that leaves the agent no open opportunity at the customer brings a release right after.
_LAST_CLOSES = """
INSERT INTO act
SELECT at, phase, source, part + 1, 'file_release',
       substr(key, 1, length(key) - length('/deal')) || '/release',
       person, customer, 0, '{"cause":"last_open_opportunity_closed"}'
  FROM (SELECT a.*, sum(a.opens) OVER (
               PARTITION BY c.entity, p.entity ORDER BY a.at, a.phase, a.source, a.part
               ROWS UNBOUNDED PRECEDING) AS still_open
          FROM act a JOIN mention p ON p.no = a.person JOIN mention c ON c.no = a.customer
         WHERE a.opens <> 0)
 WHERE kind = 'record_deal' AND still_open = 0
"""

_ORDER_ACTS = """
INSERT INTO timeline (at, source, kind, key, person, customer, payload)
SELECT a.at, a.source, a.kind, a.key, p.entity, c.entity, a.payload
  FROM act a JOIN mention p ON p.no = a.person JOIN mention c ON c.no = a.customer
 ORDER BY a.at, a.phase, a.source, a.part
"""

# Whom the ledger holds and only rejected rows named.
_FORGET_UNUSED = """
DELETE FROM entity
 WHERE created AND known IS NOT NULL AND no NOT IN (
       SELECT person FROM timeline UNION SELECT customer FROM timeline
       UNION SELECT person FROM management UNION SELECT territory FROM management
       UNION SELECT parent FROM entity WHERE parent IS NOT NULL
       UNION SELECT m.entity FROM definition d JOIN mention m ON m.no = d.territory
              WHERE m.entity IS NOT NULL)
"""
# Where a territory of the ledger gets its managers from.
_PLACE_KNOWN = """
UPDATE entity
   SET source = (SELECT min(g.source) FROM manages g JOIN mention m ON m.no = g.territory
                  WHERE m.entity = entity.no)
 WHERE created AND known IS NOT NULL AND no IN (SELECT territory FROM management)
"""

# Known from a list without dates only: nothing dated happened at the customer before it.
_OPENING_CUSTOMERS = """
UPDATE entity SET opening = 1
 WHERE role = 'customer'
   AND (no IN (SELECT entity FROM definition WHERE opening)
        OR no IN (SELECT customer FROM timeline WHERE kind = 'open_with_owner'))
   AND no NOT IN (SELECT customer FROM timeline WHERE at < ?)
"""


def resolve(
    staging: Staging,
    mapping: Mapping,
    files: Sequence[FileRows],
    directory: Directory | None = None,
) -> None:
    """Settle who is meant, reject what cannot be, and create whom the mapping lets be created.

    ``files`` are the mapping's files by their number in the sources; ``directory`` knows whom the
    ledger holds already, and None stands for an empty ledger.
    """
    resolver = _Resolver(staging, mapping, files, directory)
    resolver.reject_contradictions()
    resolver.connection.execute(_PRUNE_ENTITIES)
    resolver.link_entities()
    # What one rejection takes away another row may have referred to.
    while resolver.reject_once():
        resolver.purge()
    resolver.create_missing()


def order(staging: Staging, mapping: Mapping) -> None:
    """Fill the tables of facts and of the timeline, in the order of filing."""
    connection = staging.connection
    connection.execute(_MANAGEMENT)
    connection.execute(_PLACE_KNOWN)
    connection.execute(_ORDER_FACTS)
    cut_over = mapping.constants.cut_over_instant()
    if cut_over is not None:
        connection.execute(_OPENING_ACTS, (microseconds(cut_over), PHASE_OPENING))
    if mapping.claim_ends == "last_open_opportunity":
        connection.execute(_LAST_CLOSES)
    connection.execute(_ORDER_ACTS)
    connection.execute("DROP TABLE act")
    if cut_over is not None:
        connection.execute(_OPENING_CUSTOMERS, (microseconds(cut_over),))
    connection.execute(_FORGET_UNUSED)


class _Resolver:
    def __init__(
        self,
        staging: Staging,
        mapping: Mapping,
        files: Sequence[FileRows],
        directory: Directory | None,
    ) -> None:
        self.connection: sqlite3.Connection = staging.connection
        self._staging = staging
        self._files = files
        self._directory = directory
        unknown = mapping.unknown
        settings: list[tuple[Role, str]] = [
            ("person", unknown.people),
            ("customer", unknown.customers),
            ("territory", unknown.territories),
        ]
        self._creatable = [role for role, setting in settings if setting == "create"]
        self.connection.execute("CREATE INDEX entity_by_parent ON entity (parent)")

    def reject_contradictions(self) -> None:
        """Reject rows that say of somebody other than an earlier row said."""
        rows = self.connection.execute(
            "SELECT d.entity, e.role, d.source, d.parent, d.territory, d.payload"
            "  FROM definition d JOIN entity e ON e.no = d.entity"
            " WHERE d.entity IN (SELECT entity FROM definition GROUP BY entity HAVING count(*) > 1)"
            " ORDER BY d.entity, d.source"
        )
        before = self._rejected()
        for _, group in groupby(rows, key=lambda row: row[0]):
            self._reject_contradictions_of(group)
        if self._rejected() > before:
            self.purge()

    def _reject_contradictions_of(self, rows: Iterator[tuple[Any, ...]]) -> None:
        known: dict[str, Any] = {}
        for _, role, source, parent, territory, payload in rows:
            said = orjson.loads(payload) | {"parent": parent, "territory": territory}
            contradicted = merge_definition(known, said)
            if contradicted is not None:
                file_number, _ = split_source(source)
                column = _column_of(self._files[file_number], role, contradicted)
                value = self._said(contradicted, said)
                reason = RejectReason.CONTRADICTS_EARLIER_ROW
                self._staging.reject(source, reason, column, value)

    def _said(self, field: str, said: dict[str, Any]) -> str:
        """Return what a row says of a field, as text for the list."""
        group, _, inner = field.partition(".")
        value = said[group][inner] if inner else said[group]
        if field in ("parent", "territory"):
            (value,) = self.connection.execute(
                "SELECT text FROM mention WHERE no = ?", (value,)
            ).fetchone()
        if group == "attributes":
            _, value = value
        return ";".join(value) if isinstance(value, list) else str(value)

    # Whom the ledger holds

    def link_entities(self) -> None:
        """Find whom the rows define and the ledger holds; reject rows that may mean several."""
        if self._directory is None:
            return
        if self._directory.has_memory:
            self._recall(self._directory)
        last = 0
        while page := self._defined_after(last):
            last = page[-1][0]
            for role in _ROLES:
                of_role = [(number, each) for number, of, each in page if of == role]
                found = self._directory.find(role, [each for _, each in of_role])
                self.connection.executemany(
                    _LINK,
                    [
                        (
                            each.matches[0] if each.matches else None,
                            each.field,
                            len(each.matches),
                            number,
                        )
                        for (number, _), each in zip(of_role, found, strict=True)
                    ],
                )
        self.connection.execute(_SHARED_NAMESAKES)
        before = self._rejected()
        rows = self.connection.execute(_AMBIGUOUS).fetchall()
        for source, role, matched_by, payload in rows:
            file, said = self._files[split_source(source)[0]], orjson.loads(payload)
            # Another row of the same may have said by what they were found.
            group, _, inner = matched_by.partition(".")
            stated = said.get(group, {}).get(inner) if inner else said.get(group)
            field = matched_by if stated else "name"
            shown = _several(role, self._said(field, said))
            column = _column_of(file, role, field)
            self._staging.reject(source, _UNKNOWN[role, True], column, shown)
        if self._rejected() > before:
            self.purge()

    def _recall(self, directory: Directory) -> None:
        """Note whom earlier imports of the mapping meant by what the rows name."""
        for fields, query in _RECALLED:
            last = 0
            while page := self.connection.execute(query, (last, PAGE_ROWS)).fetchall():
                last = page[-1][0]
                meant = directory.meant_before([key for _, key, *_ in page])
                noted = [
                    (getattr(meant[key], field), mention)
                    for _, key, *mentions in page
                    if key in meant
                    for field, mention in zip(fields, mentions, strict=True)
                ]
                self.connection.executemany(_REMEMBER, noted)
        self._settle()
        self.connection.execute("CREATE INDEX mention_by_entity ON mention (entity)")
        self.connection.execute(_REMEMBER_DEFINED)
        self.connection.execute("DROP INDEX mention_by_entity")

    def _defined_after(self, last: int) -> list[tuple[int, Role, Wanted]]:
        """Return a page of those whom rows define, with all that the rows say."""
        page: list[tuple[int, Role, Wanted]] = []
        rows = self.connection.execute(_DEFINED, (last, PAGE_ROWS))
        for (number, role, ref, meant), group in groupby(rows, key=lambda row: row[:4]):
            said: dict[str, Any] = {}
            for *_, payload in group:
                merge_definition(said, orjson.loads(payload))
            page.append((number, role, _wanted(ref, said, meant)))
        return page

    def _look_mentions_up(self) -> None:
        """Find whom rows only refer to, and no file lists, in the ledger."""
        if self._directory is None:
            return
        last = 0
        while page := self.connection.execute(_NOT_LOOKED_UP, (last, PAGE_ROWS)).fetchall():
            last = page[-1][0]
            for role in _ROLES:
                of_role = [row for row in page if row[1] == role]
                wanted = [_wanted_by(row) for row in of_role]
                found = self._directory.find(role, wanted)
                for row, each in zip(of_role, found, strict=True):
                    self._note_holders(row, each)
        self.connection.execute(_SETTLE_KNOWN)

    def _note_holders(self, mention: tuple[Any, ...], found: Found) -> None:
        number, role, spoken, _, text, introduces, _ = mention
        matches = found.matches
        # Whom an earlier import made for such a row is made again, and found by its own id then.
        creatable = spoken == "name" and (introduces or role in self._creatable)
        if found.own is not None and not creatable:
            matches = (found.own,)
        known = matches[0] if len(matches) == 1 else None
        self.connection.execute(
            "UPDATE mention SET known = ?, holders = ? WHERE no = ?", (known, len(matches), number)
        )
        if known is not None:
            self.connection.execute(_ADD_KNOWN, (role, in_ledger(known), text, known))

    # Who is meant

    def reject_once(self) -> bool:
        """Settle what is meant by the rows that are left; say whether any was rejected."""
        before = self._rejected()
        self._settle()
        self._look_mentions_up()
        self.connection.execute(_SETTLE_USABLE, (orjson.dumps(self._creatable).decode(),))
        for table, query in _UNUSABLE:
            for source, role, text, candidates, holders, key in self.connection.execute(query):
                several = candidates == 0 and (holders or 0) > 1
                column = self._reference_column(source, table, role, key)
                reason = _UNKNOWN[role, candidates > 1 or several]
                shown = _several(role, text) if several else text
                self._staging.reject(source, reason, column, shown)
        self._reject_parents()
        self._reject_by(_SECOND_OWNERS, RejectReason.SECOND_OWNER, "opening", "person")
        return self._rejected() > before

    def _settle(self) -> None:
        self.connection.execute(_SETTLE_NAMES)
        self.connection.execute(_SETTLE_IDS)
        self.connection.execute(_SETTLE_KNOWN)
        self.connection.execute(_SETTLE_SAME)

    def _rejected(self) -> int:
        (count,) = self.connection.execute("SELECT count(*) FROM reject").fetchone()
        return int(count)

    def _reject_parents(self) -> None:
        self.connection.execute(_SETTLE_PARENTS)
        (some,) = self.connection.execute(
            "SELECT EXISTS (SELECT 1 FROM definition WHERE parent IS NOT NULL)"
        ).fetchone()
        if some:
            rejected, cycle = RejectReason.PARENT_REJECTED, RejectReason.PARENT_CYCLE
            self._reject_by(_BELOW_REJECTED, rejected, "parent", "customer")
            self._reject_by(_IN_CYCLES, cycle, "parent", "customer")

    def _reject_by(self, query: str, reason: RejectReason, table: str, role: Role) -> None:
        for source, text in self.connection.execute(query):
            column = self._reference_column(source, table, role, "")
            self._staging.reject(source, reason, column, text or "")

    def purge(self) -> None:
        """Take rejected rows out, and entities that no row defines any more."""
        for statement in _PURGES:
            self.connection.execute(statement)
        self.connection.execute(_PRUNE_ENTITIES)

    def create_missing(self) -> None:
        """Create whom rows refer to and no row defines; forget openings that repeat others."""
        (some,) = self.connection.execute(
            "SELECT EXISTS"
            " (SELECT 1 FROM mention WHERE candidates = 0 AND known IS NULL AND usable)"
        ).fetchone()
        if some:
            self.connection.execute(_CREATE_MISSING)
            self._settle()
            self.connection.execute(_SETTLE_PARENTS)
        self.connection.execute(_REPEATED_OPENINGS)

    def _reference_column(self, source: int, table: str, role: Role, key: str) -> str:
        """Return the column of the reference that could not be used."""
        file = self._files[split_source(source)[0]]
        if table == "act":
            meaning = file.meanings()[key.split("/", 1)[0]]
            if isinstance(meaning, OpportunityRow | ClaimRow | FollowUpRow | DealRow):
                return (meaning.customer if role == "customer" else meaning.agent).column
        elif table == "opening" and file.owner is not None:
            return (file.owner.customer if role == "customer" else file.owner.owner).column
        elif table == "manager":
            return _manager_column(file)
        defined: Role = "customer" if file.customer is not None else "territory"
        if table == "territory" and key.startswith("person/"):
            defined = "person"
        return _column_of(file, defined, table)


def _wanted(ref: str, said: dict[str, Any], meant: str | None) -> Wanted:
    foreign_id = said.get("id")
    return Wanted(
        ref,
        said.get("name"),
        None if foreign_id is None else id_key(foreign_id),
        tuple(said.get("identifiers", {}).items()),
        said.get("kind"),
        meant,
    )


def _wanted_by(mention: tuple[Any, ...]) -> Wanted:
    _, _, spoken, key, text, _, meant = mention
    if spoken == "id":
        return Wanted(f"id:{key}", None, key, meant=meant)
    return Wanted(f"name:{key}", text, meant=meant)


def _several(role: str, text: str) -> str:
    """Return what was said with why it does not do, and the way out."""
    cut = text[:_SHOWN_OF_NAME_MAX] + "…" if len(text) > _SHOWN_OF_NAME_MAX else text
    return f"{cut} (in the ledger it may mean more than one; {_WAYS_OUT[role]})"


def _manager_column(file: FileRows) -> str:
    if file.person is not None and file.person.manager is not None:
        return file.person.manager.column
    territory = file.territory
    return (territory.head or territory.managers or territory.name) if territory else ""


def merge_definition(known: dict[str, Any], said: dict[str, Any]) -> str | None:
    """Add to ``known`` what a further row says, or return the field in which it contradicts.

    A field is such as ``name`` or ``attributes.industry``. Nothing is added where one
    contradicts. What is empty contradicts nothing; contacts and roles add up.
    """
    for name, value in said.items():
        if _contradicts(name, known.get(name), value):
            return name
        if isinstance(value, dict):
            inner_known = known.get(name, {})
            for inner in value:
                if inner_known.get(inner, value[inner]) != value[inner]:
                    return f"{name}.{inner}"
    for name, value in said.items():
        if isinstance(value, dict):
            known.setdefault(name, {}).update(value)
        elif isinstance(value, list):
            known.setdefault(name, []).extend(
                each for each in value if each not in known.get(name, [])
            )
        elif known.get(name) is None:
            known[name] = value
    return None


def _contradicts(name: str, known: Any, said: Any) -> bool:
    if known is None or said is None or isinstance(said, dict | list):
        return False
    if name == "name":
        return match_key(known) != match_key(said)
    return bool(known != said)


def _column_of(file: FileRows, role: Role, field: str) -> str:
    """Return the column of a field of somebody's definition, "" where the mapping names none."""
    columns: dict[str, str | None] = {}
    if role == "person" and file.person is not None:
        person = file.person
        columns = {"name": person.name, "id": person.id, "territory": person.territory}
        columns |= {"phone": person.phone, "email": person.email}
    elif role == "customer" and file.customer is not None:
        customer = file.customer
        columns = {"name": customer.name, "id": customer.id, "territory": customer.territory}
        columns["parent"] = customer.parent.column if customer.parent else None
        columns["kind"] = customer.kind.column if isinstance(customer.kind, KindColumn) else None
        for kind, column in customer.identifiers.items():
            columns[f"identifiers.{kind}"] = column
        for name, attribute in customer.attributes.items():
            columns[f"attributes.{name}"] = attribute.column
    elif file.territory is not None:
        territory = file.territory
        columns = {"name": territory.name, "parent": territory.parent, "head": territory.head}
    return columns.get(field) or ""
