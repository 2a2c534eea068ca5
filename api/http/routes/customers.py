"""Customers: entering, changing, finding them, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from psycopg import Connection
from pydantic import AwareDatetime, Field

from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.lookup import must_exist
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InReads, InServices
from api.http.shapes import MISSING, Outcome, Page, Shape
from api.http.sight import note_access, searchable, seen
from api.http.writing import (
    InKeyed,
    InWrites,
    asked_for,
    etag,
    show_version,
)
from ledger import commands
from ledger.commands import Flag, Id
from projections import customers, intervals
from projections.whois import Whose, whose, whose_by_version

router = APIRouter(prefix="/v1/customers", tags=["customers"])
CustomerId = Annotated[Id, Path(description="The customer's id.")]
# Of an organisation the name says whose it is; of a natural person it is personal.
_PERSONAL = ("contacts", "name", "identifiers", "sites")


class Ownership(Shape):
    """Whose a customer is, for everybody who may be about to call it.

    ``state`` is ``owned``, ``free``, or ``unknown`` (before the customer was known). Of the present
    it also says until when the owner is protected, when the customer was followed up last, and how
    many claims of it are not decided yet or await approval.
    """

    customer: str
    state: Literal["owned", "free", "unknown"]
    owner: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    owner_territory: str | None = None
    territory: str | None = None
    protected_until: datetime | None = None
    last_follow_up: datetime | None = None
    open_claims: int | None = None


class Number(Shape):
    """An identifier or foreign id: which system's, and its value there."""

    system: str
    value: str | None


class Contact(Shape):
    """Somebody to talk to."""

    contact: str
    name: str | None
    phone: str | None
    email: str | None
    role: str | None


class Site(Shape):
    """A place of the customer."""

    site: str
    name: str | None
    address: str | None


class Customer(Shape):
    """A customer as it stands. ``name`` and numbers of an individual are personal.

    ``state`` is ``pending``, ``admitted``, ``refused`` (for ``reason``; ``existing`` is meant
    instead) or ``closed``. ``masked`` says that personal fields are left out for this caller.
    """

    customer: str
    kind: str
    name: str | None
    state: str
    reason: str | None
    existing: str | None
    parent: str | None
    territory: str | None
    attributes: dict[str, Any]
    registered_at: datetime
    admitted_at: datetime | None
    ownership: Ownership | None = None
    masked: bool = False


class CustomerDetails(Customer):
    """A customer with all that belongs to it; contacts and sites are seen within one's scope."""

    identifiers: list[Number]
    foreign_ids: list[Number]
    contacts: list[Contact] | None
    sites: list[Site] | None


class CustomerChange(commands.Command):
    """What changes: what is given, what ``removed`` names goes, the rest stays."""

    name: commands.Name | None = None
    identifiers: commands.Numbers = ()
    foreign_ids: commands.Numbers = ()
    parent: Id | None = None
    territory: Id | None = None
    attributes: commands.Attributes = Field(default_factory=dict)
    contacts: commands.Contacts = ()
    sites: commands.Sites = ()
    removed: tuple[str, ...] = ()
    closed: Flag | None = None
    overrides: commands.Overrides = ()


# --- writing -----------------------------------------------------------------------------------


@router.post(
    "", status_code=202, responses={201: {"model": Outcome}}, operation_id="register_customer"
)
async def register(
    customer: commands.RegisterCustomer,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_CUSTOMERS)],
    writes: InKeyed,
) -> Outcome:
    """Enter a customer; ``claim_for`` claims it in the same breath, before anybody else can."""
    fields = customer.model_dump(exclude_unset=True)
    return await asked_for(services, caller, writes, commands.RegisterCustomer, fields)


@router.patch(
    "/{customer}",
    status_code=202,
    responses={201: {"model": Outcome}},
    operation_id="change_customer",
)
async def change(
    customer: CustomerId,
    changes: CustomerChange,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_CUSTOMERS)],
    writes: InWrites,
) -> Outcome:
    """Change a customer; with ``If-Match`` only if nothing was asked about it since (else 412)."""
    fields = changes.model_dump(exclude_unset=True) | {"customer": customer}
    return await asked_for(services, caller, writes, commands.ChangeCustomer, fields)


# --- reading -----------------------------------------------------------------------------------


@router.get("", operation_id="search_customers")
def search(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    text: Annotated[
        str, Query(max_length=300, description="A name or part of one, a number, or a phone.")
    ] = "",
    state: Literal["pending", "admitted", "refused", "closed"] | None = None,
    territory: Id | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Customer]:
    """Find customers, each with whose it is; without ``text`` all of them, by id.

    Where the caller does not see all that is personal, a part of a phone, or of the name or
    identifier of an individual, finds only the caller's own customers; others the whole finds.
    """
    after = read_cursor(cursor, "customers", str)
    with services.reading(reads) as connection:
        found = customers.search(
            connection,
            text.replace("\0", ""),
            state=state,
            territory=territory,
            limit=limit + 1,
            after=after[0] if after else None,
            personal_of=searchable(caller),
        )
        shown, following = page_of(
            found, limit, lambda each: make_cursor("customers", each.customer)
        )
        items = _shown(connection, caller, request, shown)
    return Page(items=items, next=following)


