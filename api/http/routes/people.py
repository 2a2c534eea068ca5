"""People: who is there, where, in which roles, and what they hold; who comes, changes, leaves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from psycopg import Connection
from pydantic import Field, model_validator

from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, CursorError, Limit, make_cursor, page_of, read_cursor
from api.http.inputs import Day, Moment, PersonId, Text
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InReads, InServices
from api.http.shapes import ForeignId, Page, Shape
from api.http.sight import note_access, seen_people
from api.http.writing import (
    STATED,
    InWrites,
    Stated,
    Writes,
    fact,
    reflected_etag,
)
from ledger import commands
from ledger import organisation_commands as facts
from ledger.commands import Id, InvalidRequestError, parse
from projections import holdings, intervals
from projections import people as views

router = APIRouter(prefix="/v1/people", tags=["people"])
_PERSONAL = ("phone", "email")


class Absence(Shape):
    """Away from ``from_day`` until the day before ``until_day``."""

    from_day: date
    until_day: date


class Delegation(Absence):
    """``delegate`` acts for the person from ``from_day`` until the day before ``until_day``."""

    delegate: str


class Person(Shape):
    """A person as the organisation has them; days are the organisation's.

    ``left_on`` is the first day on which the person is no longer there. A ``name`` of None was
    erased. ``masked`` says that phone and e-mail are left out for this caller. ``near``: the text
    that was looked for names nobody, and this is somebody of a similar name.
    """

    person: str
    name: str | None
    territory: str | None
    roles: list[str]
    joined_on: date | None
    left_on: date | None
    phone: str | None
    email: str | None
    foreign_ids: list[ForeignId]
    absences: list[Absence]
    delegations: list[Delegation]
    masked: bool = False
    near: bool = False


class Workload(Shape):
    """What a person holds, and did lately; days are the organisation's, today among them."""

    held: int
    held_won: int = Field(description="Customers held that have a won deal.")
    grants_today: int
    grants_7_days: int
    follow_ups_7_days: int
    follow_ups_30_days: int
    last_activity: datetime | None


class PersonDetails(Person):
    """A person with what they manage, and their workload (None: it is not for this caller)."""

    manages: list[str] = Field(description="Territories, those that they head included.")
    heads: list[str]
    workload: Workload | None


class Holding(Shape):
    """An ownership of a customer, and how it began and ended.

    ``begun_by`` is ``granted`` (a claim), ``opening`` (of a balance), ``assigned`` (by
    ``assigned_by``), ``transferred``, ``handed_over`` or ``ruled``; ``ended_by`` is ``released``
    (for ``end_reason``), ``recycled``, or, to ``next_owner``, one of the last three.
    """

    customer: str
    since: datetime
    until: datetime | None
    since_position: int
    until_position: int | None
    begun_by: str
    assigned_by: str | None
    ended_by: str | None
    end_reason: str | None
    next_owner: str | None


class PersonJoins(commands.Command):
    """Somebody who joins."""

    name: commands.Name
    territory: Id | None = None
    roles: Annotated[tuple[facts.Role, ...], Field(max_length=5)] = ("rep",)
    joined_on: Day | None = None
    foreign_ids: commands.Numbers = ()
    phone: commands.Word | None = None
    email: commands.Word | None = None


class PersonAsIs(commands.Command):
    """Home and roles from now on, both as a whole; a name that is not given stays."""

    territory: Id | None
    roles: Annotated[tuple[facts.Role, ...], Field(max_length=5)]
    name: commands.Name | None = None


class Leaves(commands.Command):
    """``left_on`` is the first day on which the person is no longer there."""

    left_on: Day


class Returns(commands.Command):
    """``returned_on`` is the first day on which the person is there again."""

    returned_on: Day


class Back(commands.Command):
    """``back_on`` is the first day on which the person is there again."""

    back_on: Day


class DelegationEnds(commands.Command):
    """``ended_on`` is the first day on which nobody acts any more."""

    ended_on: Day


class Period(commands.Command):
    """From ``from_day`` until the day before ``until_day``."""

    from_day: Day
    until_day: Day

    @model_validator(mode="after")
    def _has_days(self) -> Period:
        if self.until_day <= self.from_day:
            raise ValueError("until_day must lie behind from_day")
        return self


class Delegate(Period):
    """Who acts in that time."""

    delegate: Id


# --- reading -----------------------------------------------------------------------------------


