"""What callers send: plain words, checked here, before ids are made and personal data is sealed.

The limits are those of the door; events recorded under older ones stay readable. Every command is
frozen, refuses fields that it does not know, and is validated by pydantic; ``InvalidRequestError``
says in one sentence what is wrong with which field.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from stdnum.cn import uscc
from stdnum.exceptions import ValidationError as NumberError

from ledger.errors import LedgerError

USCC = "uscc"
"""The system name of the 统一社会信用代码 (GB 32100-2015)."""


class InvalidRequestError(LedgerError):
    """A request is malformed; nothing was recorded. ``field`` names the first bad one."""

    code = "invalid_request"

    def __init__(self, field: str, sentence: str) -> None:
        where = f"{field}: " if field else ""
        super().__init__(f"{where}{sentence}", way_out="Correct the field and send it again.")
        self.field = field


class CheckDigitError(LedgerError):
    """A credit code fails its check digit: a warning, which the caller may override."""

    code = "check_digit"

    def __init__(self, value: str) -> None:
        super().__init__(
            f"{value} is not a valid 统一社会信用代码: its check digit or form is wrong.",
            way_out="Correct the code, or send it again with the override check_digit.",
        )


def _no_controls(text: str) -> str:
    # The message must not repeat the character: some terminals would obey it.
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cs"}:
            raise ValueError(f"holds the control character U+{ord(character):04X}")
    return text


def _no_controls_but_lines(text: str) -> str:
    _no_controls(text.replace("\n", "").replace("\t", ""))
    return text


def _ascii(text: str) -> str:
    if not text.isascii():
        raise ValueError("must be ASCII")
    return text


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=300, strip_whitespace=True),
    AfterValidator(_no_controls),
]
Word = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, strip_whitespace=True),
    AfterValidator(_no_controls),
]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
Id = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[!-~]+$")]
Note = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4000, strip_whitespace=True),
    AfterValidator(_no_controls_but_lines),
]
AttributeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,59}$")]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class Command(BaseModel):
    """Base of all commands."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MoneyIn(Command):
    """An amount with its ISO 4217 currency; never a float."""

    amount: Annotated[Decimal, Field(max_digits=20, decimal_places=6, allow_inf_nan=False)]
    currency: Currency


class DecimalIn(Command):
    """A number that is not whole."""

    decimal: Annotated[Decimal, Field(max_digits=30, decimal_places=12, allow_inf_nan=False)]


class DateIn(Command):
    """A calendar day."""

    date: date


class SetIn(Command):
    """A set of words."""

    set: Annotated[tuple[Word, ...], Field(max_length=100)]


class MoneyAttributeIn(Command):
    """A sum of money as an attribute."""

    money: MoneyIn


AttributeIn = (
    Name
    | Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)]
    | (DecimalIn | DateIn | SetIn | MoneyAttributeIn)
)
Attributes = Annotated[dict[AttributeName, AttributeIn], Field(max_length=100)]


class NumberIn(Command):
    """An identifier or foreign id: which system's, and its value there."""

    system: Word
    value: Word


class ContactIn(Command):
    """Somebody to talk to at the customer. ``contact`` names one that exists already."""

    contact: Id | None = None
    name: Name | None = None
    phone: Word | None = None
    email: Word | None = None
    role: Word | None = None


class SiteIn(Command):
    """A place of the customer. ``site`` names one that exists already."""

    site: Id | None = None
    name: Name
    address: Name | None = None


Numbers = Annotated[tuple[NumberIn, ...], Field(max_length=20)]
Contacts = Annotated[tuple[ContactIn, ...], Field(max_length=50)]
Sites = Annotated[tuple[SiteIn, ...], Field(max_length=50)]
Overrides = tuple[Literal["check_digit"], ...]


class RegisterCustomer(Command):
    """Enter a customer, and claim it in the same breath where ``claim_for`` names somebody."""

    name: Name
    kind: Literal["organisation", "individual"] = "organisation"
    identifiers: Numbers = ()
    foreign_ids: Numbers = ()
    parent: Id | None = None
    territory: Id | None = None
    attributes: Attributes = Field(default_factory=dict)
    contacts: Contacts = ()
    sites: Sites = ()
    claim_for: Id | None = None
    opening: bool = False
    overrides: Overrides = ()


