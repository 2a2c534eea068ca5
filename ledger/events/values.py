"""The values that stand inside events: instants, money, sealed text, identifiers, contacts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import PlainSerializer

from ledger.canonical import instant

Instant = Annotated[datetime, PlainSerializer(instant, return_type=str)]
"""A moment in UTC; in JSON RFC 3339 with six digits and ``Z``."""

Day = date
"""A calendar day of the organisation's time zone; in JSON ``YYYY-MM-DD``."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount with its ISO 4217 currency; in JSON the amount is a decimal string."""

    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """Text under a subject's key: ``text`` is base64 of nonce (12 bytes), ciphertext and tag."""

    key: str
    text: str


Text = str | Sealed
"""Text that stands in plain for an organisation, and sealed for a natural person."""


@dataclass(frozen=True, slots=True)
class ForeignId:
    """What another system calls the same thing."""

    system: str
    value: str


@dataclass(frozen=True, slots=True)
class Identifier:
    """A unique identifier of a customer, such as a 统一社会信用代码 (system ``uscc``).

    ``key`` is what must be unique within the system: the normalised value of an organisation; of
    an individual ``hmac:`` and a keyed digest, with the value itself in ``sealed``.
    """

    system: str
    key: str
    sealed: Sealed | None = None


@dataclass(frozen=True, slots=True)
class Contact:
    """A person to talk to at a customer, under a key of its own."""

    contact: str
    name: Sealed | None = None
    phone: Sealed | None = None
    email: Sealed | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A place of a customer; its address is sealed under the customer's key."""

    site: str
    name: Text
    address: Sealed | None = None


@dataclass(frozen=True, slots=True)
class Approver:
    """Who has to answer a step of an approval: ``owner``, ``receiver`` or ``person`` name a person,
    ``head`` a territory (None: of no territory, so that administrators answer), ``role`` a role.
    """

    kind: str
    territory: str | None = None
    person: str | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class ApprovalStep:
    """A step of an approval: so many of the approvers must agree."""

    approvers: tuple[Approver, ...]
    needed: int


@dataclass(frozen=True, slots=True)
class Part:
    """What a ruling gives one party: to collaborate, with a percentage of the credit if any."""

    person: str
    share: Decimal | None = None


Attribute = str | int | dict[str, str | list[str] | dict[str, str]]
"""A typed attribute of a customer: text as it is, an integer, or an object with one key that names
the type: ``{"decimal": "1.5"}``, ``{"date": "2026-03-01"}``, ``{"set": ["a", "b"]}`` (sorted),
``{"money": {"amount": "1054.00", "currency": "CNY"}}``."""
