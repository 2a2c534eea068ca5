"""What callers may send: each bad input gets one clear, typed error that is safe to show."""

from __future__ import annotations

import typing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import commands
from ledger import organisation_commands as facts
from ledger.commands import (
    CheckDigitError,
    Command,
    InvalidRequestError,
    UnknownIdError,
    normalised_number,
    occurred_within,
    parse,
)

NOW = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
VALID = ["91350100M000100Y43", "9144030071526726XG", "91330100799655058B", "91110000802100433B"]


def refused(kind: type[Command], fields: dict[str, Any]) -> InvalidRequestError:
    """Return the error for fields of which something is wrong; it must be fit to be shown."""
    with pytest.raises(InvalidRequestError) as error:
        parse(kind, fields)
    said = str(error.value)
    assert said.isprintable(), ascii(said)
    assert len(said) < 400
    assert error.value.code == "invalid_request"
    assert error.value.way_out
    return error.value


def registration(**fields: Any) -> dict[str, Any]:
    return {"name": "苏州恒信电子有限公司", **fields}


# --- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "at least 1 character"),
        ("  \t ", "at least 1 character"),
        ("名" * 10_000, "at most 300 characters"),
        ("a\x00b", "holds the control character U+0000"),
        ("a\x1b[2Jb", "holds the control character U+001B"),
        ("a\nb", "holds the control character U+000A"),
        ("a\x9bb", "holds the control character U+009B"),
        ("lone \ud800 surrogate", "unicode"),
        (None, "valid string"),
        (7, "valid string"),
        (["a"], "valid string"),
    ],
)
def test_a_bad_name_is_refused_by_its_field(name: Any, says: str) -> None:
    error = refused(commands.RegisterCustomer, registration(name=name))
    assert error.field == "name"
    assert says in str(error)


def test_names_keep_what_they_are_but_for_the_blanks_around() -> None:
    assert (
        parse(commands.RegisterCustomer, registration(name=" 王芳 的店\u3000")).name == "王芳 的店"
    )


@pytest.mark.parametrize(
    ("note", "says"),
    [
        ("名" * 10_000, "at most 4000 characters"),
        ("a\x07", "U+0007"),
        ("a\rb", "U+000D"),
        ("\udc80", "unicode"),
    ],
)
def test_a_bad_note_is_refused(note: str, says: str) -> None:
    error = refused(commands.FileClaim, {"customer": "c", "claimant": "p", "note": note})
    assert error.field == "note"
    assert says in str(error)


def test_lines_of_a_note_may_end_as_browsers_and_windows_end_them() -> None:
    """Every note of two lines that a browser's form sent was refused for U+000D."""
    claim = parse(
        commands.FileClaim, {"customer": "c", "claimant": "p", "note": "一\r\n二\t三\n四"}
    )
    assert claim.note == "一\n二\t三\n四"


@pytest.mark.parametrize("customer", ["", "c" * 81, "cus 1", "cus_é", "cus_1\n", "\x00", "\ud800"])
def test_a_bad_id_is_refused(customer: str) -> None:
    error = refused(commands.FileClaim, {"customer": customer, "claimant": "p"})
    assert error.field == "customer"


@pytest.mark.parametrize("code", ["No Need", "1st", "", "a" * 61, "é"])
def test_a_reason_code_is_a_plain_word(code: str) -> None:
    assert refused(commands.ReleaseCustomer, {"customer": "c", "reason_code": code}).field == (
        "reason_code"
    )


def test_what_is_missing_or_unknown_is_named() -> None:
    assert refused(commands.RegisterCustomer, {}).field == "name"
    error = refused(commands.RegisterCustomer, registration(nickname="x"))
    assert error.field == "nickname"
    assert "not permitted" in str(error)


@pytest.mark.parametrize("name", ["\x1b[2Jred", "\u202eevil", "x" * 5_000, "a\nb"])
def test_a_name_that_the_caller_made_up_is_not_repeated_as_it_is(name: str) -> None:
    """Messages carried the caller's own field names, escape sequences and all, to a terminal."""
    refused(commands.RegisterCustomer, registration(**{name: 1}))
    refused(commands.RegisterCustomer, registration(attributes={name: {"decimal": "x"}}))


