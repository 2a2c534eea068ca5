"""The bytes of events are fixed for ever; the vectors here may never change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from ledger.canonical import (
    DEPTH_MAX,
    ENTRY_BYTES_MAX,
    INTEGER_MAX,
    Entry,
    canonical_bytes,
    instant,
    leaf_hash,
)
from ledger.errors import EntryTooLargeError, LedgerError, NotCanonicalError, TextRefusedError

RECORDED = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
KEYS = st.text(st.characters(min_codepoint=1, max_codepoint=127))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_bodies_are_byte_for_byte_those_of_the_rfc8785_package(body: dict[str, object]) -> None:
    assert canonical_bytes(body) == rfc8785.dumps(body)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "正常\udfff"])
def test_text_that_no_database_or_reader_can_hold_is_refused(text: str) -> None:
    for body in ({"name": text}, {"names": [text]}, {"a": {"b": text}}):
        with pytest.raises(TextRefusedError) as refused:
            canonical_bytes(body)
        assert refused.value.code == "text_refused"
        assert refused.value.way_out


@pytest.mark.parametrize(
    "body",
    [
        {"amount": 1.5},
        {"amount": float("nan")},
        {"amount": INTEGER_MAX + 1},
        {"amount": -INTEGER_MAX - 1},
        {"at": RECORDED},
        {"名": "x"},
        {1: "x"},
        {"tags": {"a"}},
        {"raw": b"x"},
    ],
)
def test_values_with_more_than_one_written_form_are_refused(body: dict[str, object]) -> None:
    with pytest.raises(NotCanonicalError):
        canonical_bytes(body)


def test_a_hostile_depth_is_a_typed_error() -> None:
    deep: object = "x"
    for _ in range(DEPTH_MAX + 50):
        deep = [deep]
    with pytest.raises(NotCanonicalError):
        canonical_bytes({"deep": deep})


def test_instants_are_utc_with_six_digits() -> None:
    shanghai = timezone(timedelta(hours=8))
    assert instant(datetime(2026, 3, 1, 17, 30, tzinfo=shanghai)) == "2026-03-01T09:30:00.000000Z"
    with pytest.raises(NotCanonicalError):
        instant(datetime(2026, 3, 1, 17, 30))  # noqa: DTZ001 - the naive time is the point


def test_an_entry_and_its_leaf_hash_have_these_very_bytes() -> None:
    body = canonical_bytes({"request_id": "r-1", "data": {"name": "归属"}})
    entry = Entry(1, RECORDED, "customer-cus_1", 1, "ClaimFiled.v1", body).to_bytes()
    assert entry == (
        b"1 2026-03-01T09:30:00.000000Z customer-cus_1 1 ClaimFiled.v1\n"
        b'{"data":{"name":"\xe5\xbd\x92\xe5\xb1\x9e"},"request_id":"r-1"}'
    )
    assert (
        leaf_hash(entry).hex() == "c5747a79793802c184eec2bda5ded98b4ce258f50df271933445084d03e45bcb"
    )


def test_the_leaf_of_nothing_is_the_one_that_rfc_6962_defines() -> None:
    """The published vector for the leaf of an empty entry, as certificate logs use it."""
    expected = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"").hex() == expected


@pytest.mark.parametrize("word", ["", "two words", "线", "line\n"])
def test_a_name_that_would_break_the_head_line_is_refused(word: str) -> None:
    for entry in (Entry(1, RECORDED, word, 1, "N", b""), Entry(1, RECORDED, "s", 1, word, b"")):
        with pytest.raises(NotCanonicalError):
            entry.to_bytes()


@pytest.mark.parametrize(("position", "version"), [(0, 1), (1, -1)])
def test_positions_start_at_one_and_no_version_is_negative(position: int, version: int) -> None:
    with pytest.raises(NotCanonicalError):
        Entry(position, RECORDED, "s", version, "N", b"").to_bytes()


def test_an_entry_may_have_65535_bytes_and_not_one_more() -> None:
    head = len(Entry(1, RECORDED, "s", 1, "N", b"").to_bytes())
    room = ENTRY_BYTES_MAX - head
    assert len(Entry(1, RECORDED, "s", 1, "N", b"x" * room).to_bytes()) == ENTRY_BYTES_MAX
    with pytest.raises(EntryTooLargeError) as refused:
        Entry(1, RECORDED, "s", 1, "N", b"x" * (room + 1)).to_bytes()
    assert isinstance(refused.value, LedgerError)
