"""The exact bytes of an event: RFC 8785 bodies, entries, and their RFC 6962 leaf hashes.

These formats are fixed for ever: the audit proofs are computed over these bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from ledger.errors import EntryTooLargeError, NotCanonicalError, TextRefusedError

# Two bytes of length stand before an entry in a C2SP entry bundle.
ENTRY_BYTES_MAX = 65_535

# Beyond 2^53 - 1 a JSON reader in another language may round (RFC 8785, section 3.2.2.3).
INTEGER_MAX = 2**53 - 1

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

# Far above any real event; keeps a hostile body from exhausting the interpreter's stack.
DEPTH_MAX = 64


def instant(moment: datetime) -> str:
    """Return ``moment`` as RFC 3339 UTC with six digits and ``Z``.

    Raises NotCanonicalError where the time has no zone.
    """
    if moment.utcoffset() is None:
        raise NotCanonicalError(
            f"The time {moment.isoformat()} has no zone.", way_out="State the time with its zone."
        )
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


# What orjson itself refuses with these options needs no look of ours: lone surrogates, keys that
# are no text, integers beyond 2^53 - 1, dates, dataclasses and subclasses of the plain types.
_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
)
_PLAIN = frozenset({str, int, bool, type(None)})


def canonical_bytes(body: Mapping[str, object]) -> bytes:
    """Return the RFC 8785 bytes of ``body``.

    Allowed are null, booleans, integers within +-(2^53 - 1), text, lists and objects with ASCII
    keys: for these sorted compact JSON *is* RFC 8785. Raises NotCanonicalError or
    TextRefusedError for anything else.
    """
    # Quick for what is right, as nearly everything is; the slow walk finds the words for the rest.
    if _looks_canonical(body, 0):
        try:
            written = orjson.dumps(body, option=_OPTIONS)
        except (TypeError, ValueError):
            written = b"\\u0000"
        if b"\\u0000" not in written:
            return written
    _check(body, "$", 0)
    return orjson.dumps(body, option=_OPTIONS)


def _looks_canonical(value: object, depth: int) -> bool:
    """Say whether every container is plain, every key ASCII and every leaf of a plain type."""
    if depth > DEPTH_MAX:
        return False
    leaves: Iterable[object]
    if type(value) is dict:
        try:
            if not "".join(value).isascii():  # refuses what is no text; orjson does subclasses
                return False
        except TypeError:
            return False
        leaves = value.values()
    elif type(value) is list or type(value) is tuple:
        leaves = value
    else:
        return False
    for leaf in leaves:  # no all(...): a generator for each container took half of the time
        if type(leaf) not in _PLAIN and not _looks_canonical(leaf, depth + 1):
            return False
    return True


def _check(value: object, path: str, depth: int) -> None:
    # Exact types: orjson would also write subclasses (enums, dates), each in a way of its own.
    if depth > DEPTH_MAX:
        raise NotCanonicalError(
            f"The body is nested more than {DEPTH_MAX} levels deep.", way_out="Flatten the data."
        )
    kind = type(value)
    if kind is str:
        _check_text(value, path)  # type: ignore[arg-type]
    elif kind is dict:
        for key, inner in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not key.isascii():
                raise NotCanonicalError(
                    f"The key {key!r} at {path} is not ASCII text.", way_out="Use ASCII keys."
                )
            _check_text(key, path)
            _check(inner, f"{path}.{key}", depth + 1)
    elif kind is list or kind is tuple:
        for index, inner in enumerate(value):  # type: ignore[arg-type]
            _check(inner, f"{path}[{index}]", depth + 1)
    elif kind is int:
        if abs(value) > INTEGER_MAX:  # type: ignore[arg-type]
            raise NotCanonicalError(
                f"The integer at {path} is beyond 2^53 - 1.", way_out="Write it as a string."
            )
    elif value is not None and kind is not bool:
        raise NotCanonicalError(
            f"A {kind.__name__} at {path} has no canonical form.",
            way_out="Write numbers that are not whole as decimal strings, times as instants.",
        )


def _check_text(text: str, path: str) -> None:
    if "\x00" in text or _LONE_SURROGATE.search(text):
        raise TextRefusedError(
            f"The text at {path} holds U+0000 or a lone surrogate.",
            way_out="Remove the character, or read the file in its real encoding.",
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log: ``<position> <recorded time> <stream> <version> <name>``, LF, body."""

    position: int
    recorded: datetime
    stream: str
    version: int
    name: str
    body: bytes

    def to_bytes(self) -> bytes:
        """Return the entry's bytes; raises NotCanonicalError or EntryTooLargeError."""
        # The library's own recorders let a stream begin at version 0 as well as at 1.
        if self.position < 1 or self.version < 0:
            raise NotCanonicalError(
                "Positions are counted from 1, and no version is negative.",
                way_out="Number the entry from 1.",
            )
        for word in (self.stream, self.name):
            if not word or not word.isascii() or not word.isprintable() or " " in word:
                raise NotCanonicalError(
                    f"{word!r} is empty, or not printable ASCII without spaces.",
                    way_out="Name streams and events in printable ASCII without spaces.",
                )
        head = (
            f"{self.position} {instant(self.recorded)} {self.stream} {self.version} {self.name}\n"
        )
        entry = head.encode("ascii") + self.body
        if len(entry) > ENTRY_BYTES_MAX:
            raise EntryTooLargeError(
                f"The entry has {len(entry)} bytes; the limit is {ENTRY_BYTES_MAX}.",
                way_out="Shorten the longest text, or split the request.",
            )
        return entry


def leaf_hash(entry: bytes) -> bytes:
    """Return the RFC 6962 leaf hash of an entry: SHA-256(0x00 || entry), 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()
