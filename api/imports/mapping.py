"""The mapping: what the columns of a user's files mean, written in TOML.

``load_mapping`` reads one; examples/ shows complete ones with comments. Unknown keys are errors,
so that a misspelt key never passes for one that was left out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from rapidfuzz import fuzz, process

from api.imports.encodings import known_encoding
from api.imports.errors import FileUnreadableError, MappingInvalidError, MappingProblem
from api.imports.reading import TableFormat, header_name
from api.imports.rejects import RowRejectedError
from api.imports.values import DATE_FORMATS_DEFAULT, DateReader, date_format_problem, match_key


def _fault(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("mapping_fault", "{sentence}", {"sentence": sentence})


class _Table(BaseModel):
    """A table of the mapping: strict, frozen, and helpful about keys that it does not know."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _knows_its_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise _fault(f"Here stands a table of keys, not {data!r}.")
        unknown = [key for key in data if key not in cls.model_fields]
        if unknown:
            raise _fault(" ".join(_unknown_key(key, list(cls.model_fields)) for key in unknown))
        return data


def _unknown_key(key: str, known: Sequence[str]) -> str:
    near = process.extractOne(key, known, scorer=fuzz.ratio, score_cutoff=50)
    if near:
        return f"There is no key {key!r}; did you mean {near[0]!r}?"
    return f"There is no key {key!r}; the keys here are {', '.join(known)}."


class ColumnName(str):
    """The name of a column, as ``header_name`` gives it; what else is text names no column."""

    __slots__ = ()


def _column(name: Any) -> Any:
    if not isinstance(name, str):
        raise _fault("It names a column of the file, as text.")
    column = header_name(name)
    if not column:
        raise _fault("It names a column of the file and cannot be empty.")
    return column


Column: TypeAlias = Annotated[str, BeforeValidator(_column), AfterValidator(ColumnName)]


def _one_or_several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _words(value: Any) -> Any:
    words = _one_or_several(value)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _fault('It is a text, or a list of texts such as ["Won", "Closed won"].')
    return words


def _constant_or_table(value: Any) -> str:
    return _CONSTANT if isinstance(value, str) else _TABLE


# Tags of what is either a constant or a table; no key of a mapping can look like them.
_CONSTANT, _TABLE = "<constant>", "<table>"


# The values of a column that mean one thing.
Words: TypeAlias = Annotated[list[str], BeforeValidator(_words)]


class Reference(_Table):
    """A column that names a person or customer, ``by`` name or by the id that the files use."""

    column: Column
    by: Literal["name", "id"] = "name"


