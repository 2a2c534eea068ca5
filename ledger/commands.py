"""What callers send: plain words, checked here, before ids are made and personal data is sealed.

The limits are those of the door; events recorded under older ones stay readable. Every command is
frozen, refuses fields that it does not know, and is validated by pydantic; ``InvalidRequestError``
says in one sentence what is wrong with which field.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)
from stdnum.cn import uscc
from stdnum.exceptions import ValidationError as NumberError

from ledger.conditions import Condition
from ledger.errors import LedgerError

USCC = "uscc"
"""The system name of the 统一社会信用代码 (GB 32100-2015)."""

EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
# A day has a first moment in UTC in every zone, and what is counted from it ends in the calendar.
DAY_MIN, DAY_MAX = date(1900, 1, 1), date(9000, 12, 31)
YEARS = "^(19[0-9]{2}|[2-9][0-9]{3})-"
"""Of what years a day or moment may be, as a pattern for whoever reads the schema."""
_DAY_PATTERN = r"^(19[0-9]{2}|[2-8][0-9]{3})-[0-9]{2}-[0-9]{2}$"
# Folding a character may bring many; the keys of unique values must fit into an index.
NUMBER_CHARACTERS_MAX = 200
RECEIVERS_MAX = 50
# As many as an entry of the log has room for.
LISTED_CUSTOMERS_MAX = 1_000
_SHOWN_MAX = 60


class InvalidRequestError(LedgerError):
    """A request is malformed; nothing was recorded. ``field`` names the first bad one."""

    code = "invalid_request"

    def __init__(self, field: str, sentence: str) -> None:
        where = f"{field}: " if field else ""
        super().__init__(f"{where}{sentence}", way_out="Correct the field and send it again.")
        self.field = field


class UnknownIdError(LedgerError):
    """A request names a customer, person, territory or import that does not exist."""

    code = "unknown_id"

    def __init__(self, what: str, unknown: str) -> None:
        super().__init__(
            f"There is no {what} {unknown}.", way_out=f"Look the {what} up and use its id."
        )
        self.what = what
        self.unknown = unknown


class CheckDigitError(LedgerError):
    """A credit code fails its check digit: a warning, which the caller may override."""

    code = "check_digit"

    def __init__(self, value: str) -> None:
        super().__init__(
            f"{value} is not a valid 统一社会信用代码: its check digit or form is wrong.",
            way_out="Correct the code, or send it again with the override check_digit.",
        )


# What the validators refuse, for whoever reads the schema: JSON has no words for it but a pattern.
_CONTROLS = r"\x00-\x1f\x7f-\x9f"
_CONTROLS_BUT_LINES = r"\x00-\x08\x0b-\x1f\x7f-\x9f"


def _line_without(characters: str) -> str:
    """Return the pattern of a text that says something, and has none of these characters."""
    return f"^[^{characters}]*[^\\s{characters}][^{characters}]*$"


def _day_as_written(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("is no day such as 2026-03-01")
    if isinstance(value, int | float):
        raise ValueError("is a number, and no day such as 2026-03-01")
    return value


def _moment_as_written(value: Any) -> Any:
    if isinstance(value, str) and not re.match(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:", value):
        raise ValueError("is no moment such as 2026-03-01T09:30:00Z")
    if isinstance(value, int | float):
        raise ValueError("is a number, and no moment such as 2026-03-01T09:30:00Z")
    return value


def _no_controls(text: str) -> str:
    # The message must not repeat the character: some terminals would obey it.
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cs"}:
            raise ValueError(f"holds the control character U+{ord(character):04X}")
    return text


def _no_controls_but_lines(text: str) -> str:
    # Forms in a browser and files of Windows end their lines like this.
    lines = text.replace("\r\n", "\n")
    _no_controls(lines.replace("\n", "").replace("\t", ""))
    return lines


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=300, strip_whitespace=True),
    AfterValidator(_no_controls),
    Field(json_schema_extra={"pattern": _line_without(_CONTROLS)}),
]
Word = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, strip_whitespace=True),
    AfterValidator(_no_controls),
    Field(json_schema_extra={"pattern": _line_without(_CONTROLS)}),
]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
Id = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[!-~]+$")]
Note = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4000, strip_whitespace=True),
    AfterValidator(_no_controls_but_lines),
    Field(json_schema_extra={"pattern": _line_without(_CONTROLS_BUT_LINES)}),
]
AttributeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,59}$")]
# Also of what is written down as JSON pydantic would take 1 and "true" as a truth, a number as a
# moment, and a moment as a day: what somebody sent by mistake would be recorded for ever.
Flag = Annotated[bool, Strict()]
AnyDay = Annotated[date, BeforeValidator(_day_as_written)]
Day = Annotated[
    date,
    Field(ge=DAY_MIN, le=DAY_MAX, json_schema_extra={"pattern": _DAY_PATTERN}),
    BeforeValidator(_day_as_written),
]
Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_moment_as_written),
    Field(json_schema_extra={"pattern": YEARS}),
]
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

    date: AnyDay


class SetIn(Command):
    """A set of words."""

    set: Annotated[tuple[Word, ...], Field(max_length=100)]


class MoneyAttributeIn(Command):
    """A sum of money as an attribute."""

    money: MoneyIn


def _attribute_kind(value: Any) -> str | None:
    match value:
        case bool():
            return None
        case str():
            return "text"
        case int():
            return "integer"
        case DecimalIn() | DateIn() | SetIn():
            return type(value).__name__.removesuffix("In").lower()
        case MoneyAttributeIn():
            return "money"
        case {"decimal": _} | {"date": _} | {"set": _} | {"money": _}:
            return next(key for key in ("decimal", "date", "set", "money") if key in value)
        case _:
            return None


AttributeIn = Annotated[
    Annotated[Name, Tag("text")]
    | Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1), Tag("integer")]
    | Annotated[DecimalIn, Tag("decimal")]
    | Annotated[DateIn, Tag("date")]
    | Annotated[SetIn, Tag("set")]
    | Annotated[MoneyAttributeIn, Tag("money")],
    # By its form, so that an error speaks of what was meant and not of every other kind.
    Discriminator(
        _attribute_kind,
        custom_error_type="attribute_kind",
        custom_error_message="is neither text, nor a whole number, nor an object such as"
        ' {"decimal": "1.5"} or one with date, set or money',
    ),
]
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
    opening: Flag = False
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
                    pattern=r"^(parent|territory|(attribute|contact|site):[!-~]+|identifier:.+)$",
                    max_length=120,
                ),
                AfterValidator(_no_controls),
            ],
            ...,
        ],
        Field(max_length=100),
    ] = ()
    closed: Flag | None = None
    overrides: Overrides = ()

    @model_validator(mode="after")
    def _says_something(self) -> ChangeCustomer:
        said = self.model_dump(exclude={"customer", "overrides"}, exclude_defaults=True)
        if not said:
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


class RequestTransfer(Command):
    """Ask that ``receiver`` becomes the owner; ``value`` is of the deal at stake.

    ``collaborators`` says whether they stay (as they do where nothing is said) or end with it.
    """

    customer: Id
    receiver: Id
    reason_code: Code = "transfer"
    reason: Note | None = None
    value: MoneyIn | None = None
    collaborators: Literal["keep", "end"] | None = None


class WithdrawTransfer(Command):
    """No longer ask for a transfer, or for a release that awaits approval."""

    customer: Id
    approval: Id
    reason_code: Code = "withdrawn"
    reason: Note | None = None


class Approve(Command):
    """Agree to what awaits approval."""

    customer: Id
    approval: Id
    comment: Note | None = None


class Refuse(Command):
    """Do not agree to what awaits approval."""

    customer: Id
    approval: Id
    reason_code: Code = "refused"
    comment: Note | None = None


class RequestCollaboration(Command):
    """Let ``person`` work on the customer beside its owner, or ask for it.

    ``share`` is a percentage of the credit. It holds from ``from_day`` (by default at once) until
    the day before ``until_day``.
    """

    customer: Id
    person: Id
    role: Code = "collaborator"
    share: Annotated[Decimal, Field(gt=0, le=100, max_digits=5, decimal_places=2)] | None = None
    from_day: Day | None = None
    until_day: Day | None = None
    site: Id | None = None
    reason_code: Code = "collaboration"
    reason: Note | None = None

    @model_validator(mode="after")
    def _lasts(self) -> RequestCollaboration:
        if self.from_day and self.until_day and self.until_day <= self.from_day:
            raise ValueError("the period ends before it begins")
        return self


class EndCollaboration(Command):
    """End a collaboration."""

    customer: Id
    collaboration: Id
    reason_code: Code = "ended"
    reason: Note | None = None


class PartIn(Command):
    """What a ruling gives one party: a percentage of the credit, if any."""

    person: Id
    share: Annotated[Decimal, Field(gt=0, le=100, max_digits=5, decimal_places=2)] | None = None


class Rule(Command):
    """Rule on a conflict: keep the owner, award it to a party, split it, allow it, dismiss it."""

    customer: Id
    conflict: Id
    ruling: Literal["keep", "award", "split", "allow", "dismiss"]
    receiver: Id | None = None
    parts: Annotated[tuple[PartIn, ...], Field(max_length=20)] = ()
    reason_code: Code = "ruled"
    reason: Note | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Rule:
        if (self.ruling == "award") != (self.receiver is not None):
            raise ValueError("a receiver is named for the ruling award, and for no other")
        if (self.ruling == "split") != bool(self.parts):
            raise ValueError("parts are named for the ruling split, and for no other")
        if len({each.person for each in self.parts}) != len(self.parts):
            raise ValueError("a person is named twice")
        return self


class LogFollowUp(Command):
    """Record a follow-up: how, what was agreed, and when next."""

    customer: Id
    person: Id
    channel: Code = "call"
    note: Note | None = None
    agreed: Note | None = None
    next_on: Day | None = None
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
    next_on: Day | None = None
    at: Moment | None = None


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


class HoldRecycling(Command):
    """Have a customer not recycled until the day before ``until``."""

    customer: Id
    until: Day
    reason_code: Code = "held"
    reason: Note | None = None


class ReviewGroup(Command):
    """Have the conflict opened of the group that a customer is in, where nobody was told of it."""

    customer: Id


class HandOver(Command):
    """Order that what ``giver`` holds goes to ``receivers``: all of it, or some customers.

    Either ``customers`` names these, or ``territories`` and ``conditions`` choose them.
    """

    giver: Id
    receivers: Annotated[tuple[Id, ...], Field(min_length=1, max_length=RECEIVERS_MAX)]
    plan: Literal["all_to_one", "spread"] = "all_to_one"
    customers: Annotated[tuple[Id, ...], Field(max_length=LISTED_CUSTOMERS_MAX)] = ()
    territories: Annotated[tuple[Id, ...], Field(max_length=100)] = ()
    conditions: Annotated[tuple[Condition, ...], Field(max_length=20)] = ()
    collaborators: Literal["keep", "end"] | None = None
    collaborations: Literal["end", "give"] | None = None
    reason_code: Code = "hand_over"
    reason: Note | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> HandOver:
        if self.plan == "all_to_one" and len(self.receivers) != 1:
            raise ValueError("the plan all_to_one takes one receiver; spread takes several")
        if self.giver in self.receivers:
            raise ValueError("the giver cannot be a receiver")
        for name in ("receivers", "customers", "territories"):
            named = getattr(self, name)
            if len(set(named)) != len(named):
                raise ValueError(f"one of the {name} is named twice")
        if self.customers and (self.territories or self.conditions):
            raise ValueError("either the customers are named, or territories and conditions are")
        return self


class NameStandIn(Command):
    """Have ``person`` stand in at an orphaned customer until the day before ``until``."""

    customer: Id
    person: Id
    until: Day
    reason_code: Code = "orphaned"
    reason: Note | None = None


class EndStandIn(Command):
    """End a stand-in before its day."""

    customer: Id
    stand_in: Id
    reason_code: Code = "ended"
    reason: Note | None = None


class ReachDeadline(Command):
    """Say that something fell due; the clock alone may (ledger/deadlines.py)."""

    customer: Id
    kind: Code
    # The longest: a customer, and a moment.
    subject: Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"^[!-~]+$")]
    due: Moment


class UnparkRequest(Command):
    """Have a parked request decided after all, by a stated version of the decider."""

    customer: Id
    request: Annotated[int, Field(ge=1, strict=True)]
    decider: Annotated[int, Field(ge=1, strict=True)]


CustomerCommand = (
    RegisterCustomer
    | ChangeCustomer
    | FileClaim
    | ReleaseCustomer
    | AssignCustomer
    | RequestTransfer
    | WithdrawTransfer
    | Approve
    | Refuse
    | RequestCollaboration
    | EndCollaboration
    | Rule
    | LogFollowUp
    | RecordDeal
    | CorrectFollowUp
    | VoidFollowUp
    | CorrectDeal
    | VoidDeal
    | UnparkRequest
    | ReachDeadline
    | HoldRecycling
    | ReviewGroup
    | HandOver
    | NameStandIn
    | EndStandIn
)

C = TypeVar("C", bound=Command)


def parse(kind: type[C], fields: Mapping[str, Any]) -> C:
    """Return the command that ``fields`` say; raises InvalidRequestError."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(_shown(str(part)) for part in first["loc"])
        raise InvalidRequestError(field, first["msg"].removeprefix("Value error, ")) from None


