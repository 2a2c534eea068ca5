"""Arrays in PostgreSQL's binary format, packed in one go.

psycopg's own list dumpers look up a dumper for every element (its text arrays even quote each by a
regular expression); for the arrays of an append that is most of the group's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import repeat
from struct import Struct

from psycopg.abc import AdaptContext, Buffer, DumperKey
from psycopg.adapt import Dumper, PyFormat
from psycopg.pq import Format

_BYTEA, _INT8, _INT4, _TEXT = 17, 20, 23, 25
_ARRAY_OF = {_BYTEA: 1001, _INT8: 1016, _INT4: 1007, _TEXT: 1009}


@cache
def _marker(oid: int) -> type:
    """Return a type that stands for an array type: psycopg keys its dumpers by types."""
    return type(f"Array{oid}", (), {})


_length = Struct("!i").pack
_int4 = Struct("!ii").pack
_int8 = Struct("!iq").pack
_NULL = _length(-1)


class BinaryArray:
    """A ready binary array parameter; ``oid`` is the array's type."""

    __slots__ = ("data", "oid")

    def __init__(self, oid: int, data: bytes) -> None:
        self.oid = oid
        self.data = data


class BinaryArrayDumper(Dumper):
    """Passes a BinaryArray through as it is; needs placeholders written ``%b``."""

    format = Format.BINARY

    def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self.oid = 0

    def get_key(self, obj: BinaryArray, format: PyFormat) -> DumperKey:
        # The element type goes into the key, as in psycopg's own list dumpers.
        return (self.cls, (_marker(obj.oid),))

    def upgrade(self, obj: BinaryArray, format: PyFormat) -> BinaryArrayDumper:
        dumper = BinaryArrayDumper(self.cls)
        dumper.oid = obj.oid
        return dumper

    def dump(self, obj: BinaryArray) -> Buffer:
        return obj.data


def register(context: AdaptContext) -> None:
    """Teach a connection (or pool's connection) to send BinaryArray parameters."""
    context.adapters.register_dumper(BinaryArray, BinaryArrayDumper)


_head = Struct("!iiiii").pack
_EMPTY = Struct("!iii").pack


def _array(element: int, count: int, data: bytes, *, has_null: bool) -> BinaryArray:
    if count == 0:
        return BinaryArray(_ARRAY_OF[element], _EMPTY(0, 0, element))
    # One dimension, whose index begins at 1.
    return BinaryArray(_ARRAY_OF[element], _head(1, has_null, element, count, 1) + data)


def _of_bytes(element: int, items: Sequence[bytes]) -> BinaryArray:
    parts = [b""] * (2 * len(items))
    parts[::2] = list(map(_length, map(len, items)))
    parts[1::2] = items
    data = b"".join(parts)
    return _array(element, len(items), data, has_null=False)


def bytea_array(items: Sequence[bytes]) -> BinaryArray:
    """Return ``bytea[]``."""
    return _of_bytes(_BYTEA, items)


def text_array(items: Sequence[str]) -> BinaryArray:
    """Return ``text[]``."""
    return _of_bytes(_TEXT, list(map(str.encode, items)))


def int8_array(items: Sequence[int | None]) -> BinaryArray:
    """Return ``bigint[]``; None becomes NULL."""
    if None not in items:
        data = b"".join(map(_int8, repeat(8), items))
        return _array(_INT8, len(items), data, has_null=False)
    data = b"".join([_NULL if item is None else _int8(8, item) for item in items])
    return _array(_INT8, len(items), data, has_null=True)


def int4_array(items: Sequence[int | None]) -> BinaryArray:
    """Return ``integer[]``; None becomes NULL."""
    if None not in items:
        data = b"".join(map(_int4, repeat(4), items))
        return _array(_INT4, len(items), data, has_null=False)
    data = b"".join([_NULL if item is None else _int4(4, item) for item in items])
    return _array(_INT4, len(items), data, has_null=True)
