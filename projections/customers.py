"""Customers: what is known of each, and finding them by name, number or phone.

A customer is shown from its registration on (``pending``), and is admitted or refused as decided.
A change shows once it is decided to hold. Territory and group parent are those that the last
decision stated; until there is one the parent is the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from psycopg import Connection
from psycopg.rows import dict_row

from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.events.values import Contact, ForeignId, Identifier, Sealed, Site, Text
from ledger.store.arrays import text_array
from projections.base import Change, Table, Unsealer
from projections.batches import load_keys, put_rows, write
from projections.columns import instants, texts
from projections.wording import (
    folded,
    grams,
    nearest,
    number_folded,
    phone_digits,
    search_grams,
)

PAGE = 100
NEAR_MAX = 5
# Of each pair of characters of an unknown name so many customers are compared with it.
_NEAR_BY_PAIR_MAX = 300
_NEAR_IDS = 50
ALL = "*"
"""In place of a person: what everybody's customers have that is personal."""
# The beginning of a number that more customers than this share says nothing about any of them.
_BY_NUMBER_MAX = 1_000
# Fewer digits than this say nothing about a phone, fewer characters nothing about a number.
_PHONE_DIGITS_MIN, _NUMBER_CHARACTERS_MIN = 4, 4

_TABLES = (
    Table(
        "customers",
        """
        customer           text COLLATE "C" NOT NULL PRIMARY KEY,
        kind               text NOT NULL,
        state              text NOT NULL
            CHECK (state IN ('pending', 'admitted', 'refused', 'closed')),
        reason             text,
        existing           text COLLATE "C",
        parent             text COLLATE "C",
        territory          text COLLATE "C",
        explicit_territory text COLLATE "C",
        attributes         jsonb NOT NULL,
        registered_at      timestamptz NOT NULL,
        admitted_at        timestamptz,
        known_from         timestamptz
        """,
        (
            "CREATE INDEX customers_territory ON customers (territory, customer)",
            "CREATE INDEX customers_closed ON customers (customer) WHERE state = 'closed'",
            "CREATE INDEX customers_parent ON customers (parent, customer)"
            " WHERE parent IS NOT NULL",
        ),
    ),
    # Apart, because whatever is decided of a customer would write the many entries of its grams
    # again.
    Table(
        "customer_names",
        """
        customer text COLLATE "C" NOT NULL PRIMARY KEY,
        name     text,
        folded   text COLLATE "C",
        length   integer,
        grams    text[] COLLATE "C" NOT NULL
        """,
        (
            "CREATE INDEX customer_names_grams ON customer_names USING gin (grams)",
            # A long name does not fit into a tree; only equality is asked for.
            "CREATE INDEX customer_names_folded ON customer_names USING hash (folded)",
            "CREATE INDEX customer_names_length ON customer_names (length, customer)",
        ),
    ),
    Table(
        "customer_identifiers",
        """
        customer text COLLATE "C" NOT NULL,
        system   text NOT NULL,
        value    text,
        folded   text COLLATE "C",
        PRIMARY KEY (customer, system)
        """,
        ("CREATE INDEX customer_identifiers_value ON customer_identifiers (folded)",),
    ),
    Table(
        "customer_foreign_ids",
        """
        customer text COLLATE "C" NOT NULL,
        system   text NOT NULL,
        value    text NOT NULL,
        folded   text COLLATE "C" NOT NULL,
        PRIMARY KEY (customer, system, value)
        """,
        ("CREATE INDEX customer_foreign_ids_value ON customer_foreign_ids (folded)",),
    ),
    Table(
        "customer_contacts",
        """
        customer       text COLLATE "C" NOT NULL,
        contact        text COLLATE "C" NOT NULL,
        name           text,
        phone          text,
        phone_reversed text COLLATE "C",
        email          text,
        role           text,
        PRIMARY KEY (customer, contact)
        """,
        # Numbers are looked up by their last digits: what stands before them varies.
        ("CREATE INDEX customer_contacts_phone ON customer_contacts (phone_reversed)",),
    ),
    Table(
        "customer_sites",
        """
        customer text COLLATE "C" NOT NULL,
        site     text COLLATE "C" NOT NULL,
        name     text,
        address  text,
        PRIMARY KEY (customer, site)
        """,
    ),
)

