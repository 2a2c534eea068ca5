"""Columns of a batch as binary arrays, for ``unnest``: text and instants, with NULL.

A batch of rows as arrays costs the server a fraction of what the same rows cost as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct

from ledger.store import arrays
from ledger.store.arrays import BinaryArray

_TEXT, _TIMESTAMPTZ = 25, 1184
_TEXT_ARRAY, _TIMESTAMPTZ_ARRAY = 1009, 1185
# Instants count microseconds from here (PostgreSQL, src/include/datatype/timestamp.h).
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_head = Struct("!iiiii").pack
_length = Struct("!i").pack
_int8 = Struct("!iq").pack
_NULL = _length(-1)


def texts(items: Sequence[str | None]) -> BinaryArray:
    """Return ``text[]``; None becomes NULL."""
    if None not in items:
        return arrays.text_array(items)  # type: ignore[arg-type]  # no None is in it
    parts: list[bytes] = [_head(1, 1, _TEXT, len(items), 1)]
    for item in items:
        if item is None:
            parts.append(_NULL)
        else:
            encoded = item.encode()
            parts.append(_length(len(encoded)))
            parts.append(encoded)
    return BinaryArray(_TEXT_ARRAY, b"".join(parts))


def instants(items: Sequence[datetime | None]) -> BinaryArray:
    """Return ``timestamptz[]`` of times with zone; None becomes NULL."""
    if not items:
        return BinaryArray(_TIMESTAMPTZ_ARRAY, Struct("!iii").pack(0, 0, _TIMESTAMPTZ))
    parts = [_head(1, 1, _TIMESTAMPTZ, len(items), 1)]
    parts += [
        _NULL if item is None else _int8(8, (item - _EPOCH) // _MICROSECOND) for item in items
    ]
    return BinaryArray(_TIMESTAMPTZ_ARRAY, b"".join(parts))