def test_a_lone_surrogate_in_a_field_name_is_refused_as_well() -> None:
    refused(commands.RegisterCustomer, registration(**{"\ud800": 1}))
    refused(commands.RegisterCustomer, registration(attributes={"\ud800": 1}))


# --- attributes ---------------------------------------------------------------------------------


def attribute(value: Any) -> Any:
    return parse(commands.RegisterCustomer, registration(attributes={"a": value})).attributes["a"]


def test_attributes_have_a_type_each() -> None:
    assert attribute("华东") == "华东"
    assert attribute(1200) == 1200
    assert attribute({"decimal": "4.50"}).decimal == Decimal("4.50")
    assert attribute({"date": "2026-03-01"}).date.isoformat() == "2026-03-01"
    assert attribute({"set": ["b", "a"]}).set == ("b", "a")
    money = attribute({"money": {"amount": "1054.00", "currency": "CNY"}}).money
    assert (money.amount, money.currency) == (Decimal("1054.00"), "CNY")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (True, "is neither text"),
        (1.5, "is neither text"),
        (None, "is neither text"),
        (["a"], "is neither text"),
        ({}, "is neither text"),
        ({"amount": "1"}, "is neither text"),
        (2**53, "less than or equal to 9007199254740991"),
        ("", "at least 1 character"),
        ("a\x00", "U+0000"),
        ("名" * 10_000, "at most 300"),
        ({"decimal": "many"}, "valid decimal"),
        ({"decimal": "NaN"}, "finite"),
        ({"decimal": "1E+1000000"}, "30 digits"),
        ({"decimal": "1", "date": "2026-03-01"}, "not permitted"),
        ({"date": "2026-02-30"}, "day value is outside expected range"),
        ({"set": "vip"}, "valid tuple"),
        ({"set": ["a\x00"]}, "U+0000"),
        ({"set": ["a"] * 101}, "at most 100"),
        ({"money": {"amount": "1.00"}}, "required"),
        ({"money": {"amount": "1.00", "currency": "cny"}}, "pattern"),
        ({"money": {"amount": "0.0000001", "currency": "CNY"}}, "6 decimal places"),
        ({"money": {"amount": "Infinity", "currency": "CNY"}}, "finite"),
    ],
)
def test_an_error_in_an_attribute_speaks_of_what_was_meant(value: Any, says: str) -> None:
    """Whatever was wrong with a number or date, the error asked for a text instead."""
    error = refused(commands.RegisterCustomer, registration(attributes={"a": value}))
    assert error.field.startswith("attributes.a")
    assert says in str(error)


@pytest.mark.parametrize(
    "value",
    [
        "华东",
        12,
        commands.DecimalIn(decimal=Decimal("4.50")),
        commands.DateIn(date=date(2026, 3, 1)),
        commands.SetIn(set=("a", "b")),
        commands.MoneyAttributeIn(money=commands.MoneyIn(amount=Decimal("1.00"), currency="CNY")),
    ],
)
def test_attributes_made_in_python_are_taken_as_they_are(value: commands.AttributeIn) -> None:
    command = commands.RegisterCustomer(name="恒信", attributes={"a": value})
    assert command.attributes == {"a": value}
    # As it is read back from its JSON, of which the digest of a request is made.
    assert parse(commands.RegisterCustomer, command.model_dump(mode="json")) == command


@pytest.mark.parametrize("name", ["", "1a", "名", "a b", "a" * 61, "a\n"])
def test_attribute_names_are_ascii_words(name: str) -> None:
    refused(commands.RegisterCustomer, registration(attributes={name: 1}))


def test_lists_are_bounded() -> None:
    number = {"system": "a", "value": "b"}
    many = {f"a{n}": 1 for n in range(101)}
    refused(commands.RegisterCustomer, registration(identifiers=[number] * 21))
    refused(commands.RegisterCustomer, registration(contacts=[{"name": "王芳"}] * 51))
    refused(commands.RegisterCustomer, registration(sites=[{"name": "总部"}] * 51))
    refused(commands.RegisterCustomer, registration(attributes=many))