_LOAD = """
SELECT customer, state, reason, existing, parent, territory, explicit_territory, attributes,
    admitted_at, known_from
FROM customers WHERE customer = ANY(%b)
"""
_INSERT = """
INSERT INTO customers (
    customer, kind, state, reason, existing, parent, territory, explicit_territory, attributes,
    registered_at, admitted_at, known_from)
SELECT r.customer, r.kind, r.state, r.reason, r.existing, r.parent, r.territory,
    r.explicit_territory, r.attributes::jsonb, r.registered_at, r.admitted_at, r.known_from
FROM unnest(
    %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
    %b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[], %b::timestamptz[])
    AS r(customer, kind, state, reason, existing, parent, territory, explicit_territory,
         attributes, registered_at, admitted_at, known_from)
"""
_INSERTED = (
    "customer",
    "kind",
    "state",
    "reason",
    "existing",
    "parent",
    "territory",
    "explicit_territory",
    "attributes",
    "registered_at",
    "admitted_at",
    "known_from",
)
_NAME = """
INSERT INTO customer_names AS n (customer, name, folded, length, grams)
SELECT r.customer, r.name, r.folded, length(r.folded), r.grams::text[]
FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[]) AS r(customer, name, folded, grams)
ON CONFLICT (customer) DO UPDATE SET
    name = excluded.name, folded = excluded.folded, length = excluded.length,
    grams = excluded.grams
"""
_UPDATE = """
UPDATE customers c SET
    state = r.state, reason = r.reason, existing = r.existing, parent = r.parent,
    territory = r.territory, explicit_territory = r.explicit_territory,
    attributes = r.attributes, admitted_at = r.admitted_at, known_from = r.known_from
FROM jsonb_to_recordset(%s::jsonb) AS r(
    customer text, state text, reason text, existing text, parent text, territory text,
    explicit_territory text, attributes jsonb, admitted_at timestamptz, known_from timestamptz)
WHERE c.customer = r.customer
"""
_MOVE = """
UPDATE customers c SET territory = r.territory
FROM jsonb_to_recordset(%s::jsonb) AS r(customer text, territory text)
WHERE c.customer = r.customer AND c.territory IS DISTINCT FROM r.territory
"""
_DELETE = {
    "customer_identifiers": """
        DELETE FROM customer_identifiers d
        USING jsonb_to_recordset(%s::jsonb) AS r(customer text, part text)
        WHERE d.customer = r.customer AND d.system = r.part
        """,
    "customer_contacts": """
        DELETE FROM customer_contacts d
        USING jsonb_to_recordset(%s::jsonb) AS r(customer text, part text)
        WHERE d.customer = r.customer AND d.contact = r.part
        """,
    "customer_sites": """
        DELETE FROM customer_sites d
        USING jsonb_to_recordset(%s::jsonb) AS r(customer text, part text)
        WHERE d.customer = r.customer AND d.site = r.part
        """,
}
_REMOVED = {
    "identifier": "customer_identifiers",
    "contact": "customer_contacts",
    "site": "customer_sites",
}
# What a later request does not say of a contact or site stays as it is.
_STORE = {
    "customer_identifiers": """
        INSERT INTO customer_identifiers (customer, system, value, folded)
        SELECT * FROM jsonb_to_recordset(%s::jsonb)
            AS r(customer text, system text, value text, folded text)
        ON CONFLICT (customer, system) DO UPDATE SET
            value = excluded.value, folded = excluded.folded
        """,
    "customer_foreign_ids": """
        INSERT INTO customer_foreign_ids (customer, system, value, folded)
        SELECT * FROM jsonb_to_recordset(%s::jsonb)
            AS r(customer text, system text, value text, folded text)
        ON CONFLICT DO NOTHING
        """,
    "customer_contacts": """
        INSERT INTO customer_contacts AS c
            (customer, contact, name, phone, phone_reversed, email, role)
        SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(
            customer text, contact text, name text, phone text, phone_reversed text, email text,
            role text)
        ON CONFLICT (customer, contact) DO UPDATE SET
            name = coalesce(excluded.name, c.name), phone = coalesce(excluded.phone, c.phone),
            phone_reversed = coalesce(excluded.phone_reversed, c.phone_reversed),
            email = coalesce(excluded.email, c.email), role = coalesce(excluded.role, c.role)
        """,
    "customer_sites": """
        INSERT INTO customer_sites AS s (customer, site, name, address)
        SELECT * FROM jsonb_to_recordset(%s::jsonb)
            AS r(customer text, site text, name text, address text)
        ON CONFLICT (customer, site) DO UPDATE SET
            name = coalesce(excluded.name, s.name),
            address = coalesce(excluded.address, s.address)
        """,
}

