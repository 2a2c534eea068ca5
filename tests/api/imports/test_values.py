"""From text to names, moments, numbers and money."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.imports.rejects import RejectReason, RowRejectedError
from api.imports.values import (
    DATE_FORMATS_DEFAULT,
    DateReader,
    NumberReader,
    currency_code,
    date_format_problem,
    from_microseconds,
    match_key,
    microseconds,
)

SHANGHAI = ZoneInfo("Asia/Shanghai")
NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alder  Works", "alder works "),
        ("ＡＬＤＥＲ　Works", "alder works"),
        ("远山（上海）贸易", "远山(上海)贸易"),
        ("Straße", "STRASSE"),
        ("a\u200blder", "alder"),
        ("İstanbul", "i̇stanbul"),
        ("line\r\nbreak", "line break"),
    ],
)
def test_names_that_are_the_same(one: str, other: str) -> None:
    assert match_key(one) == match_key(other)


def test_names_that_are_not_the_same() -> None:
    assert match_key("远山贸易") != match_key("远山 贸易")
    assert match_key("\u200b \u202e") == ""


@given(st.text())
def test_match_key_of_a_match_key_is_itself(text: str) -> None:
    assert match_key(match_key(text)) == match_key(text)


def reason_of(reader: DateReader, text: str) -> RejectReason:
    with pytest.raises(RowRejectedError) as caught:
        reader.instant(reader.read(text))
    return caught.value.reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-02-29", date(2024, 2, 29)),
        ("2024/2/9", date(2024, 2, 9)),
        ("２０２４年２月９日", date(2024, 2, 9)),
        ("2024-02-29 14:05", datetime.fromisoformat("2024-02-29 14:05:00")),
        ("2024-02-29T14:05:06", datetime.fromisoformat("2024-02-29 14:05:06")),
        ("2024-02-29T14:05:06Z", datetime(2024, 2, 29, 14, 5, 6, tzinfo=UTC)),
        (
            "2024-02-29T14:05:06+08:00",
            datetime(2024, 2, 29, 14, 5, 6, tzinfo=timezone(timedelta(hours=8))),
        ),
    ],
)
def test_dates_by_the_formats_that_need_no_mapping(text: str, value: date) -> None:
    reader = DateReader(DATE_FORMATS_DEFAULT, SHANGHAI)
    assert reader.read(text) == value


def test_date_is_the_beginning_of_the_day_in_the_time_zone() -> None:
    reader = DateReader(["%m/%d/%Y"], SHANGHAI)
    assert reader.instant(reader.read("3/1/2024")) == datetime(2024, 2, 29, 16, tzinfo=UTC)
    assert reader.day(datetime(2024, 2, 29, 16, tzinfo=UTC)) == date(2024, 3, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("31.2.2024", RejectReason.DATE_DOES_NOT_EXIST),
        ("29.2.2023", RejectReason.DATE_DOES_NOT_EXIST),
        ("1.13.2024", RejectReason.DATE_DOES_NOT_EXIST),
        ("1.2.24", RejectReason.YEAR_OF_TWO_DIGITS),
        ("31.2.24", RejectReason.YEAR_OF_TWO_DIGITS),
        ("2024-02-01", RejectReason.DATE_UNREADABLE),
        ("soon", RejectReason.DATE_UNREADABLE),
        ("1.2.2024 10:00", RejectReason.DATE_UNREADABLE),
        ("45351", RejectReason.DATE_UNREADABLE),
        ("31.12.1899", RejectReason.DATE_OUT_OF_RANGE),
        ("1.1.0001", RejectReason.DATE_OUT_OF_RANGE),
        ("31.12.9999", RejectReason.DATE_OUT_OF_RANGE),
    ],
)
def test_dates_that_are_rejected(text: str, reason: RejectReason) -> None:
    assert reason_of(DateReader(["%d.%m.%Y"], SHANGHAI), text) is reason


def test_date_that_two_formats_read_differently_is_ambiguous() -> None:
    reader = DateReader(["%d/%m/%Y", "%m/%d/%Y"], SHANGHAI)
    assert reason_of(reader, "1/2/2024") is RejectReason.DATE_AMBIGUOUS
    assert reader.read("13/2/2024") == date(2024, 2, 13)
    assert reader.read("2/2/2024") == date(2024, 2, 2)


def test_two_digit_years_where_the_mapping_says_the_century() -> None:
    reader = DateReader(["%d.%m.%y"], SHANGHAI, two_digit_years_from=1970)
    assert reader.read("1.2.70") == date(1970, 2, 1)
    assert reader.read("1.2.69") == date(2069, 2, 1)
    assert reader.read("29.2.24") == date(2024, 2, 29)
    later = DateReader(["%d.%m.%y"], SHANGHAI, two_digit_years_from=1900)
    # 2000 had a 29th of February, and 1900 had none.
    assert reason_of(later, "29.2.00") is RejectReason.DATE_DOES_NOT_EXIST


@pytest.mark.parametrize(
    ("zone", "text", "reason"),
    [
        ("America/New_York", "2024-03-10 02:30", RejectReason.TIME_IN_GAP),
        ("America/New_York", "2024-11-03 01:30", RejectReason.TIME_IN_OVERLAP),
        ("Pacific/Apia", "2011-12-30", RejectReason.DATE_DOES_NOT_EXIST),
        ("Pacific/Apia", "2011-12-30 12:00", RejectReason.TIME_IN_GAP),
    ],
)
def test_times_that_the_clocks_skipped_or_showed_twice(
    zone: str, text: str, reason: RejectReason
) -> None:
    assert reason_of(DateReader(DATE_FORMATS_DEFAULT, ZoneInfo(zone)), text) is reason


def test_times_beside_a_change_of_clocks() -> None:
    reader = DateReader(DATE_FORMATS_DEFAULT, NEW_YORK)
    assert reader.instant(reader.read("2024-03-10 01:59")) == datetime(
        2024, 3, 10, 6, 59, tzinfo=UTC
    )
    assert reader.instant(reader.read("2024-03-10 03:00")) == datetime(2024, 3, 10, 7, tzinfo=UTC)
    assert reader.instant(reader.read("2024-11-03T01:30:00-04:00")) == datetime(
        2024, 11, 3, 5, 30, tzinfo=UTC
    )


def test_day_whose_midnight_was_skipped_begins_at_the_change() -> None:
    reader = DateReader(DATE_FORMATS_DEFAULT, ZoneInfo("America/Sao_Paulo"))
    # On 4 November 2018 the clocks went from 23:59:59 to 01:00.
    assert reader.instant(date(2018, 11, 4)) == datetime(2018, 11, 4, 3, tzinfo=UTC)


def test_day_whose_midnight_came_twice_begins_at_the_first() -> None:
    reader = DateReader(DATE_FORMATS_DEFAULT, ZoneInfo("America/Havana"))
    assert reader.instant(date(2023, 11, 5)) == datetime(2023, 11, 5, 4, tzinfo=UTC)


@given(st.dates(date(1900, 1, 1), date(9999, 12, 30)), st.sampled_from(["%d.%m.%Y", "%Y/%m/%d"]))
def test_any_day_written_in_a_format_comes_back(day: date, date_format: str) -> None:
    reader = DateReader([date_format], SHANGHAI)
    # Not strftime: it leaves the noughts off early years on some systems.
    text = date_format.replace("%Y", f"{day.year:04}").replace("%m", str(day.month))
    assert reader.read(text.replace("%d", str(day.day))) == day
    assert reader.day(reader.instant(day)) == day


@pytest.mark.parametrize(
    "date_format", ["%d.%m", "%d.%m.%y", "%Q", "%Y-%j", "%Y-%m-%d %Y", "%", "%c"]
)
def test_formats_that_a_mapping_may_not_have(date_format: str) -> None:
    assert date_format_problem(date_format, two_digit_years=False)


@given(st.datetimes(min_value=datetime.fromisoformat("1900-01-01"), timezones=st.just(UTC)))
def test_microseconds_are_exact(instant: datetime) -> None:
    assert from_microseconds(microseconds(instant)) == instant


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1054", "1054"),
        ("1,054.00", "1054.00"),
        ("1 054.5", "1054.5"),
        ("1\u202f054\u00a0000", "1054000"),
        ("1'054.5", "1054.5"),
        ("１，０５４．５", "1054.5"),
        (".5", "0.5"),
        ("-12.50", "-12.50"),
        ("\u221212", "-12"),
        ("(1,054.00)", "-1054.00"),
        ("+3", "3"),
        ("-0", "0"),
        ("0.1", "0.1"),
        ("1234567890123456789.012345678", "1234567890123456789.012345678"),
    ],
)
def test_numbers(text: str, number: str) -> None:
    found = NumberReader().decimal(text)
    assert found == Decimal(number)
    assert found.as_tuple().exponent == Decimal(number).as_tuple().exponent


@pytest.mark.parametrize(
    "text", ["", "-", "1,05", "1,0540", "1.2.3", "12a", "1e5", "NaN", "∞", "1,"]
)
def test_texts_that_are_no_numbers(text: str) -> None:
    with pytest.raises(RowRejectedError) as caught:
        NumberReader().decimal(text)
    assert caught.value.reason is RejectReason.NUMBER_UNREADABLE


def test_numbers_that_are_too_long() -> None:
    with pytest.raises(RowRejectedError) as caught:
        NumberReader().decimal("9" * 29)
    assert caught.value.reason is RejectReason.NUMBER_OUT_OF_RANGE
    with pytest.raises(RowRejectedError) as caught:
        NumberReader().integer(str(2**53))
    assert caught.value.reason is RejectReason.NUMBER_OUT_OF_RANGE
    assert NumberReader().integer("9,007,199,254,740,991.00") == 2**53 - 1


def test_decimal_commas() -> None:
    reader = NumberReader(",")
    assert reader.decimal("1.054,50") == Decimal("1054.50")
    assert reader.decimal("0,1") == Decimal("0.1")
    with pytest.raises(RowRejectedError):
        reader.decimal("1,054.50")


@pytest.mark.parametrize(
    ("text", "currency", "amount"),
    [
        ("¥1,054.00", "CNY", "1054.00"),
        ("￥1054", "CNY", "1054"),
        ("1054元", "CNY", "1054"),
        ("CNY 1054", "CNY", "1054"),
        ("-$12.5", "USD", "-12.5"),
        ("HK$ 7", "HKD", "7"),
        ("1 054 €", "EUR", "1054"),
    ],
)
def test_amounts_may_carry_the_sign_of_their_currency(
    text: str, currency: str, amount: str
) -> None:
    assert NumberReader().amount(text, currency) == Decimal(amount)


@pytest.mark.parametrize(("text", "currency"), [("$5", "CNY"), ("5 EUR", "USD"), ("¥", "CNY")])
def test_amounts_in_another_currency_are_rejected(text: str, currency: str) -> None:
    with pytest.raises(RowRejectedError):
        NumberReader().amount(text, currency)


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=4, min_value=-(10**20), max_value=10**20
    )
)
def test_any_decimal_comes_back_exactly(number: Decimal) -> None:
    found = NumberReader().decimal(format(number, ",.4f"))
    assert found == number
    assert found.as_tuple().exponent == -4


def test_currency_codes() -> None:
    assert currency_code(" usd") == "USD"
    for text in ("", "dollar", "U1D"):
        with pytest.raises(RowRejectedError):
            currency_code(text)