def _shown(part: str) -> str:
    # A name that the caller made up may hold what a terminal would obey, or what nobody can print.
    return (part if part.isprintable() else ascii(part)[1:-1])[:_SHOWN_MAX]


def normalised_number(system: str, value: str, overrides: Overrides) -> str:
    """Return the value under which an identifier is unique.

    A credit code is checked by GB 32100-2015; raises CheckDigitError unless overridden, and
    InvalidRequestError where nothing is left, or more than may be the key of a unique value.
    """
    text = " ".join(unicodedata.normalize("NFKC", value).split())
    if len(text.replace("-", "")) not in range(1, NUMBER_CHARACTERS_MAX + 1):
        raise InvalidRequestError("identifiers", f"{system} has no usable value")
    if system != USCC:
        return text
    compact = text.replace(" ", "").replace("-", "").upper()
    if "check_digit" not in overrides:
        try:
            uscc.validate(compact)
        except NumberError:
            raise CheckDigitError(compact) from None
    return compact


def occurred_within(
    occurred: datetime | None,
    now: datetime,
    *,
    tolerance_seconds: float = 300,
    field: str = "occurred",
) -> datetime | None:
    """Return ``occurred`` as it is; raises InvalidRequestError beyond the tolerance ahead.

    Nor may it lie before 1900: what is older is a mistake, and no calendar reaches behind year 1.
    """
    if occurred is None:
        return None
    if occurred.utcoffset() is None:
        raise InvalidRequestError(field, "a time needs its zone")
    if (occurred - now).total_seconds() > tolerance_seconds:
        raise InvalidRequestError(field, "the time lies in the future")
    if occurred < EARLIEST:
        raise InvalidRequestError(field, "the time lies before 1900")
    return occurred