_HANDLES = frozenset(
    {
        "RegistrationRequested.v1",
        "CustomerAdmitted.v1",
        "RegistrationRefused.v1",
        "CustomerChanged.v1",
        "OwnershipGranted.v1",
        "OwnershipAssigned.v1",
        "OwnershipReleased.v1",
        "CustomerRecycled.v1",
        "OwnershipTransferred.v1",
    }
)


@dataclass(frozen=True)
class Customers:
    """The projection of customers."""

    unsealer: Unsealer
    name: str = "customers"
    version: int = 1
    tables: Sequence[Table] = _TABLES
    handles: frozenset[str] = _HANDLES
    needs_cause: frozenset[str] = frozenset({"CustomerChanged.v1"})

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        load_keys(self.unsealer, _keys(changes))
        touched = {
            change.event.data.customer for change in changes if change.event.name not in _MOVES
        }
        batch = _Batch(self.unsealer)
        if touched:
            with connection.cursor(row_factory=dict_row) as cursor:
                cursor.execute(_LOAD, (text_array(list(touched)),), binary=True)
                batch.loaded = {row["customer"]: row for row in cursor}
        for change in changes:
            batch.fold(change)
        batch.store(connection)


_MOVES = frozenset(
    {
        "OwnershipGranted.v1",
        "OwnershipAssigned.v1",
        "OwnershipReleased.v1",
        "CustomerRecycled.v1",
        "OwnershipTransferred.v1",
    }
)
_Rows = dict[tuple[str, str], dict[str, Any]]


