"""What a row means, by the mapping: from cells to definitions, acts and openings."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping as MappingABC
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo

from api.imports.cells import Cell, CellFault, cell_text
from api.imports.mapping import (
    AttributeColumn,
    ClaimRow,
    CustomerRow,
    DealRow,
    FileRows,
    FollowUpRow,
    KindColumn,
    Mapping,
    OpportunityRow,
    OutcomeColumn,
    OwnerRow,
    PersonRow,
    Reference,
    StageColumn,
    TerritoryRow,
)
from api.imports.reading import BrokenRow, Row
from api.imports.rejects import RejectReason, RowRejectedError
from api.imports.staging import (
    PHASE_CLAIM,
    PHASE_CLOSE,
    PHASE_FOLLOW_UP,
    PHASE_OWN_CLOSE,
    Act,
    Definition,
    Mention,
    Opening,
    Role,
    RowDraft,
    source_of,
)
from api.imports.values import (
    DIGITS_MAX,
    INTEGER_MAX,
    NAME_CHARACTERS_MAX,
    TEXT_CHARACTERS_MAX,
    DateReader,
    NumberReader,
    currency_code,
    folded,
    from_microseconds,
    id_key,
    match_key,
    microseconds,
)

# What one row may hold in all its used columns, in bytes of UTF-8: an event has room for 65,535
# bytes, and sealing makes text a third longer.
ROW_BYTES_MAX = 40_000

_KEY_CHARACTERS_MAX = 120
_DIGEST_CHARACTERS = 32
_CACHED = 50_000

# Tab and line breaks are spaces; the others have no place in a name or a text.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_KEY_RESERVED = re.compile("[%/+~]")

Cells: TypeAlias = MappingABC[str, Cell]


def key_part(text: str) -> str:
    """Return ``text`` fit for a part of a key: what parts keys is escaped, long text a digest."""
    plain = folded(unicodedata.normalize("NFC", text))
    if len(plain) > _KEY_CHARACTERS_MAX:
        return "~" + _digest(plain.encode("utf-8", "surrogatepass"))
    return _KEY_RESERVED.sub(lambda match: f"%{ord(match[0]):02X}", plain)


def content_key(row: Row) -> str:
    """Return the key of a row that has none: a digest of its cells by name, whatever the order."""
    content = sorted((name, cell_text(cell)) for name, cell in row.cells.items())
    data = "\x1e".join(f"{name}\x1f{text}" for name, text in content)
    return "~" + _digest(data.encode("utf-8", "surrogatepass"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGEST_CHARACTERS]


class FileInterpreter:
    """Turns rows of one file into drafts.

    ``future_limit`` is the last instant, in UTC, that is not too far ahead.
    """

    def __init__(
        self, number: int, file: FileRows, mapping: Mapping, future_limit: datetime
    ) -> None:
        constants = mapping.constants
        self.number = number
        self.file = file
        self._currency = constants.currency
        self._future_limit = microseconds(future_limit)
        self._dates = DateReader(
            file.date_formats or constants.date_formats,
            ZoneInfo(constants.time_zone),
            two_digit_years_from=constants.two_digit_years_from,
        )
        self._numbers = NumberReader(file.decimal_separator)
        self._columns = file.columns()
        self._match_key = lru_cache(_CACHED)(match_key)
        self._read_date = lru_cache(_CACHED)(self._dates.read)
        self._instant = lru_cache(_CACHED)(
            # date and datetime are equal to nobody but their own kind, so they never mix here.
            lambda value: microseconds(self._dates.instant(value))
        )
        self._words = _word_tables(file)

    def draft(self, row: Row | BrokenRow) -> RowDraft:
        """Return all that the row means; raises RowRejectedError with column and value."""
        if isinstance(row, BrokenRow):
            raise RowRejectedError(row.reason, shown=row.shown)
        texts = self._texts(row)
        key = self._key(texts)
        draft = RowDraft(source_of(self.number, row.number), key or content_key(row), not key)
        draft.is_opening = self.file.owner is not None
        cells = row.cells
        if self.file.territory is not None:
            draft.definitions.append(self._territory(self.file.territory, texts))
        if self.file.person is not None:
            draft.definitions.append(self._person(self.file.person, texts))
        if self.file.customer is not None:
            draft.definitions.append(self._customer(self.file.customer, texts, cells))
        if self.file.opportunity is not None:
            draft.acts.extend(self._opportunity(self.file.opportunity, texts, cells))
        if self.file.claim is not None:
            draft.acts.extend(self._claim(self.file.claim, texts, cells))
        if self.file.follow_up is not None:
            draft.acts.append(self._follow_up(self.file.follow_up, texts, cells))
        if self.file.deal is not None:
            draft.acts.append(self._deal(self.file.deal, texts, cells))
        if self.file.owner is not None:
            draft.openings.extend(self._owner(self.file.owner, texts))
        return draft

    def _texts(self, row: Row) -> dict[str, str]:
        """Return the used columns as trimmed text with replacements made, free of controls."""
        texts: dict[str, str] = {}
        size = 0
        for column in self._columns:
            cell = row.cells[column]
            if isinstance(cell, CellFault):
                raise RowRejectedError(cell.reason, column, cell.shown)
            text = cell if isinstance(cell, str) else cell_text(cell)
            if _CONTROL.search(text):
                raise RowRejectedError(RejectReason.CONTROL_CHARACTER, column, text)
            text = text.strip()
            replacements = self.file.replace.get(column)
            if replacements is not None:
                text = replacements.get(text, text).strip()
            if len(text) > TEXT_CHARACTERS_MAX:
                raise RowRejectedError(RejectReason.TEXT_TOO_LONG, column, text)
            texts[column] = text
            size += len(text)
        # The bytes are counted only where there may be too many.
        if size > ROW_BYTES_MAX // 4:
            size = sum(len(text.encode()) for text in texts.values())
            if size > ROW_BYTES_MAX:
                raise RowRejectedError(RejectReason.ROW_TOO_LONG, shown=f"{size} bytes")
        return texts

    def _key(self, texts: dict[str, str]) -> str:
        if not self.file.key:
            return ""
        parts = [key_part(texts[column]) for column in self.file.key]
        if not any(parts):
            raise RowRejectedError(RejectReason.KEY_MISSING, self.file.key[0])
        return "+".join(parts)

    # Definitions

    def _territory(self, meaning: TerritoryRow, texts: dict[str, str]) -> Definition:
        name = self._name(meaning.name, texts)
        managers: list[tuple[Mention, bool]] = []
        head = self._mention("person", meaning.head, texts, introduces=True)
        if head is not None:
            managers.append((head, True))
        if meaning.managers is not None:
            for text in _split(texts[meaning.managers], meaning.separator):
                person = self._named("person", meaning.managers, text, introduces=True)
                managers.append((person, False))
        return Definition(
            "territory",
            f"name:{self._match_key(name)}",
            self._match_key(name),
            {"name": name, "head": head.key if head else None},
            parent=self._mention("territory", meaning.parent, texts),
            managers=managers,
            managed=self._named("territory", meaning.name, name),
        )

    def _person(self, meaning: PersonRow, texts: dict[str, str]) -> Definition:
        name = self._name(meaning.name, texts)
        territory = self._mention("territory", meaning.territory, texts)
        manager = (
            None
            if meaning.manager is None
            else self._mention(
                "person",
                meaning.manager.column,
                texts,
                spoken=meaning.manager.by,
                introduces=meaning.manager.by == "name",
            )
        )
        identity = self._identity(meaning.id, name, texts)
        payload = {
            "name": name,
            "id": texts[meaning.id] if meaning.id else None,
            "phone": _optional(meaning.phone, texts),
            "email": _optional(meaning.email, texts),
            "roles": meaning.roles,
        }
        return Definition(
            "person",
            identity,
            self._match_key(name),
            payload,
            territory=territory,
            managers=[] if manager is None else [(manager, False)],
            managed=territory,
        )

    def _customer(self, meaning: CustomerRow, texts: dict[str, str], cells: Cells) -> Definition:
        name = self._name(meaning.name, texts)
        parent = meaning.parent
        contacts = [
            [
                _optional(columns.name, texts),
                _optional(columns.phone, texts),
                _optional(columns.email, texts),
            ]
            for columns in meaning.contacts
        ]
        payload = {
            "name": name,
            "id": texts[meaning.id] if meaning.id else None,
            "kind": self._customer_kind(meaning, texts),
            "identifiers": {
                kind: text
                for kind, column in meaning.identifiers.items()
                if (text := _identifier(texts[column]))
            },
            "attributes": {
                attribute: [columns.type, value]
                for attribute, columns in meaning.attributes.items()
                if (value := self._attribute(columns, texts, cells)) is not None
            },
            "contacts": [contact for contact in contacts if any(contact)],
        }
        return Definition(
            "customer",
            self._identity(meaning.id, name, texts),
            self._match_key(name),
            payload,
            parent=self._referred("customer", parent, texts) if parent else None,
            territory=self._mention("territory", meaning.territory, texts),
        )

    def _customer_kind(self, meaning: CustomerRow, texts: dict[str, str]) -> str | None:
        if isinstance(meaning.kind, KindColumn):
            return self._word("customer", meaning.kind.column, texts)
        return meaning.kind

    def _attribute(self, columns: AttributeColumn, texts: dict[str, str], cells: Cells) -> Any:
        column, text = columns.column, texts[columns.column]
        if not text:
            return None
        match columns.type:
            case "text":
                return text
            case "set":
                return sorted(set(_split(text, columns.separator))) or None
            case "integer":
                return str(self._integer(column, texts, cells[column]))
            case "decimal":
                return format(self._decimal(column, texts, cells[column]), "f")
            case "money":
                amount = self._amount(column, texts, cells[column], self._currency or "")
                return [format(amount, "f"), self._currency]
            case "date":
                value = self._date(column, texts, cells[column])
                return (value.date() if isinstance(value, datetime) else value).isoformat()

    # Acts

    def _opportunity(
        self, meaning: OpportunityRow, texts: dict[str, str], cells: Cells
    ) -> list[Act]:
        customer = self._required("customer", meaning.customer, texts)
        person = self._required("person", meaning.agent, texts)
        outcome = self._outcome("opportunity", meaning.stage, texts)
        engaged = self._at(meaning.engaged, texts, cells)
        claim = _claim_act("opportunity", "/claim", engaged, person, customer)
        if outcome == "open" or meaning.closed is None:
            return [claim]
        column, too_early = meaning.closed, RejectReason.CLOSED_BEFORE_ENGAGED
        closed, phase = self._end(column, texts, cells[column], engaged, too_early)
        payload = self._deal_payload(outcome, meaning, texts, cells)
        deal = Act(
            kind="record_deal",
            meaning="opportunity",
            suffix="/deal",
            at=closed,
            phase=phase,
            part=1,
            person=person,
            customer=customer,
            opens=-1,
            payload=payload,
        )
        return [claim, deal]

    def _end(
        self, column: str, texts: dict[str, str], cell: Cell, begun: int, too_early: RejectReason
    ) -> tuple[int, int]:
        """Return the instant of an end and its phase; reject one before its beginning.

        An end that states no time of day, on the day of a beginning that does, is no earlier.
        """
        value = self._date(column, texts, cell)
        ended = self._past(column, texts, value)
        if ended < begun:
            if isinstance(value, datetime) or self._dates.day(from_microseconds(begun)) != value:
                raise RowRejectedError(too_early, column, texts[column])
            ended = begun
        return ended, PHASE_OWN_CLOSE if ended == begun else PHASE_CLOSE

    def _claim(self, meaning: ClaimRow, texts: dict[str, str], cells: Cells) -> list[Act]:
        customer = self._required("customer", meaning.customer, texts)
        person = self._required("person", meaning.agent, texts)
        begun = self._at(meaning.at, texts, cells)
        claim = _claim_act("claim", "", begun, person, customer)
        if meaning.released is None or not texts[meaning.released]:
            return [claim]
        column, too_early = meaning.released, RejectReason.RELEASED_BEFORE_CLAIMED
        ended, phase = self._end(column, texts, cells[column], begun, too_early)
        release = Act(
            kind="file_release",
            meaning="claim",
            suffix="/release",
            at=ended,
            phase=phase,
            part=1,
            person=person,
            customer=customer,
            opens=-1,
            payload={"cause": "stated"},
        )
        return [claim, release]

    def _follow_up(self, meaning: FollowUpRow, texts: dict[str, str], cells: Cells) -> Act:
        customer = self._required("customer", meaning.customer, texts)
        person = self._required("person", meaning.agent, texts)
        at = self._at(meaning.at, texts, cells)
        next_date: str | None = None
        if meaning.next_date is not None and texts[meaning.next_date]:
            value = self._date(meaning.next_date, texts, cells[meaning.next_date])
            next_date = (value.date() if isinstance(value, datetime) else value).isoformat()
        payload = {
            "method": _optional(meaning.method, texts),
            "agreed": _optional(meaning.agreed, texts),
            "next_date": next_date,
        }
        return Act(
            kind="log_follow_up",
            meaning="follow_up",
            suffix="",
            at=at,
            phase=PHASE_FOLLOW_UP,
            part=0,
            person=person,
            customer=customer,
            payload=payload,
        )

    def _deal(self, meaning: DealRow, texts: dict[str, str], cells: Cells) -> Act:
        customer = self._required("customer", meaning.customer, texts)
        person = self._required("person", meaning.agent, texts)
        outcome = (
            self._outcome("deal", meaning.outcome, texts)
            if isinstance(meaning.outcome, OutcomeColumn)
            else meaning.outcome
        )
        at = self._at(meaning.at, texts, cells)
        return Act(
            kind="record_deal",
            meaning="deal",
            suffix="",
            at=at,
            phase=PHASE_OWN_CLOSE,
            part=0,
            person=person,
            customer=customer,
            payload=self._deal_payload(outcome, meaning, texts, cells),
        )

    def _deal_payload(
        self, outcome: str, meaning: OpportunityRow | DealRow, texts: dict[str, str], cells: Cells
    ) -> dict[str, Any]:
        payload: dict[str, Any] = {"outcome": outcome, "product": None, "value": None}
        payload["product"] = _optional(meaning.product, texts)
        if meaning.value is None:
            return payload
        currency = self._currency_of(meaning.currency, texts)
        if not texts[meaning.value]:
            if outcome == "won":
                raise RowRejectedError(RejectReason.NUMBER_MISSING, meaning.value)
            # What was lost brought nothing, whether or not somebody wrote the nought.
            payload["value"] = ["0", currency]
            return payload
        amount = self._amount(meaning.value, texts, cells[meaning.value], currency)
        if amount < 0:
            raise RowRejectedError(
                RejectReason.NUMBER_NEGATIVE, meaning.value, texts[meaning.value]
            )
        payload["value"] = [format(amount, "f"), currency]
        return payload

    def _currency_of(self, column: str | None, texts: dict[str, str]) -> str:
        text = texts[column] if column is not None else ""
        if column is None or (not text and self._currency):
            return self._currency or ""
        with _Concerning(column, text):
            return currency_code(text)

    def _owner(self, meaning: OwnerRow, texts: dict[str, str]) -> list[Opening]:
        customer = self._required("customer", meaning.customer, texts)
        person = self._referred("person", meaning.owner, texts)
        return [] if person is None else [Opening(person, customer)]

    # Cells

    def _name(self, column: str, texts: dict[str, str]) -> str:
        name = folded(texts[column])
        if not name or not self._match_key(name):
            raise RowRejectedError(RejectReason.NAME_MISSING, column)
        if len(name) > NAME_CHARACTERS_MAX:
            raise RowRejectedError(RejectReason.NAME_TOO_LONG, column, name)
        return name

    def _identity(self, id_column: str | None, name: str, texts: dict[str, str]) -> str:
        if id_column is None:
            return f"name:{self._match_key(name)}"
        text = id_key(texts[id_column])
        if not text:
            raise RowRejectedError(RejectReason.KEY_MISSING, id_column)
        if len(text) > NAME_CHARACTERS_MAX:
            raise RowRejectedError(RejectReason.NAME_TOO_LONG, id_column, text)
        return f"id:{text}"

    def _required(
        self, role: Literal["person", "customer"], reference: Reference, texts: dict[str, str]
    ) -> Mention:
        mention = self._referred(role, reference, texts)
        if mention is None:
            reason = (
                RejectReason.CUSTOMER_MISSING if role == "customer" else RejectReason.PERSON_MISSING
            )
            raise RowRejectedError(reason, reference.column)
        return mention

    def _referred(self, role: Role, reference: Reference, texts: dict[str, str]) -> Mention | None:
        return self._mention(role, reference.column, texts, spoken=reference.by)

    def _mention(
        self,
        role: Role,
        column: str | None,
        texts: dict[str, str],
        *,
        spoken: Literal["name", "id"] = "name",
        introduces: bool = False,
    ) -> Mention | None:
        if column is None or not texts[column]:
            return None
        if spoken == "id":
            text = id_key(texts[column])
            if len(text) > NAME_CHARACTERS_MAX:
                raise RowRejectedError(RejectReason.NAME_TOO_LONG, column, text)
            return Mention(role, "id", text, text)
        return self._named(role, column, texts[column], introduces=introduces)

    def _named(self, role: Role, column: str, text: str, *, introduces: bool = False) -> Mention:
        name = folded(text)
        key = self._match_key(name)
        if not key:
            raise RowRejectedError(RejectReason.NAME_MISSING, column, text)
        if len(name) > NAME_CHARACTERS_MAX:
            raise RowRejectedError(RejectReason.NAME_TOO_LONG, column, name)
        return Mention(role, "name", key, name, introduces)

    def _outcome(
        self, meaning: str, stage: StageColumn | OutcomeColumn | None, texts: dict[str, str]
    ) -> str:
        return "open" if stage is None else self._word(meaning, stage.column, texts)

    def _word(self, meaning: str, column: str, texts: dict[str, str]) -> str:
        text = texts[column]
        if not text:
            raise RowRejectedError(RejectReason.OUTCOME_MISSING, column)
        found = self._words[meaning].get(self._match_key(text))
        if found is None:
            raise RowRejectedError(RejectReason.VALUE_UNKNOWN, column, text)
        return found

    def _date(self, column: str, texts: dict[str, str], cell: Cell) -> date | datetime:
        text = texts[column]
        if not text:
            raise RowRejectedError(RejectReason.DATE_MISSING, column)
        if isinstance(cell, date) and text == cell_text(cell):
            # A workbook says that it is a date; its midnights are dates without a time.
            if isinstance(cell, datetime) and cell.time() == time():
                return cell.date()
            return cell
        with _Concerning(column, text):
            return self._read_date(text)

    def _at(self, column: str, texts: dict[str, str], cells: Cells) -> int:
        return self._past(column, texts, self._date(column, texts, cells[column]))

    def _past(self, column: str, texts: dict[str, str], value: date | datetime) -> int:
        """Return the microseconds of a date that is not too far ahead."""
        with _Concerning(column, texts[column]):
            instant: int = self._instant(value)
            if instant > self._future_limit:
                raise RowRejectedError(RejectReason.DATE_IN_FUTURE)
            return instant

    def _decimal(self, column: str, texts: dict[str, str], cell: Cell) -> Decimal:
        text = texts[column]
        number = _typed_number(cell, text)
        with _Concerning(column, text):
            if number is None:
                return self._numbers.decimal(text)
            if len(number.as_tuple().digits) > DIGITS_MAX or abs(number.adjusted()) > DIGITS_MAX:
                raise RowRejectedError(RejectReason.NUMBER_OUT_OF_RANGE)
            return number

    def _integer(self, column: str, texts: dict[str, str], cell: Cell) -> int:
        number = self._decimal(column, texts, cell)
        if number != number.to_integral_value():
            raise RowRejectedError(RejectReason.NUMBER_UNREADABLE, column, texts[column])
        if abs(number) > INTEGER_MAX:
            raise RowRejectedError(RejectReason.NUMBER_OUT_OF_RANGE, column, texts[column])
        return int(number)

    def _amount(self, column: str, texts: dict[str, str], cell: Cell, currency: str) -> Decimal:
        if _typed_number(cell, texts[column]) is not None:
            return self._decimal(column, texts, cell)
        with _Concerning(column, texts[column]):
            return self._numbers.amount(texts[column], currency)


class _Concerning:
    """Gives a rejection raised inside the column and the value that it concerns."""

    def __init__(self, column: str, text: str) -> None:
        self._column = column
        self._text = text

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, RowRejectedError):
            error.column = self._column
            error.shown = self._text


def _claim_act(meaning: str, suffix: str, at: int, person: Mention, customer: Mention) -> Act:
    return Act(
        kind="file_claim",
        meaning=meaning,
        suffix=suffix,
        at=at,
        phase=PHASE_CLAIM,
        part=0,
        person=person,
        customer=customer,
        opens=1,
    )


def _typed_number(cell: Cell, text: str) -> Decimal | None:
    """Return the number of a workbook's cell, unless a replacement has changed it."""
    if isinstance(cell, bool) or not isinstance(cell, int | Decimal) or text != cell_text(cell):
        return None
    return Decimal(cell)