# --- changes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": None},
        {"removed": []},
        {"attributes": {}, "identifiers": [], "closed": None},
        {"overrides": ["check_digit"]},
    ],
)
def test_a_change_that_changes_nothing_is_refused(fields: dict[str, Any]) -> None:
    """Only a change without fields was refused; one with empty fields was recorded and decided."""
    error = refused(commands.ChangeCustomer, {"customer": "c", **fields})
    assert "changes nothing" in str(error)


@pytest.mark.parametrize(
    "fields",
    [
        {"closed": False},
        {"removed": ["parent"]},
        {"name": "新名"},
        {"attributes": {"a": 0}},
        {"contacts": [{"phone": "138"}]},
    ],
)
def test_a_change_says_something(fields: dict[str, Any]) -> None:
    parse(commands.ChangeCustomer, {"customer": "c", **fields})


@pytest.mark.parametrize(
    "word",
    [
        "parent",
        "territory",
        "attribute:region",
        "contact:con_1",
        "site:sit_1",
        "identifier:uscc",
        "identifier:税号",
        "identifier:tax id",
    ],
)
def test_what_can_be_registered_can_be_removed(word: str) -> None:
    """Identifiers of a system with a Chinese name, or with a blank in it, were there for ever."""
    change = parse(commands.ChangeCustomer, {"customer": "c", "removed": [word]})
    assert change.removed == (word,)


@pytest.mark.parametrize(
    "word", ["name", "attribute:", "contact:a b", "identifier:", "identifier:a\x00", "", "x" * 200]
)
def test_nothing_else_can_be_removed(word: str) -> None:
    refused(commands.ChangeCustomer, {"customer": "c", "removed": [word]})


# --- identifiers --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", VALID)
def test_a_valid_credit_code_is_itself(code: str) -> None:
    assert normalised_number("uscc", code, ()) == code
    assert normalised_number("uscc", f" {code[:8]}-{code[8:]} ".lower(), ()) == code


def test_a_credit_code_is_folded_before_it_is_checked() -> None:
    assert normalised_number("uscc", "９１３５０１００Ｍ０００１００Ｙ４３", ()) == VALID[0]


@pytest.mark.parametrize(
    "code", ["91350100M000100Y4Z", "91350100M000100Y44", "9135010", "税号", VALID[0][1:]]
)
def test_a_wrong_credit_code_is_a_warning_that_can_be_overridden(code: str) -> None:
    with pytest.raises(CheckDigitError) as wrong:
        normalised_number("uscc", code, ())
    assert wrong.value.code == "check_digit"
    assert "override check_digit" in wrong.value.way_out
    assert normalised_number("uscc", code, ("check_digit",)) == code


def test_other_systems_have_no_check_digit() -> None:
    assert normalised_number("税号", " Ｎo.  12\u3000 ab ", ()) == "No. 12 ab"
    assert normalised_number("erp", "C-0017", ()) == "C-0017"


@pytest.mark.parametrize("system", ["uscc", "erp"])
@pytest.mark.parametrize("value", ["-", "--", " - ", "－"])
def test_a_placeholder_is_no_identifier(system: str, value: str) -> None:
    """A dash for "none" made all customers that had it duplicates of the first."""
    with pytest.raises(InvalidRequestError):
        normalised_number(system, value, ("check_digit",))


def test_an_identifier_stays_short_when_it_is_folded() -> None:
    """One character may become eighteen: too long for the index, and the enforcer stopped."""
    with pytest.raises(InvalidRequestError):
        normalised_number("erp", "\ufdfa" * 100, ())


@given(
    st.tuples(st.just("erp"), st.text(max_size=100))
    | st.tuples(st.just("uscc"), st.text(st.characters(max_codepoint=127), max_size=100))
)
def test_a_normalised_number_is_normalised(number: tuple[str, str]) -> None:
    system, value = number
    try:
        once = normalised_number(system, value, ("check_digit",))
    except InvalidRequestError:
        return
    assert normalised_number(system, once, ("check_digit",)) == once
    assert once == once.strip() != ""