@dataclass
class _Batch:
    """What a batch makes of the customers it touches, folded in order, and then written."""

    unsealer: Unsealer
    loaded: dict[str, dict[str, Any]] = field(default_factory=dict)
    registered: dict[str, dict[str, Any]] = field(default_factory=dict)
    updated: set[str] = field(default_factory=set)
    names: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    moved: dict[str, str | None] = field(default_factory=dict)
    deleted: dict[str, set[tuple[str, str]]] = field(
        default_factory=lambda: {table: set() for table in _DELETE}
    )
    parts: dict[str, _Rows] = field(default_factory=lambda: {table: {} for table in _STORE})

    def fold(self, change: Change) -> None:
        """Take in one event."""
        event, data = change.event, change.event.data
        match data:
            case requests.RegistrationRequested():
                self._register(event, data)
            case decisions.CustomerAdmitted():
                row = self._row(data.customer)
                if row["state"] == "pending":
                    row.update(
                        state="admitted",
                        parent=data.parent,
                        territory=data.territory,
                        admitted_at=event.effective,
                        known_from=data.known_from,
                    )
            case decisions.RegistrationRefused():
                row = self._row(data.customer)
                # A customer that is registered a second time stays what it was.
                if row["state"] == "pending":
                    row.update(state="refused", reason=data.reason, existing=data.existing)
            case decisions.CustomerChanged():
                if change.cause is None:
                    raise LookupError(f"the request of the change at {event.position} is missing")
                self._change(data, change.cause)
            case decisions.OwnershipReleased() | decisions.CustomerRecycled():
                self._move(data.customer, data.territory)
            case _:
                self._move(data.customer, data.customer_territory)

    def _row(self, customer: str) -> dict[str, Any]:
        row = self.registered.get(customer)
        if row is None:
            row = self.loaded.get(customer)
            if row is None:
                raise LookupError(f"the registration of {customer} was not applied")
            self.updated.add(customer)
        return row

    def _move(self, customer: str, territory: str | None) -> None:
        if customer in self.registered or customer in self.loaded:
            self._row(customer)["territory"] = territory
        else:
            self.moved[customer] = territory

    def _register(self, event: Event, data: requests.RegistrationRequested) -> None:
        customer = data.customer
        if customer in self.registered or customer in self.loaded:
            return
        self.registered[customer] = {
            "customer": customer,
            "kind": data.kind,
            "state": "pending",
            "parent": data.parent,
            "explicit_territory": data.territory,
            "attributes": data.attributes,
            "registered_at": event.recorded,
        }
        self._call(event, customer, data.name)
        self._add_parts(event, customer, data)

    def _change(self, decision: decisions.CustomerChanged, cause: Event) -> None:
        customer, data = decision.customer, cause.data
        row = self._row(customer)
        removed = frozenset(data.removed)
        row.update(territory=decision.territory, parent=decision.parent)
        if data.territory is not None:
            row["explicit_territory"] = data.territory
        if data.closed is not None:
            row["state"] = "closed" if data.closed else "admitted"
        row["attributes"] = {
            name: value
            for name, value in (row["attributes"] | data.attributes).items()
            if f"attribute:{name}" not in removed
        }
        if data.name is not None:
            self._call(cause, customer, data.name)
        self._add_parts(cause, customer, data)
        self._remove(customer, row, removed)

    def _call(self, event: Event, customer: str, name: Text) -> None:
        opened = self.unsealer.open_text(event, "name", name)
        self.names[customer] = _named(customer, opened)

    def _remove(self, customer: str, row: dict[str, Any], removed: frozenset[str]) -> None:
        if "territory" in removed:
            row["explicit_territory"] = None
        for word in removed:
            kind, _, part = word.partition(":")
            table = _REMOVED.get(kind)
            if table is not None:
                self.deleted[table].add((customer, part))
                self.parts[table].pop((customer, part), None)

    def _add_parts(
        self,
        event: Event,
        customer: str,
        data: requests.RegistrationRequested | requests.CustomerChangeRequested,
    ) -> None:
        for identifier in data.identifiers:
            self._add_identifier(event, customer, identifier)
        for foreign in data.foreign_ids:
            self.parts["customer_foreign_ids"][customer, f"{foreign.system}\n{foreign.value}"] = {
                "customer": customer,
                "system": foreign.system,
                "value": foreign.value,
                "folded": number_folded(foreign.value),
            }
        for contact in data.contacts:
            self._add_contact(event, customer, contact)
        for site in data.sites:
            self._add_site(event, customer, site)

    def _add_identifier(self, event: Event, customer: str, given: Identifier) -> None:
        if given.sealed is None:
            value: str | None = given.key
        else:
            where = f"identifiers.{given.system}"
            value = self.unsealer.open_text(event, where, given.sealed)
        self.parts["customer_identifiers"][customer, given.system] = {
            "customer": customer,
            "system": given.system,
            "value": value,
            "folded": None if value is None else number_folded(value),
        }

    def _add_contact(self, event: Event, customer: str, given: Contact) -> None:
        where, opened = f"contacts.{given.contact}", self.unsealer.open_text
        phone = opened(event, f"{where}.phone", given.phone)
        self._merge(
            "customer_contacts",
            (customer, given.contact),
            {
                "customer": customer,
                "contact": given.contact,
                "name": opened(event, f"{where}.name", given.name),
                "phone": phone,
                "phone_reversed": None if phone is None else phone_digits(phone)[::-1],
                "email": opened(event, f"{where}.email", given.email),
                "role": given.role,
            },
        )

    def _add_site(self, event: Event, customer: str, given: Site) -> None:
        where, opened = f"sites.{given.site}", self.unsealer.open_text
        self._merge(
            "customer_sites",
            (customer, given.site),
            {
                "customer": customer,
                "site": given.site,
                "name": opened(event, f"{where}.name", given.name),
                "address": opened(event, f"{where}.address", given.address),
            },
        )

    def _merge(self, kind: str, key: tuple[str, str], row: dict[str, Any]) -> None:
        said = {name: value for name, value in row.items() if value is not None}
        self.parts[kind][key] = self.parts[kind].get(key, {}) | said

    def store(self, connection: Connection[Any]) -> None:
        """Write the batch, a statement a table."""
        for row in self.registered.values():
            row["attributes"] = orjson.dumps(row["attributes"]).decode()
        rows = [[row.get(name) for name in _INSERTED] for row in self.registered.values()]
        put_rows(connection, _INSERT, [*[texts] * 9, *[instants] * 3], rows)
        write(connection, _UPDATE, [self.loaded[customer] for customer in sorted(self.updated)])
        moved = [{"customer": customer, "territory": to} for customer, to in self.moved.items()]
        write(connection, _MOVE, moved)
        put_rows(connection, _NAME, [texts] * 4, list(self.names.values()))
        for table, statement in _DELETE.items():
            gone = sorted(self.deleted[table])
            write(connection, statement, [{"customer": each, "part": part} for each, part in gone])
        for table, statement in _STORE.items():
            write(connection, statement, list(self.parts[table].values()))