class ChangeCustomer(Command):
    """Change a customer: what is given changes, what ``removed`` names goes, the rest stays."""

    customer: Id
    name: Name | None = None
    identifiers: Numbers = ()
    foreign_ids: Numbers = ()
    parent: Id | None = None
    territory: Id | None = None
    attributes: Attributes = Field(default_factory=dict)
    contacts: Contacts = ()
    sites: Sites = ()
    removed: Annotated[
        tuple[
            Annotated[
                str,
                StringConstraints(
                    pattern=r"^(parent|territory|(attribute|contact|site|identifier):[!-~]+)$"
                ),
            ],
            ...,
        ],
        Field(max_length=100),
    ] = ()
    closed: bool | None = None
    overrides: Overrides = ()

    @model_validator(mode="after")
    def _says_something(self) -> ChangeCustomer:
        if self.model_fields_set <= {"customer", "overrides"}:
            raise ValueError("the change changes nothing")
        return self


class FileClaim(Command):
    """Claim a customer for ``claimant``."""

    customer: Id
    claimant: Id
    note: Note | None = None


class ReleaseCustomer(Command):
    """Give a customer back to the pool."""

    customer: Id
    reason_code: Code = "released"
    reason: Note | None = None


class AssignCustomer(Command):
    """Give a free customer to ``assignee``."""

    customer: Id
    assignee: Id
    reason: Note | None = None


class LogFollowUp(Command):
    """Record a follow-up: how, what was agreed, and when next."""

    customer: Id
    person: Id
    channel: Code = "call"
    note: Note | None = None
    agreed: Note | None = None
    next_on: date | None = None
    contact: Id | None = None
    site: Id | None = None
    foreign_ids: Numbers = ()


class RecordDeal(Command):
    """Record a deal won or lost."""

    customer: Id
    person: Id
    outcome: Literal["won", "lost"]
    value: MoneyIn | None = None
    product: Name | None = None
    foreign_ids: Numbers = ()


class CorrectFollowUp(Command):
    """Correct a follow-up; what is not given stays."""

    customer: Id
    follow_up: Id
    reason_code: Code = "corrected"
    reason: Note | None = None
    channel: Code | None = None
    note: Note | None = None
    agreed: Note | None = None
    next_on: date | None = None
    at: AwareDatetime | None = None


class VoidFollowUp(Command):
    """Void a follow-up: it no longer counts."""

    customer: Id
    follow_up: Id
    reason_code: Code = "voided"
    reason: Note | None = None


class CorrectDeal(Command):
    """Correct a deal; what is not given stays."""

    customer: Id
    deal: Id
    reason_code: Code = "corrected"
    reason: Note | None = None
    outcome: Literal["won", "lost"] | None = None
    value: MoneyIn | None = None
    product: Name | None = None


class VoidDeal(Command):
    """Void a deal: it no longer counts."""

    customer: Id
    deal: Id
    reason_code: Code = "voided"
    reason: Note | None = None


class UnparkRequest(Command):
    """Have a parked request decided after all, by a stated version of the decider."""

    customer: Id
    request: Annotated[int, Field(ge=1)]
    decider: Annotated[int, Field(ge=1)]


CustomerCommand = (
    RegisterCustomer
    | ChangeCustomer
    | FileClaim
    | ReleaseCustomer
    | AssignCustomer
    | LogFollowUp
    | RecordDeal
    | CorrectFollowUp
    | VoidFollowUp
    | CorrectDeal
    | VoidDeal
    | UnparkRequest
)

C = TypeVar("C", bound=Command)


def parse(kind: type[C], fields: Mapping[str, Any]) -> C:
    """Return the command that ``fields`` say; raises InvalidRequestError."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidRequestError(field, first["msg"]) from None


def normalised_number(system: str, value: str, overrides: Overrides) -> str:
    """Return the value under which an identifier is unique.

    A credit code is checked by GB 32100-2015; raises CheckDigitError unless overridden.
    """
    text = unicodedata.normalize("NFKC", value).strip()
    if system != USCC:
        return " ".join(text.split())
    compact = text.replace(" ", "").replace("-", "").upper()
    if "check_digit" not in overrides:
        try:
            uscc.validate(compact)
        except NumberError:
            raise CheckDigitError(compact) from None
    return compact


def occurred_within(
    occurred: datetime | None, now: datetime, *, tolerance_seconds: float = 300
) -> datetime | None:
    """Return ``occurred`` as it is; raises InvalidRequestError beyond the tolerance ahead."""
    if occurred is None:
        return None
    if occurred.tzinfo is None:
        raise InvalidRequestError("occurred", "a time needs its zone")
    if (occurred - now).total_seconds() > tolerance_seconds:
        raise InvalidRequestError("occurred", "the time lies in the future")
    return occurred
