"""From staged rows to an order of filing: who is meant, what contradicts, what comes when.

All of it is SQL over the temporary file, so that memory does not grow with the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import orjson

from api.imports.mapping import (
    ClaimRow,
    DealRow,
    FileRows,
    FollowUpRow,
    KindColumn,
    Mapping,
    OpportunityRow,
)
from api.imports.rejects import RejectReason
from api.imports.staging import PHASE_OPENING, Role, Staging, split_source
from api.imports.values import match_key, microseconds

_PURGES = (
    "DELETE FROM act WHERE source IN (SELECT source FROM reject)",
    "DELETE FROM opening WHERE source IN (SELECT source FROM reject)",
    "DELETE FROM manages WHERE source IN (SELECT source FROM reject)",
    "DELETE FROM definition WHERE source IN (SELECT source FROM reject)",
)

_PRUNE_ENTITIES = """
DELETE FROM entity
 WHERE NOT EXISTS (SELECT 1 FROM definition WHERE definition.entity = entity.no)
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
             OR candidates = 0 AND spoken = 'name'
                AND (introduces OR role IN (SELECT value FROM json_each(?)))
"""

# What refers to somebody: customers first, as a row is read.
_UNUSABLE = (
    (
        "act",
        """SELECT a.source, m.role, m.text, m.candidates, a.key
             FROM act a JOIN mention m ON m.no = a.customer WHERE NOT m.usable""",
    ),
    (
        "act",
        """SELECT a.source, m.role, m.text, m.candidates, a.key
             FROM act a JOIN mention m ON m.no = a.person WHERE NOT m.usable""",
    ),
    (
        "opening",
        """SELECT o.source, m.role, m.text, m.candidates, o.key
             FROM opening o JOIN mention m ON m.no = o.customer WHERE NOT m.usable""",
    ),
    (
        "opening",
        """SELECT o.source, m.role, m.text, m.candidates, o.key
             FROM opening o JOIN mention m ON m.no = o.person WHERE NOT m.usable""",
    ),
    (
        "parent",
        """SELECT d.source, m.role, m.text, m.candidates, d.key
             FROM definition d JOIN mention m ON m.no = d.parent WHERE NOT m.usable""",
    ),
    (
        "territory",
        """SELECT d.source, m.role, m.text, m.candidates, d.key
             FROM definition d JOIN mention m ON m.no = d.territory WHERE NOT m.usable""",
    ),
    (
        "manager",
        """SELECT g.source, m.role, m.text, m.candidates, ''
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
 WHERE m.candidates = 0
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

# Known from a list without dates only: nothing dated happened at the customer before it.
_OPENING_CUSTOMERS = """
UPDATE entity SET opening = 1
 WHERE role = 'customer'
   AND (no IN (SELECT entity FROM definition WHERE opening)
        OR no IN (SELECT customer FROM timeline WHERE kind = 'open_with_owner'))
   AND no NOT IN (SELECT customer FROM timeline WHERE at < ?)
"""


def resolve(staging: Staging, mapping: Mapping, files: Sequence[FileRows]) -> None:
    """Settle who is meant, reject what cannot be, and create whom the mapping lets be created.

    ``files`` are the mapping's files by their number in the sources.
    """
    resolver = _Resolver(staging, mapping, files)
    resolver.reject_contradictions()
    resolver.connection.execute(_PRUNE_ENTITIES)
    # What one rejection takes away another row may have referred to.
    while resolver.reject_once():
        resolver.purge()
    resolver.create_missing()


def order(staging: Staging, mapping: Mapping) -> None:
    """Fill the tables of facts and of the timeline, in the order of filing."""
    connection = staging.connection
    connection.execute(_MANAGEMENT)
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


class _Resolver:
    def __init__(self, staging: Staging, mapping: Mapping, files: Sequence[FileRows]) -> None:
        self.connection: sqlite3.Connection = staging.connection
        self._staging = staging
        self._files = files
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

    def reject_once(self) -> bool:
        """Settle what is meant by the rows that are left; say whether any was rejected."""
        before = self._rejected()
        self.connection.execute(_SETTLE_NAMES)
        self.connection.execute(_SETTLE_IDS)
        self.connection.execute(_SETTLE_USABLE, (orjson.dumps(self._creatable).decode(),))
        for table, query in _UNUSABLE:
            for source, role, text, candidates, key in self.connection.execute(query):
                reason = _UNKNOWN[role, candidates > 1]
                column = self._reference_column(source, table, role, key)
                self._staging.reject(source, reason, column, text)
        self._reject_parents()
        self._reject_by(_SECOND_OWNERS, RejectReason.SECOND_OWNER, "opening", "person")
        return self._rejected() > before

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
            "SELECT EXISTS (SELECT 1 FROM mention WHERE candidates = 0 AND usable)"
        ).fetchone()
        if some:
            self.connection.execute(_CREATE_MISSING)
            self.connection.execute(_SETTLE_NAMES)
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
        columns = {"name": person.name, "territory": person.territory}
        columns |= {"phone": person.phone, "email": person.email}
    elif role == "customer" and file.customer is not None:
        customer = file.customer
        columns = {"name": customer.name, "territory": customer.territory}
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