def _optional(column: str | None, texts: dict[str, str]) -> str | None:
    return (texts[column] or None) if column is not None else None


def _identifier(text: str) -> str:
    """Return an identifier such as a credit code: full-width folded, no spaces, in capitals."""
    return "".join(unicodedata.normalize("NFKC", text).split()).upper()


def _split(text: str, separator: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text)
    parts = plain.split(unicodedata.normalize("NFKC", separator))
    return [member for part in parts if (member := folded(part))]


def _word_tables(file: FileRows) -> dict[str, dict[str, str]]:
    """Return what the values of the telling columns mean, by the name of the row's meaning."""
    tables: dict[str, dict[str, str]] = {}
    if file.opportunity is not None and file.opportunity.stage is not None:
        stage = file.opportunity.stage
        tables["opportunity"] = _words({"won": stage.won, "lost": stage.lost, "open": stage.open})
    if file.deal is not None and isinstance(file.deal.outcome, OutcomeColumn):
        outcome = file.deal.outcome
        tables["deal"] = _words({"won": outcome.won, "lost": outcome.lost})
    if file.customer is not None and isinstance(file.customer.kind, KindColumn):
        kind = file.customer.kind
        tables["customer"] = _words(
            {"organisation": kind.organisation, "individual": kind.individual}
        )
    return tables


def _words(meanings: dict[str, list[str]]) -> dict[str, str]:
    return {match_key(word): meaning for meaning, words in meanings.items() for word in words}