def _reference(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


# Written as a column's name alone, it is by name.
ReferenceColumn: TypeAlias = Annotated[Reference, BeforeValidator(_reference)]


class StageColumn(_Table):
    """The column that says whether an opportunity was won, lost or is open, and its values."""

    column: Column
    won: Words = []
    lost: Words = []
    open: Words = []

    @model_validator(mode="after")
    def _each_value_once(self) -> StageColumn:
        _check_words({"won": self.won, "lost": self.lost, "open": self.open})
        return self


class OutcomeColumn(_Table):
    """The column that says whether a deal was won or lost, and its values."""

    column: Column
    won: Words = []
    lost: Words = []

    @model_validator(mode="after")
    def _each_value_once(self) -> OutcomeColumn:
        _check_words({"won": self.won, "lost": self.lost})
        return self


class KindColumn(_Table):
    """The column that says whether a customer is an organisation or an individual."""

    column: Column
    organisation: Words = []
    individual: Words = []

    @model_validator(mode="after")
    def _each_value_once(self) -> KindColumn:
        _check_words({"organisation": self.organisation, "individual": self.individual})
        return self


def _check_words(meanings: dict[str, list[str]]) -> None:
    seen: dict[str, str] = {}
    for meaning, words in meanings.items():
        for word in words:
            if seen.setdefault(match_key(word), meaning) != meaning:
                raise _fault(f"{word!r} stands for {seen[match_key(word)]} and for {meaning}.")
    if not seen:
        raise _fault(f"At least one of {', '.join(meanings)} needs values.")


class AttributeColumn(_Table):
    """A column that becomes an attribute of the customer.

    ``separator`` is what stands between the members of a set; full-width forms count as plain.
    """

    column: Column
    type: Literal["text", "decimal", "money", "date", "set", "integer"] = "text"
    separator: str = Field(default=";", min_length=1, max_length=3)


def _attribute(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


class ContactColumns(_Table):
    """The columns of one contact of the customer."""

    name: Column | None = None
    phone: Column | None = None
    email: Column | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> ContactColumns:
        if self.name is None and self.phone is None and self.email is None:
            raise _fault("A contact needs at least one of name, phone, email.")
        return self


class PersonRow(_Table):
    """``[files.person]``: each row is a person of the organisation.

    ``manager`` names the person's manager, who is added as well and manages the row's
    territory: the first manager of a territory is its head, unless a ``[files.territory]``
    names another. ``roles`` are those of the rows' people; managers have the role manager too.
    """

    name: Column
    id: Column | None = None
    territory: Column | None = None
    manager: ReferenceColumn | None = None
    phone: Column | None = None
    email: Column | None = None
    roles: list[str] = ["rep"]

    @model_validator(mode="after")
    def _manager_has_a_territory(self) -> PersonRow:
        if self.manager is not None and self.territory is None:
            raise _fault("A manager manages the row's territory, so territory is needed.")
        return self


class TerritoryRow(_Table):
    """``[files.territory]``: each row is a territory, with its parent, head and managers.

    ``managers`` is a column with several names, ``separator`` between them.
    """

    name: Column
    parent: Column | None = None
    head: Column | None = None
    managers: Column | None = None
    separator: str = Field(default=";", min_length=1, max_length=3)


class CustomerRow(_Table):
    """``[files.customer]``: each row is a customer, or adds to one that an earlier row named.

    ``kind`` is ``organisation``, ``individual`` or a column that tells; a customer of which no
    row says it is an organisation. ``identifiers`` are columns by kind, such as ``uscc``;
    ``parent`` is the head of the customer's group.
    """

    name: Column
    id: Column | None = None
    kind: (
        Annotated[
            Annotated[Literal["organisation", "individual"], Tag(_CONSTANT)]
            | Annotated[KindColumn, Tag(_TABLE)],
            Discriminator(_constant_or_table),
        ]
        | None
    ) = None
    identifiers: dict[str, Column] = {}
    parent: ReferenceColumn | None = None
    territory: Column | None = None
    attributes: dict[str, Annotated[AttributeColumn, BeforeValidator(_attribute)]] = {}
    contacts: list[ContactColumns] = []

    @field_validator("identifiers", "attributes")
    @classmethod
    def _plain_names(cls, named: dict[str, Any]) -> dict[str, Any]:
        for name in named:
            if not _PLAIN_NAME.fullmatch(name):
                raise _fault(f"{name!r}: names here are a-z, 0-9 and _, such as industry.")
        return named


class OpportunityRow(_Table):
    """``[files.opportunity]``: a claim on the day it was engaged, a deal on the day it closed."""

    agent: ReferenceColumn
    customer: ReferenceColumn
    engaged: Column
    closed: Column | None = None
    stage: StageColumn | None = None
    value: Column | None = None
    currency: Column | None = None
    product: Column | None = None

    @model_validator(mode="after")
    def _closing_is_complete(self) -> OpportunityRow:
        closes = self.stage is not None and bool(self.stage.won or self.stage.lost)
        if (self.closed is not None) != closes:
            raise _fault("closed and stage belong together: when it closed, and as won or lost.")
        return self


class ClaimRow(_Table):
    """``[files.claim]``: a claim, and where ``released`` says a day, its end."""

    agent: ReferenceColumn
    customer: ReferenceColumn
    at: Column
    released: Column | None = None


class FollowUpRow(_Table):
    """``[files.follow_up]``: when and how, what was agreed, and the day of the next one."""

    agent: ReferenceColumn
    customer: ReferenceColumn
    at: Column
    method: Column | None = None
    agreed: Column | None = None
    next_date: Column | None = None


class DealRow(_Table):
    """``[files.deal]``: a deal; ``outcome`` is ``won``, ``lost`` or a column that tells."""

    agent: ReferenceColumn
    customer: ReferenceColumn
    at: Column
    outcome: Annotated[
        Annotated[Literal["won", "lost"], Tag(_CONSTANT)] | Annotated[OutcomeColumn, Tag(_TABLE)],
        Discriminator(_constant_or_table),
    ]
    value: Column | None = None
    currency: Column | None = None
    product: Column | None = None


class OwnerRow(_Table):
    """``[files.owner]``: who owns the customer at the cut-over; without owner it is in the pool.

    Together with ``[files.customer]`` in the same file it is the list that everybody has.
    """

    customer: ReferenceColumn
    owner: ReferenceColumn


def _moment(value: Any) -> Any:
    if value is not None and not isinstance(value, date):
        raise _fault("It is a day or a moment, written without quotes: 2024-01-01.")
    return value


class Constants(_Table):
    """``[constants]``: what holds for all files.

    ``cut_over`` is the day or moment at which what has no date held. Dates more than
    ``future_tolerance_days`` ahead are rejected.
    """

    time_zone: str
    currency: str | None = None
    cut_over: Annotated[date | datetime | None, BeforeValidator(_moment)] = None
    date_formats: list[str] = Field(default=list(DATE_FORMATS_DEFAULT), min_length=1)
    two_digit_years_from: int | None = Field(default=None, ge=1900, le=2100)
    future_tolerance_days: int = Field(default=1, ge=0, le=366)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise _fault(
                f"{name!r} is no time zone; zones are written like Asia/Shanghai."
            ) from None
        return name

    @field_validator("currency")
    @classmethod
    def _known_currency(cls, code: str | None) -> str | None:
        if code is not None and not re.fullmatch("[A-Z]{3}", code):
            raise _fault(f"{code!r} is no currency; currencies are written like CNY.")
        return code

    @model_validator(mode="after")
    def _usable(self) -> Constants:
        _check_formats(self.date_formats, self.two_digit_years_from)
        if self.cut_over is not None:
            try:
                self.cut_over_instant()
            except RowRejectedError as rejected:
                raise _fault(
                    f"cut_over {self.cut_over} is no moment in {self.time_zone} "
                    f"({rejected.reason.value})."
                ) from None
        return self

    def cut_over_instant(self) -> datetime | None:
        """Return the cut-over in UTC; a date is the beginning of that day in the time zone."""
        if self.cut_over is None:
            return None
        reader = DateReader((), ZoneInfo(self.time_zone))
        return reader.instant(self.cut_over).astimezone(UTC)


def _check_formats(formats: Sequence[str], two_digit_years_from: int | None) -> None:
    for each in formats:
        problem = date_format_problem(each, two_digit_years=two_digit_years_from is not None)
        if problem is not None:
            raise _fault(problem)


class Unknown(_Table):
    """``[unknown]``: what happens when a row refers to somebody whom neither file nor ledger holds.

    Created is only who is named: an id alone gives nobody a name, so such a row is rejected.
    """

    people: Literal["create", "reject"] = "reject"
    customers: Literal["create", "reject"] = "reject"
    territories: Literal["create", "reject"] = "create"


class FileRows(_Table):
    """``[[files]]``: one file (or one sheet of a workbook), how it is written, what a row means.

    ``key`` names the columns that identify a row for ever; without it a row is identified by its
    content. ``replace`` gives values to read instead of others, by column.
    """

    file: str
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    header_row: int = Field(default=1, ge=1, le=1000)
    key: Annotated[list[Column], BeforeValidator(_one_or_several)] = []
    date_formats: list[str] | None = Field(default=None, min_length=1)
    decimal_separator: Literal[".", ","] = "."
    replace: dict[str, dict[str, str]] = {}
    person: PersonRow | None = None
    territory: TerritoryRow | None = None
    customer: CustomerRow | None = None
    opportunity: OpportunityRow | None = None
    claim: ClaimRow | None = None
    follow_up: FollowUpRow | None = None
    deal: DealRow | None = None
    owner: OwnerRow | None = None

    @field_validator("file")
    @classmethod
    def _inside_the_folder(cls, name: str) -> str:
        path = Path(name)
        if not name or path.is_absolute() or ".." in path.parts:
            raise _fault(f"{name!r} must be a file inside the folder that is imported.")
        return _printable(path.as_posix())

    @field_validator("sheet")
    @classmethod
    def _printable_sheet(cls, sheet: str | None) -> str | None:
        return None if sheet is None else _printable(sheet)

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str | None) -> str | None:
        if name is not None and known_encoding(name) is None:
            raise _fault(f"{name!r} is no known encoding; known are utf-8, gb18030, utf-16, big5.")
        return name

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\x00'):
            raise _fault('A delimiter is one character such as ";", or "\\t" for a tab.')
        return delimiter

    @field_validator("replace")
    @classmethod
    def _named_columns(cls, replace: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        return {header_name(column): values for column, values in replace.items()}

    @model_validator(mode="after")
    def _means_something(self) -> FileRows:
        if not any(meaning is not None for meaning in self.meanings().values()):
            listed = ", ".join(f"[files.{name}]" for name in self.meanings())
            raise _fault(f"It says not what a row means: add one of {listed}.")
        return self

    @property
    def label(self) -> str:
        """The file's name for people, with the sheet where one is named."""
        return self.file if self.sheet is None else f"{self.file}#{self.sheet}"

    def table_format(self) -> TableFormat:
        """Return how the file is written, as ``read_rows`` takes it."""
        return TableFormat(self.encoding, self.delimiter, self.sheet, self.header_row)

    def meanings(self) -> dict[str, _Table | None]:
        """Return all that a row may mean, by the name of its table."""
        return {
            "person": self.person,
            "territory": self.territory,
            "customer": self.customer,
            "opportunity": self.opportunity,
            "claim": self.claim,
            "follow_up": self.follow_up,
            "deal": self.deal,
            "owner": self.owner,
        }

    def columns(self) -> list[str]:
        """Return the columns that the mapping uses of this file, each once."""
        used = dict.fromkeys(self.key)
        used.update(dict.fromkeys(self.replace))
        for meaning in self.meanings().values():
            used.update(dict.fromkeys(_columns_in(meaning)))
        return list(used)


def _printable(name: str) -> str:
    # It stands in the log as the source of every row, and in lists for people.
    if _NO_TEXT.search(name):
        raise _fault(f"{name!r} holds a control character; rename it, and name it so here.")
    return name


def _columns_in(value: object) -> Iterator[str]:
    """Yield the columns that a table of the mapping names, wherever they stand in it."""
    if isinstance(value, ColumnName):
        yield value
    elif isinstance(value, _Table):
        for name in type(value).model_fields:
            yield from _columns_in(getattr(value, name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _columns_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _columns_in(inner)


_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN_NAME = re.compile("[a-z][a-z0-9_]{0,62}")
_MAPPING_NAME = re.compile("[a-z0-9][a-z0-9-]{0,62}")


class Mapping(_Table):
    """A whole mapping.

    ``name`` is stable for ever: the ids of requests derive from it and from each row's key, so
    that an import under the same name files nothing twice. ``claim_ends`` says when an agent's
    claim on a customer ends: never, or when the last of the agent's open opportunities closes.
    ``system`` names the system whose ids the files hold, so that several mappings of files of one
    system know each other's people and customers by them; without it the ids are the mapping's own.
    """

    name: str
    system: str | None = None
    claim_ends: Literal["never", "last_open_opportunity"] = "never"
    constants: Constants
    unknown: Unknown = Unknown()
    files: list[FileRows] = Field(min_length=1)

    @field_validator("name", "system")
    @classmethod
    def _stable_name(cls, name: str | None) -> str | None:
        if name is not None and not _MAPPING_NAME.fullmatch(name):
            raise _fault(f"{name!r}: a name is a-z, 0-9 and -, such as crm-2024.")
        return name

    @property
    def id_system(self) -> str:
        """The system of the foreign ids in the files."""
        return self.system or self.name

    @model_validator(mode="after")
    def _holds_together(self) -> Mapping:
        for number, each in enumerate(self.files, 1):
            place = f"[[files]] number {number} ({each.label})"
            _check_formats(each.date_formats or (), self.constants.two_digit_years_from)
            if each.owner is not None and self.constants.cut_over is None:
                raise _fault(
                    f"{place} is an opening balance, which needs [constants] cut_over: "
                    "the day on which it held."
                )
            if self.constants.currency is None and _needs_currency(each):
                raise _fault(f"{place} holds money, which needs [constants] currency.")
        labels = [each.label for each in self.files]
        twice = {label for label in labels if labels.count(label) > 1}
        if twice:
            raise _fault(
                f"{', '.join(sorted(twice))} stands in two [[files]]: give one all the meanings."
            )
        return self


def _needs_currency(each: FileRows) -> bool:
    acts = (each.opportunity, each.deal)
    if any(act and act.value and not act.currency for act in acts):
        return True
    attributes = each.customer.attributes.values() if each.customer else ()
    return any(attribute.type == "money" for attribute in attributes)


def load_mapping(path: Path) -> Mapping:
    """Read the mapping at ``path`` (TOML in UTF-8).

    Raises FileUnreadableError, or MappingInvalidError that lists every fault.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileUnreadableError(
            path.name,
            f"The mapping cannot be read ({error.strerror}).",
            way_out="Check the path of the mapping.",
        ) from error
    try:
        return parse_mapping(data.decode("utf-8-sig"), source=path.name)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = MappingProblem(f"line {line}", "", "It is not UTF-8; save the file as UTF-8.")
        raise MappingInvalidError([problem], source=path.name) from error


def parse_mapping(text: str, *, source: str = "mapping") -> Mapping:
    """Read a mapping from TOML text; raises MappingInvalidError that lists every fault."""
    try:
        data = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        problem = MappingProblem("the file", "", f"It is not valid TOML: {error}.")
        raise MappingInvalidError([problem], source=source) from error
    try:
        return Mapping.model_validate(data)
    except ValidationError as error:
        problems = [_problem(detail, data) for detail in error.errors(include_url=False)]
        raise MappingInvalidError(problems, source=source) from error


def _problem(detail: ErrorDetails, data: dict[str, Any]) -> MappingProblem:
    places = [place for place in detail["loc"] if place not in (_CONSTANT, _TABLE)]
    concerns_key = bool(places) and not _is_table(places, data)
    key = str(places.pop()) if concerns_key else ""
    if key.isdecimal() and places:
        # One of a list: the key is the list's.
        key = str(places.pop())
    return MappingProblem(_table_name(places, data), key, _sentence(detail))


def _is_table(places: Sequence[str | int], data: Any) -> bool:
    for place in places:
        try:
            data = data[place]
        except (KeyError, IndexError, TypeError):
            return False
    return isinstance(data, dict)


def _table_name(places: Sequence[str | int], data: dict[str, Any]) -> str:
    if not places:
        return "the top of the file"
    if places[0] == "files" and len(places) > 1 and isinstance(places[1], int):
        entry = data["files"][places[1]]
        file = entry.get("file", "") if isinstance(entry, dict) else ""
        named = f"[[files]] number {places[1] + 1}" + (f" ({file})" if file else "")
        inner = ".".join(str(place) for place in places[2:])
        return f"{named}, [files.{inner}]" if inner else named
    return "[" + ".".join(str(place) for place in places) + "]"


def _sentence(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "It is missing."
    return detail["msg"] if detail["msg"].endswith((".", "?")) else detail["msg"] + "."