def _named(customer: str, name: str | None) -> tuple[str | None, ...]:
    if name is None:  # erased
        return customer, None, None, "{}"
    compared = folded(name)
    return customer, name, compared, _array_literal(grams(compared))


def _array_literal(items: Sequence[str]) -> str:
    """Return texts as PostgreSQL reads an array."""
    text = "\x00".join(items)
    if '"' in text or "\\" in text:
        text = text.replace("\\", r"\\").replace('"', r"\"")
    return '{"' + text.replace("\x00", '","') + '"}'


def _keys(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        asked = change.cause or change.event
        if asked.name not in ("RegistrationRequested.v1", "CustomerChangeRequested.v1"):
            continue
        data = asked.data
        fields: list[str | Sealed | None] = [data.name]
        fields.extend(each.sealed for each in data.identifiers)
        for contact in data.contacts:
            fields.extend((contact.name, contact.phone, contact.email))
        for site in data.sites:
            fields.extend((site.name, site.address))
        yield from (each.key for each in fields if isinstance(each, Sealed))


# --- queries -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as it stands. Times are UTC.

    ``name`` is None where it was erased. ``state`` is ``pending``, ``admitted``, ``refused`` (for
    ``reason``; ``existing`` is the customer that is meant instead) or ``closed``. ``territory``
    and ``parent`` are as decided last, ``explicit_territory`` is the one that was named.
    ``registered_at`` is when the registration was recorded, ``admitted_at`` when the admission took
    effect.
    """

    customer: str
    kind: str
    name: str | None
    state: str
    reason: str | None
    existing: str | None
    parent: str | None
    territory: str | None
    explicit_territory: str | None
    attributes: Mapping[str, Any]
    registered_at: datetime
    admitted_at: datetime | None
    known_from: datetime | None


@dataclass(frozen=True, slots=True)
class NumberOfCustomer:
    """A unique identifier; ``value`` is None where it was erased."""

    system: str
    value: str | None


@dataclass(frozen=True, slots=True)
class ContactOfCustomer:
    """Somebody to talk to; what was never said or was erased is None."""

    contact: str
    name: str | None
    phone: str | None
    email: str | None
    role: str | None


@dataclass(frozen=True, slots=True)
class SiteOfCustomer:
    """A place of the customer; what was never said or was erased is None."""

    site: str
    name: str | None
    address: str | None


@dataclass(frozen=True, slots=True)
class CustomerDetails:
    """A customer with all that belongs to it."""

    customer: Customer
    identifiers: tuple[NumberOfCustomer, ...]
    foreign_ids: tuple[ForeignId, ...]
    contacts: tuple[ContactOfCustomer, ...]
    sites: tuple[SiteOfCustomer, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """Which customer a text means.

    ``customer`` where it is just one; ``matches`` where several have that number or name;
    ``near`` where none has: those whose name or id is most like it.
    """

    customer: Customer | None
    matches: tuple[Customer, ...] = ()
    near: tuple[Customer, ...] = ()


_COLUMNS = """
    c.customer, c.kind, n.name, c.state, c.reason, c.existing, c.parent, c.territory,
    c.explicit_territory, c.attributes, c.registered_at, c.admitted_at, c.known_from
"""
_FROM = """
FROM projections.customers c JOIN projections.customer_names n ON n.customer = c.customer
"""
_SOME = f"SELECT {_COLUMNS} {_FROM} WHERE c.customer = ANY(%b)"
_PARTS = {
    "identifiers": """
        SELECT system, value FROM projections.customer_identifiers
        WHERE customer = %s ORDER BY system
        """,
    "foreign_ids": """
        SELECT system, value FROM projections.customer_foreign_ids
        WHERE customer = %s ORDER BY system, value
        """,
    "contacts": """
        SELECT contact, name, phone, email, role FROM projections.customer_contacts
        WHERE customer = %s ORDER BY contact
        """,
    "sites": """
        SELECT site, name, address FROM projections.customer_sites
        WHERE customer = %s ORDER BY site
        """,
}
_LIST = f"""
SELECT {_COLUMNS} {_FROM}
WHERE c.customer > %(after)s
  AND (%(state)s::text IS NULL OR c.state = %(state)s)
  AND (%(territory)s::text IS NULL OR c.territory = %(territory)s)
ORDER BY c.customer LIMIT %(limit)s
"""
# Ordered by the length of the name: a customer whose whole name was typed comes first. Whatever
# is found by its id, a number or a phone comes before all names.
_SEARCH = """
WITH numbered AS MATERIALIZED (
    SELECT customer FROM projections.customers WHERE customer = %(text)s
    UNION
    (SELECT i.customer FROM projections.customer_identifiers i
     WHERE %(number)s <> '' AND i.folded >= %(number)s AND i.folded < %(number)s || chr(1114111)
       {identifiers}
     ORDER BY i.folded, i.customer LIMIT %(numbered)s)
    UNION
    (SELECT customer FROM projections.customer_foreign_ids
     WHERE %(number)s <> '' AND folded >= %(number)s AND folded < %(number)s || chr(1114111)
     ORDER BY folded, customer LIMIT %(numbered)s)
    UNION
    (SELECT customer FROM projections.customer_foreign_ids
     WHERE folded = %(value)s AND lower(system) = lower(%(system)s)
     ORDER BY customer LIMIT %(numbered)s)
    UNION
    (SELECT t.customer FROM projections.customer_contacts t
     WHERE %(phone)s <> '' AND t.phone_reversed >= %(phone)s
       AND t.phone_reversed < %(phone)s || chr(1114111)
       {phones}
     ORDER BY t.phone_reversed, t.customer LIMIT %(numbered)s)
), start AS MATERIALIZED (
    SELECT CASE WHEN EXISTS (SELECT FROM numbered n WHERE n.customer = c.customer)
                THEN 0 ELSE coalesce(c.length, 0) END AS rank, c.customer
    FROM projections.customer_names c WHERE c.customer = %(after)s
    UNION ALL
    SELECT -1, '' WHERE NOT EXISTS (
        SELECT FROM projections.customer_names c WHERE c.customer = %(after)s)
), hits AS (
    SELECT 0 AS rank, customer FROM numbered
    UNION ALL
    (SELECT n.length, n.customer {found}
     WHERE n.grams @> %(grams)b AND position(%(folded)s IN n.folded) > 0
       {names}
       AND (n.length, n.customer) > ((SELECT rank FROM start), (SELECT customer FROM start))
       AND (%(state)s::text IS NULL OR c.state = %(state)s)
       AND (%(territory)s::text IS NULL OR c.territory = %(territory)s)
       AND NOT EXISTS (SELECT FROM numbered d WHERE d.customer = n.customer)
     ORDER BY n.length, n.customer LIMIT %(limit)s)
)
SELECT {columns} {found} JOIN hits ON hits.customer = c.customer
WHERE (hits.rank, c.customer) > ((SELECT rank FROM start), (SELECT customer FROM start))
  AND (%(state)s::text IS NULL OR c.state = %(state)s)
  AND (%(territory)s::text IS NULL OR c.territory = %(territory)s)
ORDER BY hits.rank, c.customer LIMIT %(limit)s
"""
# What is personal is found in part only by who sees it: else a number could be felt out by digits.
_THEIRS = """EXISTS (SELECT FROM projections.ownership o
                     WHERE o.customer = {customer} AND o.owner = %(own)s)"""
_SEARCH_ALL = _SEARCH.format(columns=_COLUMNS, found=_FROM, identifiers="", phones="", names="")
_SEARCH_OWN = _SEARCH.format(
    columns=_COLUMNS,
    found=_FROM,
    identifiers=f"""AND (i.folded = %(number)s OR {_THEIRS.format(customer="i.customer")}
            OR EXISTS (SELECT FROM projections.customers p
                       WHERE p.customer = i.customer AND p.kind <> 'individual'))""",
    phones=f"AND (t.phone_reversed = %(phone)s OR {_THEIRS.format(customer='t.customer')})",
    names=f"""AND (c.kind <> 'individual' OR n.folded = %(folded)s
            OR {_THEIRS.format(customer="n.customer")})""",
)
# Of duplicates with one number or name those that were not refused are meant.
_BY_NUMBER = f"""
SELECT {_COLUMNS} {_FROM} WHERE c.customer IN (
    SELECT customer FROM projections.customer_identifiers WHERE folded = %(number)s
    UNION
    SELECT customer FROM projections.customer_foreign_ids
    WHERE folded = %(number)s OR folded = %(value)s AND lower(system) = lower(%(system)s)
)
ORDER BY c.state = 'refused', c.customer LIMIT %(limit)s
"""  # noqa: S608  # constants
_BY_NAME = f"""
SELECT {_COLUMNS} {_FROM} WHERE n.folded = %(folded)s
ORDER BY c.state = 'refused', c.customer LIMIT %(limit)s
"""
_CHILDREN = f"""
SELECT {_COLUMNS} {_FROM}
WHERE c.parent = %(parent)s AND c.customer > %(after)s AND c.state <> 'refused'
ORDER BY c.customer LIMIT %(limit)s
"""
_NEAR_NAMES = """
SELECT near.customer, near.name FROM unnest(%(grams)b) AS g(gram)
CROSS JOIN LATERAL (
    SELECT n.customer, n.name FROM projections.customer_names n
    WHERE n.grams @> ARRAY[g.gram] LIMIT %(limit)s
) near
"""
_NEAR_CUSTOMERS = """
(SELECT customer, customer FROM projections.customers
 WHERE customer >= %(text)s ORDER BY customer LIMIT %(limit)s)
UNION ALL
(SELECT customer, customer FROM projections.customers
 WHERE customer < %(text)s ORDER BY customer DESC LIMIT %(limit)s)
"""


def customer(connection: Connection[Any], customer_id: str) -> CustomerDetails | None:
    """Return a customer with all that belongs to it, None where nobody registered that id."""
    found = summaries(connection, [customer_id]).get(customer_id)
    if found is None:
        return None
    parts = {
        name: connection.execute(statement.encode(), (customer_id,)).fetchall()
        for name, statement in _PARTS.items()
    }
    return CustomerDetails(
        found,
        tuple(NumberOfCustomer(*row) for row in parts["identifiers"]),
        tuple(ForeignId(*row) for row in parts["foreign_ids"]),
        tuple(ContactOfCustomer(*row) for row in parts["contacts"]),
        tuple(SiteOfCustomer(*row) for row in parts["sites"]),
    )


def summaries(connection: Connection[Any], customers: Sequence[str]) -> dict[str, Customer]:
    """Return customers by their ids; unknown ids are absent."""
    return {each.customer: each for each in _found(connection, _SOME, (text_array(customers),))}


def search(
    connection: Connection[Any],
    text: str,
    *,
    state: str | None = None,
    territory: str | None = None,
    limit: int = PAGE,
    after: str | None = None,
    personal_of: str | None = ALL,
) -> list[Customer]:
    """Return customers whose name holds ``text``, or whose number or phone it is.

    An identifier or foreign id may be typed in part from its beginning, a phone by its last
    digits, at least 4 each; a foreign id also as ``system:value``. Those found by a number come
    first, then the shorter names. Without text all customers are listed by id. ``after`` is the
    last customer of the page before.

    By a part of a phone, or of the name or identifier of an individual, only customers of
    ``personal_of`` are found (None: nobody's); others by the whole of it.
    """
    filters = {"state": state, "territory": territory, "limit": limit, "after": after or ""}
    compared = folded(text)
    if not compared:
        return _found(connection, _LIST, filters)
    number, phone = number_folded(text), phone_digits(text)
    system, _, value = text.partition(":")
    return _found(
        connection,
        _SEARCH_ALL if personal_of == ALL else _SEARCH_OWN,
        {
            **filters,
            "own": personal_of,
            "text": text.strip(),
            "number": number if len(number) >= _NUMBER_CHARACTERS_MIN else "",
            "system": system.strip(),
            "value": number_folded(value),
            "phone": phone[::-1] if _is_phone(text, phone) else "",
            "numbered": _BY_NUMBER_MAX,
            "folded": compared,
            "grams": text_array(search_grams(compared)),
        },
    )


def _is_phone(text: str, digits: str) -> bool:
    letters = any(character.isalpha() for character in text)
    return len(digits) >= _PHONE_DIGITS_MIN and not letters


def resolve(connection: Connection[Any], text: str, *, near_limit: int = NEAR_MAX) -> Resolution:
    """Return which customer ``text`` means: by id, else by identifier or foreign id, else by name.

    A refused registration is meant by its own id only, or where nothing else has that number or
    name.
    """
    stripped = text.strip()
    by_id = summaries(connection, [stripped])
    if by_id:
        return Resolution(by_id[stripped])
    system, _, value = text.partition(":")
    numbers = {
        "number": number_folded(text),
        "system": system.strip(),
        "value": number_folded(value),
        "limit": PAGE,
    }
    for statement, parameters in (
        (_BY_NUMBER, numbers),
        (_BY_NAME, {"folded": folded(text), "limit": PAGE}),
    ):
        found = _found(connection, statement, parameters)
        standing = [each for each in found if each.state != "refused"] or found
        if len(standing) == 1:
            return Resolution(standing[0])
        if standing:
            return Resolution(None, matches=tuple(standing))
    return Resolution(None, near=tuple(_near(connection, text, near_limit)))


def children(
    connection: Connection[Any], parent: str, *, after: str | None = None, limit: int = PAGE
) -> list[Customer]:
    """Return the customers whose group parent is ``parent``, by id, behind ``after``."""
    return _found(connection, _CHILDREN, {"parent": parent, "after": after or "", "limit": limit})


def _near(connection: Connection[Any], text: str, limit: int) -> list[Customer]:
    pairs = text_array(search_grams(folded(text)) or [""])
    names = connection.execute(_NEAR_NAMES, {"grams": pairs, "limit": _NEAR_BY_PAIR_MAX})
    ids = connection.execute(_NEAR_CUSTOMERS, {"text": text.strip(), "limit": _NEAR_IDS})
    candidates = [(key, name) for key, name in [*names, *ids] if name is not None]
    near = nearest(text, candidates, 2 * limit)
    found = summaries(connection, near)
    standing = [found[each] for each in near if found[each].state != "refused"]
    return standing[:limit]


def _found(connection: Connection[Any], statement: str, parameters: Any) -> list[Customer]:
    # Not prepared: a plan for any text would neither know how rare its characters are.
    rows = connection.execute(statement.encode(), parameters, binary=True, prepare=False)
    return [Customer(*row) for row in rows]
