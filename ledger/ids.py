"""Opaque ids: a prefix that says what it names, and a UUIDv7, or a digest for imported rows."""

from __future__ import annotations

import hashlib
import uuid

import uuid_utils

CUSTOMER, PERSON, TERRITORY = "cus", "per", "ter"
CONTACT, SITE, FOLLOW_UP, DEAL = "con", "sit", "fol", "dea"
TRANSFER, COLLABORATION, STAND_IN, HAND_OVER = "trf", "col", "sta", "hov"
PROPOSAL = "pro"
IMPORT, KEY, REQUEST = "imp", "key", "req"


def new_id(prefix: str) -> str:
    """Return a new id such as ``cus_01997d2e-…``; ids made later sort later."""
    return f"{prefix}_{uuid_utils.uuid7()}"


def derived_id(prefix: str, *parts: str) -> str:
    """Return the id that always follows from ``parts``, for imported rows.

    The UUID's bits are those of RFC 9562's version 8 over a SHA-256, so a second import of the
    same row names the same thing.
    """
    digest = bytearray(hashlib.sha256("\x1f".join(parts).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return f"{prefix}_{uuid.UUID(bytes=bytes(digest))}"