# --- times --------------------------------------------------------------------------------------


def test_a_time_within_the_tolerance_is_taken_as_it_is() -> None:
    assert occurred_within(None, NOW) is None
    for ahead in (-1_000_000, 0, 300):
        moment = NOW + timedelta(seconds=ahead)
        assert occurred_within(moment, NOW) is moment
    assert occurred_within(NOW + timedelta(seconds=60), NOW, tolerance_seconds=60) is not None


@pytest.mark.parametrize(
    ("moment", "says"),
    [
        (NOW + timedelta(seconds=301), "in the future"),
        (datetime.max.replace(tzinfo=UTC), "in the future"),
        (NOW.replace(tzinfo=None), "needs its zone"),
        (datetime(1899, 12, 31, tzinfo=UTC), "before 1900"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=8))), "before 1900"),
    ],
)
def test_a_time_that_cannot_be_is_refused(moment: datetime, says: str) -> None:
    """Times of the year 1 passed, and no calendar could count their day: the enforcer stopped."""
    with pytest.raises(InvalidRequestError, match=says) as error:
        occurred_within(moment, NOW, field="at")
    assert error.value.field == "at"


@pytest.mark.parametrize("at", ["yesterday", "2026-03-01T10:00:00", "2026-02-30T10:00:00Z", "", {}])
def test_a_malformed_time_is_refused(at: Any) -> None:
    fields = {"customer": "c", "follow_up": "f", "at": at}
    assert refused(commands.CorrectFollowUp, fields).field == "at"


@pytest.mark.parametrize("day", ["0001-01-01", "1899-12-31", "9001-01-01", "9999-12-31"])
def test_a_day_lies_where_it_has_a_first_moment_and_others_can_be_counted_from_it(
    day: str,
) -> None:
    """The first day of the calendar begins before it in UTC, east of Greenwich.

    A hold until then could not be decided, and its customer waited for an administrator.
    """
    for kind, fields in (
        (commands.HoldRecycling, {"customer": "cus_1", "until": day}),
        (commands.NameStandIn, {"customer": "cus_1", "person": "per_1", "until": day}),
        (commands.RequestCollaboration, {"customer": "cus_1", "person": "p", "from_day": day}),
        (commands.LogFollowUp, {"customer": "cus_1", "person": "per_1", "next_on": day}),
        (facts.MarkLeft, {"person": "per_1", "left_on": day}),
        (facts.MarkReturned, {"person": "per_1", "returned_on": day}),
    ):
        assert "1900-01-01" in str(refused(kind, fields)) or day > "9000"


def test_periods_have_days() -> None:
    fields = {"person": "per_1", "from_day": "2026-03-02", "until_day": "2026-03-02"}
    error = refused(facts.MarkAway, fields)
    assert "until_day must lie behind from_day" in str(error)
    refused(facts.NameDelegate, {**fields, "delegate": "per_2"})


@pytest.mark.parametrize("zone", ["Shanghai", "", "../etc/passwd", "Asia/Shanghai\x00", "CST8"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    error = refused(facts.FoundOrganisation, {"name": "公司", "time_zone": zone})
    assert error.field == "time_zone"


# --- every command ------------------------------------------------------------------------------


def command_types() -> list[type[Command]]:
    kinds = (*typing.get_args(commands.CustomerCommand), *typing.get_args(facts.FactCommand))
    return [kind for kind in kinds if issubclass(kind, Command)]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(st.sampled_from(command_types()), st.data())
def test_whatever_is_sent_is_a_command_or_a_typed_error(
    kind: type[Command], data: st.DataObject
) -> None:
    names = st.sampled_from(sorted(kind.model_fields)) | st.text(max_size=5)
    fields = data.draw(st.dictionaries(names, json, max_size=6))
    try:
        command = parse(kind, fields)
    except InvalidRequestError:
        refused(kind, fields)
    else:
        assert kind.model_validate(command.model_dump()) == command


def test_an_unknown_id_says_what_is_unknown() -> None:
    error = UnknownIdError("customer", "cus_9")
    assert (error.code, str(error)) == ("unknown_id", "There is no customer cus_9.")
