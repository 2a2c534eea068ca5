"""People and territories: who is there, where, under whom; policies, imports, the organisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from ledger.envelope import Event
from ledger.events import organisation as facts
from ledger.events.values import ForeignId, Sealed
from ledger.organisation import Absence, Delegation, Territory
from ledger.store.arrays import text_array
from projections.base import Change, Table, Unsealer
from projections.batches import load_keys, write
from projections.wording import folded, nearest, number_folded

PAGE = 1_000
NEAR_MAX = 5

_TABLES = (
    Table(
        "people",
        """
        person      text COLLATE "C" NOT NULL PRIMARY KEY,
        joined      bigint NOT NULL,
        name        text,
        name_folded text COLLATE "C",
        territory   text COLLATE "C",
        roles       text[] NOT NULL,
        joined_on   date,
        left_on     date,
        phone       text,
        email       text
        """,
        (
            "CREATE INDEX people_joined ON people (joined)",
            "CREATE INDEX people_name ON people (name_folded)",
            "CREATE INDEX people_territory ON people (territory)",
        ),
    ),
    Table(
        "person_foreign_ids",
        """
        person text COLLATE "C" NOT NULL,
        system text NOT NULL,
        value  text NOT NULL,
        folded text COLLATE "C" NOT NULL,
        PRIMARY KEY (person, system, value)
        """,
        ("CREATE INDEX person_foreign_ids_value ON person_foreign_ids (folded)",),
    ),
    Table(
        "absences",
        """
        position  bigint NOT NULL PRIMARY KEY,
        person    text COLLATE "C" NOT NULL,
        from_day  date NOT NULL,
        until_day date NOT NULL
        """,
        ("CREATE INDEX absences_person ON absences (person)",),
    ),
    Table(
        "delegations",
        """
        position  bigint NOT NULL PRIMARY KEY,
        person    text COLLATE "C" NOT NULL,
        delegate  text COLLATE "C" NOT NULL,
        from_day  date NOT NULL,
        until_day date NOT NULL
        """,
        ("CREATE INDEX delegations_person ON delegations (person)",),
    ),
    Table(
        "territories",
        """
        territory   text COLLATE "C" NOT NULL PRIMARY KEY,
        defined     bigint NOT NULL,
        name        text NOT NULL,
        parent      text COLLATE "C",
        head        text COLLATE "C",
        managers    text[] NOT NULL,
        foreign_ids jsonb NOT NULL
        """,
    ),
    Table(
        "policies",
        """
        number   integer NOT NULL PRIMARY KEY,
        position bigint NOT NULL,
        recorded timestamptz NOT NULL,
        rules    jsonb NOT NULL,
        comment  text
        """,
    ),
    Table(
        "imports",
        """
        import_id text COLLATE "C" NOT NULL PRIMARY KEY,
        name      text NOT NULL,
        time_zone text NOT NULL,
        rules     jsonb NOT NULL,
        cut_over  timestamptz,
        opened    bigint NOT NULL,
        opened_at timestamptz NOT NULL,
        closed_at timestamptz
        """,
    ),
    Table(
        "organisation",
        """
        one       boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
        name      text,
        time_zone text NOT NULL,
        decider   integer NOT NULL
        """,
    ),
)

_LOAD_PEOPLE = """
SELECT person, joined, name, name_folded, territory, roles, joined_on, left_on, phone, email
FROM people WHERE person = ANY(%b)
"""
_STORE_PEOPLE = """
INSERT INTO people
    (person, joined, name, name_folded, territory, roles, joined_on, left_on, phone, email)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(
    person text, joined bigint, name text, name_folded text, territory text, roles text[],
    joined_on date, left_on date, phone text, email text)
ON CONFLICT (person) DO UPDATE SET
    name = excluded.name, name_folded = excluded.name_folded, territory = excluded.territory,
    roles = excluded.roles, joined_on = excluded.joined_on, left_on = excluded.left_on,
    phone = excluded.phone, email = excluded.email
"""
_STORE_FOREIGN_IDS = """
INSERT INTO person_foreign_ids (person, system, value, folded)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(person text, system text, value text, folded text)
ON CONFLICT DO NOTHING
"""
_STORE_ABSENCES = """
INSERT INTO absences (position, person, from_day, until_day)
SELECT * FROM jsonb_to_recordset(%s::jsonb)
    AS r(position bigint, person text, from_day date, until_day date)
