"""Rows that the ledger's door refuses: which errors concern one row only, and which column."""

from __future__ import annotations

from collections.abc import Iterable

from api.imports.actions import Action, RegisterCustomer
from api.imports.mapping import (
    ClaimRow,
    CustomerRow,
    DealRow,
    FileRows,
    FollowUpRow,
    OpportunityRow,
    OwnerRow,
    PersonRow,
    Reference,
    TerritoryRow,
)
from ledger.commands import CheckDigitError, InvalidRequestError, UnknownIdError
from ledger.errors import (
    EntryTooLargeError,
    LedgerError,
    NotCanonicalError,
    RequestReusedError,
    TextRefusedError,
)
from ledger.four_eyes import FourEyesError

_OF_A_ROW = (
    CheckDigitError,
    EntryTooLargeError,
    FourEyesError,
    InvalidRequestError,
    NotCanonicalError,
    RequestReusedError,
    TextRefusedError,
    UnknownIdError,
)
# What every request of an import has from whoever runs it: no other row would fare better.
_OF_THE_IMPORTER = frozenset({"caller", "actor", "on_behalf_of", "authority", "correlation"})
_WHAT_IS_UNKNOWN = frozenset({"customer", "person", "territory"})


def concerns_row(error: LedgerError) -> bool:
    """Say whether an error is about the content of one row, so that the others may be filed."""
    if isinstance(error, UnknownIdError):
        return error.what in _WHAT_IS_UNKNOWN
    if isinstance(error, InvalidRequestError):
        return error.field not in _OF_THE_IMPORTER
    return isinstance(error, _OF_A_ROW)


def reason_in_words(error: LedgerError) -> str:
    """Return why the door refused a row, for people who see the file and no ids."""
    if isinstance(error, UnknownIdError):
        return f"The row that names this {error.what} first could not be used."
    return str(error)


def column_of(file: FileRows, action: Action, error: LedgerError) -> str:
    """Return the column that an error is about, "" where it is about none or another file's.

    Where one of several columns may be meant, they stand with + between them.
    """
    if isinstance(error, UnknownIdError):
        of_parent = error.what == "customer" and isinstance(action, RegisterCustomer)
        path = ["parent" if of_parent else error.what]
    elif isinstance(error, CheckDigitError):
        path = ["identifiers"]
    elif isinstance(error, InvalidRequestError):
        path = error.field.split(".")
    else:
        return ""
    return "+".join(dict.fromkeys(each for each in _columns(file, action, path) if each))


def _columns(file: FileRows, action: Action, path: list[str]) -> Iterable[str | None]:
    meaning, _, rest = action.key.partition("/")
    if rest.startswith("created/"):
        # No row defines it, so it is the row that refers to it.
        return _references(file, meaning) if path[0] == "name" else ()
    found = file.meanings().get(meaning)
    match found:
        case CustomerRow() if isinstance(action, RegisterCustomer):
            return _of_customer(found, action, path)
        case PersonRow():
            return _of_person(found, path[0])
        case OpportunityRow() | ClaimRow() | FollowUpRow() | DealRow():
            return (_of_act(found, action, path[0]),)
        case OwnerRow():
            owner = {"customer": found.customer.column, "person": found.owner.column}
            return (owner.get(path[0]),)
        case TerritoryRow():
            return _of_territory(found, path[0])
        case _:
            return ()


def _of_customer(
    meaning: CustomerRow, action: RegisterCustomer, path: list[str]
) -> Iterable[str | None]:
    match path:
        case ["name" | "territory", *_]:
            return (getattr(meaning, path[0]),)
        case ["parent", *_]:
            return _column(meaning.parent)
        case ["foreign_ids", *_]:
            return (meaning.id,)
        case ["attributes", name, *_]:
            attribute = meaning.attributes.get(name)
            return () if attribute is None else (attribute.column,)
        case ["identifiers", number, *_] if number.isdecimal():
            kind, _ = action.identifiers[int(number)]
            return (meaning.identifiers.get(kind),)
        case ["identifiers"]:
            return meaning.identifiers.values()
        case ["contacts", _, part, *_]:
            # Contacts add up over several rows, so the number says nothing of the table.
            return [getattr(each, part, None) for each in meaning.contacts]
        case _:
            return ()


def _of_person(meaning: PersonRow, field: str) -> Iterable[str | None]:
    columns = {"name": meaning.name, "territory": meaning.territory, "foreign_ids": meaning.id}
    columns |= {"phone": meaning.phone, "email": meaning.email}
    return (columns.get(field),)


def _of_territory(meaning: TerritoryRow, field: str) -> Iterable[str | None]:
    match field:
        case "name" | "parent" | "head" | "managers":
            return (getattr(meaning, field),)
        case "territory":
            return (meaning.parent,)
        case "person":
            return (meaning.head, meaning.managers)
        case _:
            return ()


def _of_act(
    meaning: OpportunityRow | ClaimRow | FollowUpRow | DealRow, action: Action, field: str
) -> str | None:
    columns: dict[str, str | None] = {
        "customer": meaning.customer.column,
        "person": meaning.agent.column,
    }
    match meaning:
        case OpportunityRow():
            ends = action.kind in {"record_deal", "file_release"}
            columns["occurred"] = meaning.closed if ends else meaning.engaged
        case ClaimRow():
            ends = action.kind == "file_release"
            columns["occurred"] = meaning.released if ends else meaning.at
        case FollowUpRow():
            columns |= {"occurred": meaning.at, "note": meaning.method, "agreed": meaning.agreed}
            columns["next_on"] = meaning.next_date
        case DealRow():
            columns["occurred"] = meaning.at
    if isinstance(meaning, OpportunityRow | DealRow):
        columns |= {"value": meaning.value, "product": meaning.product}
    return columns.get(field)


def _references(file: FileRows, role: str) -> Iterable[str | None]:
    """Yield the columns by which a file's rows refer to people, customers or territories."""
    for meaning in (file.opportunity, file.claim, file.follow_up, file.deal):
        if meaning is not None:
            yield from _column(meaning.agent if role == "person" else meaning.customer)
    if file.owner is not None:
        yield from _column(file.owner.owner if role == "person" else file.owner.customer)
    if file.person is not None and role != "customer":
        yield from _column(file.person.manager if role == "person" else file.person.territory)
    if file.customer is not None and role != "person":
        yield from _column(file.customer.parent if role == "customer" else file.customer.territory)
    if file.territory is not None and role == "person":
        yield from (file.territory.head, file.territory.managers)


def _column(named: Reference | str | None) -> Iterable[str | None]:
    yield named.column if isinstance(named, Reference) else named
