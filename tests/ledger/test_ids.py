"""Ids: opaque, in the order of their making, or always the same for an imported row."""

from __future__ import annotations

import uuid

import pytest

from ledger import ids


def test_new_ids_say_what_they_name_and_sort_by_their_making() -> None:
    made = [ids.new_id(ids.CUSTOMER) for _ in range(1_000)]
    assert made == sorted(set(made))
    prefix, bits = made[0].split("_")
    assert prefix == "cus"
    assert uuid.UUID(bits).version == 7


def test_a_derived_id_is_for_ever() -> None:
    """Imports name the same things by it again; another form would import everything twice."""
    derived = ids.derived_id(ids.PERSON, "crm", "Moses", "")
    assert derived == "per_0214c219-9c18-803e-aaed-6fab5ab2f53a"


def test_a_derived_id_is_a_uuid_of_version_8() -> None:
    bits = uuid.UUID(ids.derived_id(ids.DEAL, "crm", "row 1").split("_")[1])
    assert (bits.version, bits.variant) == (8, uuid.RFC_4122)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a", "bc"), ("ab", "c")), (("a",), ("a", "")), (("a", "b"), ("b", "a"))],
)
def test_derived_ids_tell_parts_apart(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert ids.derived_id(ids.DEAL, *one) != ids.derived_id(ids.DEAL, *other)


def test_what_is_of_another_kind_has_another_id() -> None:
    assert ids.derived_id(ids.DEAL, "a") != ids.derived_id(ids.FOLLOW_UP, "a")