"""
_STORE_DELEGATIONS = """
INSERT INTO delegations (position, person, delegate, from_day, until_day)
SELECT * FROM jsonb_to_recordset(%s::jsonb)
    AS r(position bigint, person text, delegate text, from_day date, until_day date)
"""
# Those in which a day lies, of those that were stated before, end on it.
_END_ABSENCES = """
UPDATE absences SET until_day = %(day)s
WHERE person = %(person)s AND position < %(position)s
    AND from_day <= %(day)s AND until_day > %(day)s
"""
_END_DELEGATIONS = """
UPDATE delegations SET until_day = %(day)s
WHERE person = %(person)s AND position < %(position)s
    AND from_day <= %(day)s AND until_day > %(day)s
"""
_DROP_ABSENCES = "DELETE FROM absences WHERE person = %(person)s AND from_day >= until_day"
_DROP_DELEGATIONS = "DELETE FROM delegations WHERE person = %(person)s AND from_day >= until_day"
_STORE_TERRITORIES = """
INSERT INTO territories (territory, defined, name, parent, head, managers, foreign_ids)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(
    territory text, defined bigint, name text, parent text, head text, managers text[],
    foreign_ids jsonb)
ON CONFLICT (territory) DO UPDATE SET
    name = excluded.name, parent = excluded.parent, head = excluded.head,
    managers = excluded.managers, foreign_ids = excluded.foreign_ids
"""
_STORE_POLICIES = """
INSERT INTO policies (number, position, recorded, rules, comment)
SELECT * FROM jsonb_to_recordset(%s::jsonb)
    AS r(number integer, position bigint, recorded timestamptz, rules jsonb, comment text)
"""
_STORE_IMPORTS = """
INSERT INTO imports (import_id, name, time_zone, rules, cut_over, opened, opened_at)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(
    import_id text, name text, time_zone text, rules jsonb, cut_over timestamptz, opened bigint,
    opened_at timestamptz)
"""
_CLOSE_IMPORTS = """
UPDATE imports i SET closed_at = r.closed_at
FROM jsonb_to_recordset(%s::jsonb) AS r(import_id text, closed_at timestamptz)
WHERE i.import_id = r.import_id
"""
_FOUND = """
INSERT INTO organisation (name, time_zone, decider) VALUES (%s, %s, 1)
ON CONFLICT (one) DO UPDATE SET name = excluded.name, time_zone = excluded.time_zone
"""
_ADOPT_DECIDER = """
INSERT INTO organisation (time_zone, decider) VALUES ('UTC', %s)
ON CONFLICT (one) DO UPDATE SET decider = excluded.decider
"""

_HANDLES = frozenset(
    {
        "OrganisationFounded.v1",
        "TerritoryDefined.v1",
        "PersonJoined.v1",
        "PersonChanged.v1",
        "PersonLeft.v1",
        "PersonReturned.v1",
        "PersonAway.v1",
        "DelegateNamed.v1",
        "AbsenceEnded.v1",
        "DelegationEnded.v1",
        "PolicyAdopted.v1",
        "DeciderAdopted.v1",
        "ImportOpened.v1",
        "ImportClosed.v1",
    }
)


@dataclass(frozen=True)
class People:
    """The projection of the organisation's facts."""

    unsealer: Unsealer
    name: str = "people"
    version: int = 1
    tables: Sequence[Table] = _TABLES
    handles: frozenset[str] = _HANDLES
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        events = [change.event for change in changes]
        load_keys(self.unsealer, _keys(events))
        self._apply_people(connection, events)
        for statement, rows in (
            (_STORE_ABSENCES, _absences(events)),
            (_STORE_DELEGATIONS, _delegations(events)),
            (_STORE_TERRITORIES, _territories(events)),
            (_STORE_POLICIES, _policies(events)),
            (_STORE_IMPORTS, _imports(events)),
            (_CLOSE_IMPORTS, _closed_imports(events)),
        ):
            write(connection, statement, rows)
        for event in events:
            _end_periods(connection, event)
            if isinstance(event.data, facts.OrganisationFounded):
                connection.execute(_FOUND, (event.data.name, event.data.time_zone))
            elif isinstance(event.data, facts.DeciderAdopted):
                connection.execute(_ADOPT_DECIDER, (event.data.version,))

    def _apply_people(self, connection: Connection[Any], events: Sequence[Event]) -> None:
        touched = {
            event.data.person
            for event in events
            if isinstance(
                event.data,
                facts.PersonJoined | facts.PersonChanged | facts.PersonLeft | facts.PersonReturned,
            )
        }
        if not touched:
            return
        with connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(_LOAD_PEOPLE, (text_array(sorted(touched)),))
            people = {row["person"]: row for row in cursor}
        foreign: dict[tuple[str, str, str], dict[str, Any]] = {}
        for event in events:
            self._fold(people, event)
            if isinstance(event.data, facts.PersonJoined):
                for each in event.data.foreign_ids:
                    key = (event.data.person, each.system, each.value)
                    names = ("person", "system", "value", "folded")
                    foreign[key] = dict(zip(names, (*key, number_folded(each.value)), strict=True))
        write(connection, _STORE_PEOPLE, list(people.values()))
        write(connection, _STORE_FOREIGN_IDS, list(foreign.values()))

    def _fold(self, people: dict[str, dict[str, Any]], event: Event) -> None:
        data = event.data
        match data:
            case facts.PersonJoined():
                joined = people.get(data.person, {}).get("joined", event.position)
                people[data.person] = {
                    "person": data.person,
                    "joined": joined,
                    **self._named(event, data.name),
                    "territory": data.territory,
                    "roles": data.roles,
                    "joined_on": data.joined_on,
                    "left_on": None,
                    "phone": self.unsealer.open_text(event, "phone", data.phone),
                    "email": self.unsealer.open_text(event, "email", data.email),
                }
            case facts.PersonChanged():
                person = people[data.person]
                person.update(territory=data.territory, roles=data.roles)
                if data.name is not None:
                    person.update(self._named(event, data.name))
            case facts.PersonLeft():
                people[data.person]["left_on"] = data.left_on
            case facts.PersonReturned():
                people[data.person].update(left_on=None, joined_on=data.returned_on)
            case _:
                pass

    def _named(self, event: Event, sealed: Sealed) -> dict[str, str | None]:
        name = self.unsealer.open_text(event, "name", sealed)
        return {"name": name, "name_folded": None if name is None else folded(name)}


