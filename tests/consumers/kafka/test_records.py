"""An event comes out of its record as it went in, byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.kafka.chain import Placed
from consumers.kafka.records import (
    Asked,
    ForeignRecordError,
    Headers,
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


@given(EVENTS, st.integers(0, 9), st.integers(0, 2**63 - 1), st.none() | ASKED)
def test_an_event_comes_out_as_it_went_in(
    event: StoredEvent, generation: int, previous: int, asked: Asked | None
) -> None:
    key, value, headers = encode(Placed(event, 1, previous), generation, asked)
    assert key.decode() == event.stream.partition("-")[2]
    assert decode(value, headers) == Linked(event, generation, previous, asked)


def test_the_words_of_a_record_are_fixed() -> None:
    """Readers of another version of guishu, and topics that were filled before, rely on them."""
    at = datetime(2026, 3, 1, 1, 2, 3, 4, tzinfo=UTC)
    event = StoredEvent(12, at, "ownership-cus_1", 3, "OwnershipGranted.v1", b'{"a":1}', 9, 0)
    assert encode(Placed(event, 1, 7), 2) == (
        b"cus_1",
        b'{"a":1}',
        [
            ("entry", b"12 2026-03-01T01:02:03.000004Z ownership-cus_1 3 OwnershipGranted.v1"),
            ("link", b"2 7"),
            ("cause", b"9 0"),
        ],
    )
    request = StoredEvent(9, at, "customer-cus_1", 3, "ClaimFiled.v1", b"{}")
    assert encode(Placed(request, 1, 7), 2, Asked(1, b"\x00\xff"))[2][2:] == [("asked", b"1 AP8=")]
    mark = (b"", b"", [("upto", b"12"), ("link", b"2 7")])
    assert encode_mark(Mark(12, 2, 7)) == mark


@given(st.builds(Mark, POSITIONS, st.integers(0, 9), POSITIONS))
def test_a_mark_comes_out_as_it_went_in(mark: Mark) -> None:
    _, value, headers = encode_mark(mark)
    assert decode(value, headers) == mark


def without(name: str) -> Headers:
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(microseconds=1)
    event = StoredEvent(12, at, "ownership-cus_1", 3, "OwnershipGranted.v1", b"{}")
    return [each for each in encode(Placed(event, 1, 7), 2).headers if each[0] != name]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        *(without(name) for name, _ in without("")),
        [("link", b"1 0"), ("upto", b"many")],
        [("link", b"1"), ("upto", b"1")],
        [("link", b"\xff 0"), ("upto", b"1")],
        [("link", b"1 0"), ("entry", b"1 2026-03-01T00:00:00.000000Z customer-a 1")],
        [*without(""), ("cause", b"9")],
        [("link", None), ("upto", b"1")],
        [*without("link"), ("link", None)],
        [*without(""), ("asked", b"1")],
        [*without(""), ("asked", b"1 AP8")],
    ],
)
def test_what_is_not_of_our_making_is_an_error(
    headers: list[tuple[str, bytes | None]],
) -> None:
    """Of a header without a value, which others may send, the feed ended with a defect."""
    with pytest.raises(UnreadableRecordError):
        decode(b"{}", headers)


@pytest.mark.parametrize("headers", [[], [("trace", b"\xff")], [*without("link")]])
def test_what_does_not_even_say_what_it_links_to_is_a_stranger_s(
    headers: list[tuple[str, bytes | None]],
) -> None:
    with pytest.raises(ForeignRecordError):
        decode(b"{}", headers)