@router.get("")
def list_people(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    reads: InReads,
    text: Annotated[
        Text, Query(description="An id, a whole name or a foreign id; else who is near is listed.")
    ] = "",
    territory: Annotated[Id | None, Query(description="Only those at home there.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Person]:
    """List people, also those who left, in the order of joining; or find some by ``text``."""
    with services.reading(reads) as connection:
        if text.strip():
            found, near, following = _found(connection, text, territory, limit, cursor)
        else:
            found, following = _listed(connection, territory, limit, cursor)
            near = False
        visible = _visible(connection, caller, request, found)
    return Page(items=[_shape(each, visible, near=near) for each in found], next=following)


def _listed(
    connection: Connection[Any], territory: str | None, limit: int, cursor: str | None
) -> tuple[Sequence[views.Person], str | None]:
    after = read_cursor(cursor, "people", str)
    if after and views.person(connection, after[0]) is None:
        raise CursorError
    found = views.list_people(
        connection, territory=territory, after=after[0] if after else None, limit=limit + 1
    )
    return page_of(found, limit, lambda each: make_cursor("people", each.person))


def _found(
    connection: Connection[Any], text: str, territory: str | None, limit: int, cursor: str | None
) -> tuple[Sequence[views.Person], bool, str | None]:
    """Return who is found, whether they are only near, and the cursor behind them."""
    after = read_cursor(cursor, "people-found", str)
    found = views.find_people(connection, text)
    wanted = [
        each
        for each in found.exact or found.near
        if territory is None or each.territory == territory
    ]
    if found.exact and after:
        wanted = [each for each in wanted if each.person > after[0]]
    page, following = page_of(wanted, limit, lambda each: make_cursor("people-found", each.person))
    return page, not found.exact, following if found.exact else None


@router.get("/{person}")
def get_person(
    person: PersonId,
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    reads: InReads,
) -> PersonDetails:
    """Return a person, what they manage, and their workload; the ETag is for a change of them.

    The workload is for oneself and for whoever may read figures.
    """
    with services.reading(reads) as connection:
        found = views.person(connection, person)
        if found is None:
            raise NotFoundError("person", person)
        reads.response.headers["ETag"] = reflected_etag(connection, reads)
        visible = _visible(connection, caller, request, [found])
        workload = _workload(connection, caller, found)
        runs = [each for each in views.list_territories(connection) if person in each.managers]
    return PersonDetails(
        **_shape(found, visible).model_dump(),
        manages=[each.territory for each in runs],
        heads=[each.territory for each in runs if each.head == person],
        workload=workload,
    )


def _workload(connection: Connection[Any], caller: Caller, person: views.Person) -> Workload | None:
    may = caller.may(Permission.READ_FIGURES) and caller.within(person.territory)
    if not may and caller.person != person.person:
        return None
    found = holdings.workloads(connection, [person.person])
    if not found:
        return Workload(
            held=0,
            held_won=0,
            grants_today=0,
            grants_7_days=0,
            follow_ups_7_days=0,
            follow_ups_30_days=0,
            last_activity=None,
        )
    return Workload.model_validate(found[0])


@router.get("/{person}/holdings")
def list_holdings(
    person: PersonId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    as_of: Annotated[Moment | None, Query(description="What they held at that moment.")] = None,
    history: Annotated[
        bool,
        Query(description="All that they ever held; with ``as_of`` all that had begun by then."),
    ] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Holding]:
    """List what somebody holds, from the newest back; or held at a moment, or ever held."""
    if as_of is not None or history:
        caller.require(Permission.READ_HISTORY)
    position = read_cursor(cursor, "holdings", int)
    with services.reading(reads) as connection:
        if views.person(connection, person) is None:
            raise NotFoundError("person", person)
        before = intervals.begun_at(connection, person, position[0]) if position else None
        if position and before is None:
            raise CursorError
        found = intervals.held_by(
            connection, person, every=history, as_of=as_of, before=before, limit=limit + 1
        )
    shown, following = page_of(
        found, limit, lambda each: make_cursor("holdings", each.from_position)
    )
    return Page(items=[_holding(each) for each in shown], next=following)


def _holding(each: intervals.Interval) -> Holding:
    return Holding(
        customer=each.customer,
        since=each.from_effective,
        until=each.to_effective,
        since_position=each.from_position,
        until_position=each.to_position,
        begun_by=each.begun_by,
        assigned_by=each.assigned_by,
        ended_by=each.ended_by,
        end_reason=each.end_reason,
        next_owner=each.next_owner,
    )


def _visible(
    connection: Connection[Any],
    caller: Caller,
    request: Request,
    found: Sequence[views.Person],
) -> frozenset[str]:
    """Return whose phone and e-mail the caller sees, and note that they are seen."""
    visible = seen_people(caller, found)
    shown = [each.person for each in found if each.person in visible and (each.phone or each.email)]
    note_access(connection, caller, request.scope["route"].path, shown, _PERSONAL)
    return visible


def _shape(each: views.Person, visible: frozenset[str], *, near: bool = False) -> Person:
    masked = each.person not in visible
    return Person(
        person=each.person,
        name=each.name,
        territory=each.territory,
        roles=list(each.roles),
        joined_on=each.joined_on,
        left_on=each.left_on,
        phone=None if masked else each.phone,
        email=None if masked else each.email,
        foreign_ids=[ForeignId.model_validate(one) for one in each.foreign_ids],
        absences=[Absence.model_validate(one) for one in each.absences],
        delegations=[Delegation.model_validate(one) for one in each.delegations],
        masked=masked,
        near=near,
    )


# --- writing -----------------------------------------------------------------------------------


@router.post("", status_code=201, responses=STATED)
async def add_person(
    joins: PersonJoins,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Add somebody. Where four eyes are required everybody begins as a rep."""
    caller.must_be_within(joins.territory)
    command = parse(facts.AddPerson, joins.model_dump(exclude_unset=True))
    answer = await fact(services, caller, writes, command)
    writes.response.headers["Location"] = f"/v1/people/{answer.about}"
    return answer


@router.put("/{person}", status_code=201, responses=STATED)
async def change_person(
    person: PersonId,
    as_is: PersonAsIs,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Say where somebody is at home and in which roles from now on.

    Where four eyes are required, other roles are proposed (202), for somebody else to adopt.
    """
    caller.must_be_within(as_is.territory)
    fields = as_is.model_dump(exclude_unset=True) | {"person": person}
    return await _about(person, facts.ChangePerson, fields, services, caller, writes)


@router.post("/{person}/left", status_code=201, responses=STATED)
async def person_left(
    person: PersonId,
    leaves: Leaves,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Say that somebody left, or will; the customers stay, orphaned, until they are handed over."""
    fields = {"person": person, "left_on": leaves.left_on}
    return await _about(person, facts.MarkLeft, fields, services, caller, writes)


@router.post("/{person}/returned", status_code=201, responses=STATED)
async def person_returned(
    person: PersonId,
    returns: Returns,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Say that somebody who had left is there again."""
    fields = {"person": person, "returned_on": returns.returned_on}
    return await _about(person, facts.MarkReturned, fields, services, caller, writes)


@router.post("/{person}/absences", status_code=201, responses=STATED)
async def person_away(
    person: PersonId,
    away: Period,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Say that somebody is away for a time; the customers stay theirs."""
    fields = away.model_dump() | {"person": person}
    return await _about(person, facts.MarkAway, fields, services, caller, writes)


@router.post("/{person}/absences/end", status_code=201, responses=STATED)
async def person_back(
    person: PersonId,
    back: Back,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Say that somebody is back before the day that was said, or is not away after all."""
    fields = back.model_dump() | {"person": person}
    return await _about(person, facts.EndAbsence, fields, services, caller, writes)


@router.post("/{person}/delegates", status_code=201, responses=STATED)
async def name_delegate(
    person: PersonId,
    delegate: Delegate,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Say who acts for somebody for a time; it ends by itself."""
    if delegate.delegate == person:
        raise InvalidRequestError("delegate", "nobody is their own delegate")
    fields = delegate.model_dump() | {"person": person}
    return await _about(person, facts.NameDelegate, fields, services, caller, writes)


@router.post("/{person}/delegates/end", status_code=201, responses=STATED)
async def end_delegate(
    person: PersonId,
    ends: DelegationEnds,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Say that nobody acts for somebody any more, before the day that was said."""
    fields = ends.model_dump() | {"person": person}
    return await _about(person, facts.EndDelegation, fields, services, caller, writes)


async def _about(
    person: str,
    kind: type[Any],
    fields: dict[str, Any],
    services: InServices,
    caller: Caller,
    writes: Writes,
) -> Stated:
    """State a fact about a person, within the territories to which the caller is bound."""
    known = caller.organisation.person(person)
    if known is not None:
        caller.must_be_within(known.territory)
    command = parse(kind, fields)
    return await fact(services, caller, writes, command)