def _keys(events: Sequence[Event]) -> Iterator[str]:
    for event in events:
        data = event.data
        if isinstance(data, facts.PersonJoined):
            fields: tuple[Sealed | None, ...] = (data.name, data.phone, data.email)
        elif isinstance(data, facts.PersonChanged):
            fields = (data.name,)
        else:
            continue
        yield from (each.key for each in fields if isinstance(each, Sealed))


def _absences(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [
        {
            "position": event.position,
            "person": event.data.person,
            "from_day": event.data.from_day,
            "until_day": event.data.until_day,
        }
        for event in events
        if isinstance(event.data, facts.PersonAway)
    ]


def _delegations(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [
        {
            "position": event.position,
            "person": event.data.person,
            "delegate": event.data.delegate,
            "from_day": event.data.from_day,
            "until_day": event.data.until_day,
        }
        for event in events
        if isinstance(event.data, facts.DelegateNamed)
    ]


def _end_periods(connection: Connection[Any], event: Event) -> None:
    """End what an event ends; it is rare, and knows from its position what was there before it."""
    data = event.data
    match data:
        case facts.AbsenceEnded():
            end, drop, day = _END_ABSENCES, _DROP_ABSENCES, data.back_on
        case facts.DelegationEnded():
            end, drop, day = _END_DELEGATIONS, _DROP_DELEGATIONS, data.ended_on
        case _:
            return
    values = {"person": data.person, "position": event.position, "day": day}
    connection.execute(end, values)
    connection.execute(drop, values)


def _territories(events: Sequence[Event]) -> list[dict[str, Any]]:
    latest: dict[str, dict[str, Any]] = {}
    for event in events:
        data = event.data
        if isinstance(data, facts.TerritoryDefined):
            first = latest.get(data.territory, {}).get("defined", event.position)
            latest[data.territory] = {
                "territory": data.territory,
                "defined": first,
                "name": data.name,
                "parent": data.parent,
                "head": data.head,
                "managers": sorted({*data.managers, *filter(None, [data.head])}),
                "foreign_ids": [
                    {"system": each.system, "value": each.value} for each in data.foreign_ids
                ],
            }
    return list(latest.values())


def _policies(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [
        {
            "number": event.data.number,
            "position": event.position,
            "recorded": event.recorded,
            "rules": event.data.rules,
            "comment": event.data.comment,
        }
        for event in events
        if isinstance(event.data, facts.PolicyAdopted)
    ]


def _imports(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [
        {
            "import_id": event.data.import_id,
            "name": event.data.name,
            "time_zone": event.data.time_zone,
            "rules": event.data.rules,
            "cut_over": event.data.cut_over,
            "opened": event.position,
            "opened_at": event.recorded,
        }
        for event in events
        if isinstance(event.data, facts.ImportOpened)
    ]


def _closed_imports(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [
        {"import_id": event.data.import_id, "closed_at": event.recorded}
        for event in events
        if isinstance(event.data, facts.ImportClosed)
    ]


# --- queries -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Person:
    """A person as the organisation's facts have it now; days are the organisation's.

    ``name`` (and phone, email) is None where it was erased. ``left_on`` is the first day on which
    the person is no longer there.
    """

    person: str
    name: str | None
    territory: str | None
    roles: tuple[str, ...]
    joined_on: date | None
    left_on: date | None
    phone: str | None
    email: str | None
    foreign_ids: tuple[ForeignId, ...]
    absences: tuple[Absence, ...]
    delegations: tuple[Delegation, ...]


@dataclass(frozen=True, slots=True)
class PeopleFound:
    """Who is meant by a text, and who might be: ``near`` only where nobody is meant exactly."""

    exact: tuple[Person, ...]
    near: tuple[Person, ...]


@dataclass(frozen=True, slots=True)
class TerritoryInTree:
    """A territory and how many territories stand above it."""

    territory: Territory
    depth: int


@dataclass(frozen=True, slots=True)
class AdoptedPolicy:
    """A policy as it was adopted: ``rules`` is ledger/policy.py's JSON; ``recorded`` is UTC."""

    number: int
    position: int
    recorded: datetime
    rules: Mapping[str, Any]
    comment: str | None


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """An import: opened and closed when (UTC), at which position, under which rules."""

    import_id: str
    name: str
    time_zone: str
    rules: Mapping[str, Any]
    cut_over: datetime | None
    opened_position: int
    opened_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class OrganisationProfile:
    """Whose ledger it is (None before it was founded), its IANA time zone, its decider."""

    name: str | None
    time_zone: str
    decider: int


_PEOPLE = """
SELECT p.person, p.name, p.territory, p.roles, p.joined_on, p.left_on, p.phone, p.email,
    ARRAY(SELECT ROW(f.system, f.value) FROM projections.person_foreign_ids f
          WHERE f.person = p.person ORDER BY f.system, f.value),
    ARRAY(SELECT ROW(a.from_day, a.until_day) FROM projections.absences a
          WHERE a.person = p.person ORDER BY a.position),
    ARRAY(SELECT ROW(d.delegate, d.from_day, d.until_day) FROM projections.delegations d
          WHERE d.person = p.person ORDER BY d.position)
FROM projections.people p
"""
_LIST = f"""
{_PEOPLE}
WHERE (%(territory)s::text IS NULL OR p.territory = %(territory)s)
  AND p.joined > coalesce(
      (SELECT o.joined FROM projections.people o WHERE o.person = %(after)s), -1)
ORDER BY p.joined LIMIT %(limit)s
"""  # noqa: S608  # constants
_SOME = f"{_PEOPLE} WHERE p.person = ANY(%b)"
_EXACT = """
SELECT person FROM projections.people WHERE person = %(text)s OR name_folded = %(name)s
UNION
SELECT person FROM projections.person_foreign_ids
WHERE folded = %(number)s OR folded = %(value)s AND lower(system) = lower(%(system)s)
ORDER BY person LIMIT %(limit)s
"""
_CANDIDATES = """
SELECT person, name FROM projections.people WHERE person > %s ORDER BY person LIMIT %s
"""
_NAMES = "SELECT person, name FROM projections.people WHERE person = ANY(%b)"
_TERRITORIES_LIST = """
SELECT territory, name, parent, head, managers, foreign_ids
FROM projections.territories ORDER BY defined
"""
_POLICIES_LIST = """
SELECT number, position, recorded, rules, comment FROM projections.policies ORDER BY number
"""
_IMPORTS_LIST = """
SELECT import_id, name, time_zone, rules, cut_over, opened, opened_at, closed_at
FROM projections.imports ORDER BY opened
"""
_PROFILE = "SELECT name, time_zone, decider FROM projections.organisation"


def list_people(
    connection: Connection[Any],
    *,
    territory: str | None = None,
    after: str | None = None,
    limit: int = PAGE,
) -> list[Person]:
    """Return people in the order of joining, behind the person ``after``.

    ``territory`` keeps to those whose home it is. People who left are among them.
    """
    return _people(
        connection, _LIST, {"territory": territory, "after": after or "", "limit": limit}
    )


def person(connection: Connection[Any], person_id: str) -> Person | None:
    """Return a person, None where nobody of that id joined."""
    found = _people(connection, _SOME, (text_array([person_id]),))
    return found[0] if found else None


def find_people(
    connection: Connection[Any], text: str, *, near_limit: int = NEAR_MAX
) -> PeopleFound:
    """Return who is meant by an id, a whole name or a foreign id, else who is near.

    A foreign id may be written with its system before it, as ``system:value``.
    """
    system, _, value = text.partition(":")
    rows = connection.execute(
        _EXACT,
        {
            "text": text.strip(),
            "name": folded(text),
            "number": number_folded(text),
            "system": system.strip(),
            "value": number_folded(value),
            "limit": PAGE,
        },
    ).fetchall()
    exact = [row[0] for row in rows]
    if exact:
        return PeopleFound(tuple(_some(connection, exact)), ())
    near = nearest(text, _candidates(connection), near_limit)
    return PeopleFound((), tuple(_some(connection, near)))


def names(connection: Connection[Any], people: Sequence[str]) -> dict[str, str | None]:
    """Return the names of people by their ids; erased ones are None, unknown ids are absent."""
    return dict(connection.execute(_NAMES, (text_array(people),)).fetchall())


def has_left(person: Person, today: date) -> bool:
    """Say whether a person is no longer there on ``today``, a day of the organisation."""
    return person.left_on is not None and person.left_on <= today


def list_territories(connection: Connection[Any]) -> list[Territory]:
    """Return the territories in the order of their first definition."""
    return [
        Territory(
            territory,
            name,
            parent,
            head,
            frozenset(managers),
            tuple(ForeignId(each["system"], each["value"]) for each in foreign_ids),
        )
        for territory, name, parent, head, managers, foreign_ids in connection.execute(
            _TERRITORIES_LIST
        )
    ]


def territory_tree(connection: Connection[Any]) -> list[TerritoryInTree]:
    """Return the territories as a tree is read: each before those below it, these by name."""
    territories = list_territories(connection)
    known = {each.territory for each in territories}
    below: dict[str | None, list[Territory]] = {}
    for each in sorted(territories, key=lambda territory: territory.name):
        below.setdefault(each.parent if each.parent in known else None, []).append(each)
    tree: list[TerritoryInTree] = []
    waiting = [(each, 0) for each in reversed(below.get(None, []))]
    while waiting:
        territory, depth = waiting.pop()
        tree.append(TerritoryInTree(territory, depth))
        waiting.extend((each, depth + 1) for each in reversed(below.get(territory.territory, [])))
    return tree


def policies(connection: Connection[Any]) -> list[AdoptedPolicy]:
    """Return every policy that was adopted, in order; the last is in force."""
    return [AdoptedPolicy(*row) for row in connection.execute(_POLICIES_LIST)]


def imports(connection: Connection[Any]) -> list[ImportSummary]:
    """Return every import, in the order of opening."""
    return [ImportSummary(*row) for row in connection.execute(_IMPORTS_LIST)]


def organisation(connection: Connection[Any]) -> OrganisationProfile:
    """Return whose ledger it is; days are UTC's before it was founded."""
    row = connection.execute(_PROFILE).fetchone()
    return OrganisationProfile(*row) if row else OrganisationProfile(None, "UTC", 1)


def _candidates(connection: Connection[Any]) -> Iterator[tuple[str, str]]:
    after = ""
    while rows := connection.execute(_CANDIDATES, (after, PAGE)).fetchall():
        for person_id, name in rows:
            yield person_id, person_id
            if name is not None:
                yield person_id, name
        after = rows[-1][0]


def _some(connection: Connection[Any], people: Sequence[str]) -> list[Person]:
    found = {each.person: each for each in _people(connection, _SOME, (text_array(people),))}
    return [found[each] for each in people if each in found]


def _people(connection: Connection[Any], statement: str, parameters: Any) -> list[Person]:
    return [
        Person(
            person_id,
            name,
            territory,
            tuple(roles),
            joined_on,
            left_on,
            phone,
            email,
            tuple(ForeignId(*each) for each in foreign_ids),
            tuple(Absence(*each) for each in absences),
            tuple(Delegation(*each) for each in delegations),
        )
        for (
            person_id,
            name,
            territory,
            roles,
            joined_on,
            left_on,
            phone,
            email,
            foreign_ids,
            absences,
            delegations,
        ) in connection.execute(statement.encode(), parameters, binary=True)
    ]
