"""An event comes out of its record as it went in, byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.kafka.chain import Placed
from consumers.kafka.records import (
    Asked,
    ForeignRecordError,
    Linked,
    Mark,
    UnreadableRecordError,
    decode,
    encode,
    encode_mark,
)
from ledger.envelope import StoredEvent

POSITIONS = st.integers(1, 2**63 - 1)
EVENTS = st.builds(
    StoredEvent,
    position=POSITIONS,
    recorded=st.datetimes(min_value=datetime(2000, 1, 1)).map(lambda at: at.replace(tzinfo=UTC)),  # noqa: DTZ001
    stream=st.from_regex(r"\A(customer|ownership|person)-[!-~]{1,40}\Z"),
    version=st.integers(0, 2**31 - 1),
    name=st.from_regex(r"\A[!-~]{1,40}\Z"),
    body=st.binary(),
    causation=st.none() | POSITIONS,
    ordinal=st.none() | st.integers(0, 2**31 - 1),
)


ASKED = st.builds(Asked, st.integers(1, 10_000), st.binary())


def event(name: str = "OwnershipGranted.v1") -> StoredEvent:
    at = datetime(2026, 3, 1, 1, 2, 3, 4, tzinfo=UTC)
    return StoredEvent(12, at, "ownership-cus_1", 3, name, b'{"a":1}', 9, 0)


def request() -> StoredEvent:
    at = datetime(2026, 3, 1, 1, 2, 3, 4, tzinfo=UTC)
    return StoredEvent(9, at, "customer-cus_1", 3, "ClaimFiled.v1", b"{}")


@given(EVENTS, st.integers(0, 9), st.integers(0, 2**63 - 1), st.none() | ASKED)
def test_an_event_comes_out_as_it_went_in(
    event: StoredEvent, generation: int, previous: int, asked: Asked | None
) -> None:
    key, value, headers = encode(Placed(event, 1, previous), generation, asked)
    assert key.decode() == event.stream.partition("-")[2]
    assert decode(value, headers) == Linked(event, generation, previous, asked)


def test_the_words_of_a_record_are_fixed() -> None:
    """Readers of another version of guishu, and topics that were filled before, rely on them."""
    assert encode(Placed(event(), 1, 7), 2) == (
        b"cus_1",
        b"guishu/1 2 7 12 2026-03-01T01:02:03.000004Z ownership-cus_1 3 OwnershipGranted.v1 9 0"
        b' - -\n{"a":1}',
        [],
    )
    assert encode(Placed(request(), 1, 7), 2, Asked(1, b"\x00\xff")).value == (
        b"guishu/1 2 7 9 2026-03-01T01:02:03.000004Z customer-cus_1 3 ClaimFiled.v1 - - 1 AP8=\n{}"
    )
    assert encode_mark(Mark(12, 2, 7)) == (b"", b"guishu/1 2 7 12", [])


ENTRY = ("entry", b"12 2026-03-01T01:02:03.000004Z ownership-cus_1 3 OwnershipGranted.v1")
LINK = ("link", b"2 7")
CAUSE = ("cause", b"9 0")


def test_records_of_the_first_format_are_read() -> None:
    """Topics hold what was sent before the head stood in the value."""
    assert decode(b'{"a":1}', [ENTRY, LINK, CAUSE]) == Linked(event(), 2, 7)
    headers = [
        ("entry", b"9 2026-03-01T01:02:03.000004Z customer-cus_1 3 ClaimFiled.v1"),
        LINK,
        ("asked", b"1 AP8="),
    ]
    assert decode(b"{}", headers) == Linked(request(), 2, 7, Asked(1, b"\x00\xff"))
    assert decode(b"", [("upto", b"12"), LINK]) == Mark(12, 2, 7)


@given(st.builds(Mark, POSITIONS, st.integers(0, 9), POSITIONS))
def test_a_mark_comes_out_as_it_went_in(mark: Mark) -> None:
    _, value, headers = encode_mark(mark)
    assert decode(value, headers) == mark


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"1 2",
        b"1 2 3 4",
        b"1 2 many",
        b"1 2 3 2026-03-01T00:00:00.000000Z customer-a 1 ClaimFiled.v1 - - -",
        b"1 2 3 yesterday customer-a 1 ClaimFiled.v1 - - - -",
        b"1 2 3 2026-03-01T00:00:00.000000Z customer-a 1 ClaimFiled.v1 - - - AP8=",
        b"1 2 3 2026-03-01T00:00:00.000000Z customer-a 1 ClaimFiled.v1 - - 1 -",
        b"1 2 3 2026-03-01T00:00:00.000000Z customer-a 1 ClaimFiled.v1 - - 1 AP8",
        b"1 2 3 2026-03-01T00:00:00.000000Z customer-\xff 1 ClaimFiled.v1 - - - -",
    ],
)
def test_a_head_that_is_not_as_ours_are_is_an_error(value: bytes) -> None:
    with pytest.raises(UnreadableRecordError) as refused:
        decode(b"guishu/1 " + value + b"\n{}", [])
    assert type(refused.value) is UnreadableRecordError


def test_a_record_of_a_later_format_is_no_stranger_s() -> None:
    """It tells of a position, which this version cannot read."""
    with pytest.raises(UnreadableRecordError) as refused:
        decode(b"guishu/2 1 0 7", [])
    assert type(refused.value) is UnreadableRecordError


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [LINK, CAUSE],
        [ENTRY, CAUSE],
        [("link", b"1 0"), ("upto", b"many")],
        [("link", b"1"), ("upto", b"1")],
        [("link", b"\xff 0"), ("upto", b"1")],
        [("link", b"1 0"), ("entry", b"1 2026-03-01T00:00:00.000000Z customer-a 1")],
        [ENTRY, LINK, ("cause", b"9")],
        [("link", None), ("upto", b"1")],
        [ENTRY, ("link", None)],
        [ENTRY, LINK, ("asked", b"1")],
        [ENTRY, LINK, ("asked", b"1 AP8")],
    ],
)
def test_what_is_not_of_our_making_is_an_error(
    headers: list[tuple[str, bytes | None]],
) -> None:
    """Of a header without a value, which others may send, the feed ended with a defect."""
    with pytest.raises(UnreadableRecordError):
        decode(b"{}", headers)


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff", b"guishu 1 0 7"])
@pytest.mark.parametrize("headers", [[], [("trace", b"\xff")], [ENTRY]])
def test_what_does_not_even_say_what_it_links_to_is_a_stranger_s(
    value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    with pytest.raises(ForeignRecordError):
        decode(value, headers)