@router.get("/{customer}", responses=MISSING)
def get_customer(
    customer: CustomerId,
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
) -> CustomerDetails:
    """Return a customer with all that belongs to it; the ETag is for a change of it."""
    with services.reading(reads) as connection:
        found = customers.customer(connection, customer)
        if found is None:
            raise NotFoundError("customer", customer)
        (summary,) = _shown(connection, caller, request, [found.customer], whole=True)
        show_version(connection, reads, customer)
    is_hidden = summary.masked and summary.kind == "individual"
    return CustomerDetails(
        **summary.model_dump(exclude={"ownership"}),
        ownership=summary.ownership,
        identifiers=[
            Number(system=each.system, value=None if is_hidden else each.value)
            for each in found.identifiers
        ],
        foreign_ids=[Number.model_validate(each) for each in found.foreign_ids],
        contacts=None if summary.masked else [Contact.model_validate(c) for c in found.contacts],
        sites=None if summary.masked else [Site.model_validate(each) for each in found.sites],
    )


@router.get("/{customer}/ownership", responses=MISSING)
def whois(
    customer: CustomerId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    as_of: Annotated[AwareDatetime | None, Query(description="Whose it was at a moment.")] = None,
    known_at: Annotated[
        AwareDatetime | None, Query(description="… as the ledger knew it at another.")
    ] = None,
) -> Ownership:
    """Say whose a customer is, or was at ``as_of``, as it was known at ``known_at``.

    Of the present the ETag is for what is asked about the customer, such as a claim or a release.
    """
    with services.reading(reads) as connection:
        if as_of is not None or known_at is not None:
            must_exist(connection, customer)
            moment = as_of or known_at or datetime.now(UTC)
            return owned_at(customer, intervals.owner_at(connection, customer, moment, known_at))
        found = whose_by_version(connection, customer, reads.reached)
        if found is None:
            raise NotFoundError("customer", customer)
        now, version = found
        reads.response.headers["ETag"] = etag(version)
        return owned_now(now)


def owned_now(now: Whose) -> Ownership:
    """Return the shape of whose a customer is."""
    return Ownership(
        customer=now.customer,
        state="owned" if now.owner else "free",
        owner=now.owner,
        since=now.since,
        owner_territory=now.owner_territory,
        territory=now.territory,
        protected_until=now.protected_until,
        last_follow_up=now.last_follow_up,
        open_claims=now.open_claims,
    )


def owned_at(customer: str, state: intervals.State) -> Ownership:
    """Return the shape of whose a customer was at a moment."""
    match state:
        case intervals.Owned():
            return Ownership(
                customer=customer,
                state="owned",
                owner=state.owner,
                since=state.since,
                until=state.until,
            )
        case intervals.Free():
            return Ownership(customer=customer, state="free", since=state.since)
        case _:
            return Ownership(customer=customer, state="unknown")


class _Placed:
    """Where a customer lies, for what may be seen of it."""

    def __init__(self, each: customers.Customer, owner: str | None) -> None:
        self.customer, self.owner, self.territory = each.customer, owner, each.territory


def _shown(
    connection: Connection[Any],
    caller: Caller,
    request: Request,
    found: Sequence[customers.Customer],
    *,
    whole: bool = False,
) -> list[Customer]:
    """Return customers as the caller may see them, with whose they are."""
    owned = whose(connection, [each.customer for each in found])
    placed = [
        _Placed(each, owned[each.customer].owner if each.customer in owned else None)
        for each in found
    ]
    visible = seen(connection, caller, placed)
    route = request.scope["route"].path
    individuals = [each.customer for each in found if each.kind == "individual"]
    shown = visible if whole else visible.intersection(individuals)
    note_access(connection, caller, route, shown, _PERSONAL if whole else ("name",))
    return [_as_seen(each, owned, visible) for each in found]


def _as_seen(
    each: customers.Customer, owned: Mapping[str, Whose], visible: frozenset[str]
) -> Customer:
    masked = each.customer not in visible
    hides_name = masked and each.kind == "individual"
    now = owned.get(each.customer)
    return Customer(
        customer=each.customer,
        kind=each.kind,
        name=None if hides_name else each.name,
        state=each.state,
        reason=each.reason,
        existing=each.existing,
        parent=each.parent,
        territory=each.territory,
        attributes=dict(each.attributes),
        registered_at=each.registered_at,
        admitted_at=each.admitted_at,
        ownership=owned_now(now) if now else None,
        masked=masked,
    )
