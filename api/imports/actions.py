"""What an import asks the ledger to do: plain values, one a request, in the order of filing.

People, customers and territories are named by references: opaque strings that are unique within
one import (``name:`` or ``id:`` and the normalised key by which the files speak of them, or
``ledger:`` and the id of somebody whom the ledger held before). A reference that an action uses
was introduced by an earlier ``AddPerson``, ``RegisterCustomer`` or ``DefineTerritory`` of the same
plan, or is one of the ledger's. ``AddPerson`` and ``DefineTerritory`` of the ledger's add nobody:
they say who manages what.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import ClassVar, Literal, TypeAlias

CustomerKind: TypeAlias = Literal["organisation", "individual"]
DealOutcome: TypeAlias = Literal["won", "lost"]
ReleaseCause: TypeAlias = Literal["last_open_opportunity_closed", "stated"]


@dataclass(frozen=True, slots=True)
class MoneyAmount:
    """An amount of money: ``currency`` is an ISO 4217 code."""

    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class TextAttribute:
    """An attribute that is text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class IntegerAttribute:
    """A whole number within +-(2^53 - 1)."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class DecimalAttribute:
    """A decimal number, exactly as the file states it."""

    name: str
    value: Decimal


@dataclass(frozen=True, slots=True)
class MoneyAttribute:
    """An amount of money."""

    name: str
    value: MoneyAmount


@dataclass(frozen=True, slots=True)
class DateAttribute:
    """A calendar day, without a zone."""

    name: str
    value: date


@dataclass(frozen=True, slots=True)
class SetAttribute:
    """A set of texts, sorted, each once."""

    name: str
    value: tuple[str, ...]


Attribute: TypeAlias = (
    TextAttribute
    | IntegerAttribute
    | DecimalAttribute
    | MoneyAttribute
    | DateAttribute
    | SetAttribute
)


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody to talk to at a customer; at least one of the three is stated."""

    name: str | None = None
    phone: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Action:
    """What all actions state.

    ``key`` is unique within the mapping's ``name`` and the same at every import of the same
    row: request ids derive from it. ``file`` and ``row`` say where it comes from, the row
    counted as a spreadsheet shows it (the header of a plain file is row 1). ``at`` is UTC: when
    it happened. It is None for facts, which hold from the import's beginning on, and for the
    opening balance, which holds from the mapping's cut-over on.
    """

    kind: ClassVar[str]

    key: str
    file: str
    row: int
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DefineTerritory(_Action):
    """A territory; its ``parent`` is defined earlier. Its managers are said by AddPerson."""

    kind = "define_territory"

    territory: str
    name: str
    parent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPerson(_Action):
    """A person of the organisation.

    ``territory`` is the home territory. ``heads`` are the territories of which the person is
    the head, ``manages`` those that the person manages without being the head. ``foreign_id``
    is the id by which the files know the person.
    """

    kind = "add_person"

    person: str
    name: str
    territory: str | None = None
    roles: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    manages: tuple[str, ...] = ()
    phone: str | None = None
    email: str | None = None
    foreign_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterCustomer(_Action):
    """A customer, without a claim on it.

    ``customer_kind`` is what the file says. ``parent`` is a customer registered earlier,
    ``territory`` one named explicitly. ``opening_balance`` says that the customer is known
    from a list without dates only, so that nothing is known of it before the cut-over.
    """

    kind = "register_customer"

    customer: str
    name: str
    customer_kind: CustomerKind = "organisation"
    identifiers: tuple[tuple[str, str], ...] = ()
    foreign_id: str | None = None
    parent: str | None = None
    territory: str | None = None
    attributes: tuple[Attribute, ...] = ()
    contacts: tuple[Contact, ...] = ()
    opening_balance: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileClaim(_Action):
    """The person claims the customer."""

    kind = "file_claim"

    person: str
    customer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRelease(_Action):
    """The person gives the customer back, if the person owns it: the files cannot know."""

    kind = "file_release"

    person: str
    customer: str
    cause: ReleaseCause


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDeal(_Action):
    """A deal won or lost; ``value`` is None where the mapping names no column for it."""

    kind = "record_deal"

    person: str
    customer: str
    outcome: DealOutcome
    value: MoneyAmount | None = None
    product: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFollowUp(_Action):
    """A follow-up: how, what was agreed, and the day of the next one."""

    kind = "log_follow_up"

    person: str
    customer: str
    method: str | None = None
    agreed: str | None = None
    next_date: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWithOwner(_Action):
    """The opening balance: at the cut-over the person owns the customer."""

    kind = "open_with_owner"

    person: str
    customer: str


Action: TypeAlias = (
    DefineTerritory
    | AddPerson
    | RegisterCustomer
    | FileClaim
    | FileRelease
    | RecordDeal
    | LogFollowUp
    | OpenWithOwner
)

# In the order of filing: facts, the opening balance, acts.
ACTION_KINDS = (
    "define_territory",
    "add_person",
    "register_customer",
    "open_with_owner",
    "file_claim",
    "file_release",
    "record_deal",
    "log_follow_up",
)
