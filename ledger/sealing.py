"""Sealing: personal data stands in the log only under a key of its subject.

A text is sealed with AES-256-GCM under a random key of 32 bytes per subject (a person, a contact,
a customer). The additional data are the canonical JSON array of caller, request id, index of the
event in the request, field and key id: all of them stand in the event's body, so a sealed text
cannot be moved to another place unnoticed. This form is for ever. Keys lie outside the log, each
wrapped by the master key; destroying one erases its subject, and the log stays whole.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg import Connection

from ledger import ids
from ledger.envelope import Event
from ledger.errors import LedgerError
from ledger.events.values import Sealed
from ledger.store.arrays import bytea_array, text_array

_NONCE_BYTES = 12
KEYS_CACHED_MAX = 100_000

# The first to make a subject's key wins; whoever comes second reads that one.
_MAKE = """
INSERT INTO keys.subject_keys (key_id, subject, wrapped, master)
SELECT a.key_id, a.subject, a.wrapped, %s
FROM unnest(%b::text[], %b::text[], %b::bytea[]) AS a(key_id, subject, wrapped)
ORDER BY a.subject ON CONFLICT (subject) DO NOTHING
"""
_BY_SUBJECT = """
SELECT key_id, subject, wrapped, master FROM keys.subject_keys WHERE subject = ANY(%b)
"""
_BY_ID = """
SELECT key_id, subject, wrapped, master FROM keys.subject_keys WHERE key_id = ANY(%b)
"""
_ANY = "SELECT master FROM keys.subject_keys LIMIT 1"


class UnsealingFailedError(LedgerError):
    """A sealed text does not open: it was changed, or moved from where it belongs."""

    code = "unsealing_failed"


class WrongMasterKeyError(LedgerError):
    """The master key is not the one under which the subjects' keys were wrapped."""

    code = "wrong_master_key"

    def __init__(self) -> None:
        super().__init__(
            "The master key is not the one of this ledger.",
            way_out="Give the key that was in use when the ledger was made.",
        )


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A subject's key, unwrapped; it never shows itself."""

    key_id: str
    cipher: AESGCM = field(repr=False)


class Vault:
    """Seals and opens; thread-safe. ``connect`` gives a connection in autocommit mode."""

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Connection[Any]]],
        master_key: bytes,
    ) -> None:
        self._connect = connect
        self._wrapping = AESGCM(_derived(master_key, "guishu wrapping v1"))
        self._identifiers = _derived(master_key, "guishu identifiers v1")
        self._requests = _derived(master_key, "guishu requests v1")
        self._master = _derived(master_key, "guishu master id v1").hex()[:16]
        self._lock = threading.Lock()
        self._by_id: OrderedDict[str, SubjectKey | None] = OrderedDict()
        self._by_subject: OrderedDict[str, SubjectKey] = OrderedDict()

    def check_master_key(self) -> None:
        """Raise WrongMasterKeyError where the ledger's keys are wrapped by another."""
        with self._connect() as connection:
            row = connection.execute(_ANY).fetchone()
        if row is not None and row[0] != self._master:
            raise WrongMasterKeyError

    # --- keys ----------------------------------------------------------------------------------

    def keys_for(self, subjects: Sequence[str]) -> dict[str, SubjectKey]:
        """Return each subject's key, made where it is missing; durable when this returns."""
        found: dict[str, SubjectKey] = {}
        with self._lock:
            for subject in subjects:
                key = self._by_subject.get(subject)
                if key is not None:
                    found[subject] = key
        missing = sorted(set(subjects) - found.keys())
        if missing:
            found.update(self._make(missing))
        return found

    def _make(self, subjects: Sequence[str]) -> dict[str, SubjectKey]:
        key_ids = [ids.new_id(ids.KEY) for _ in subjects]
        wrapped = [
            self._wrap(key_id, subject, AESGCM.generate_key(256))
            for key_id, subject in zip(key_ids, subjects, strict=True)
        ]
        names = text_array(subjects)
        with self._connect() as connection:
            connection.execute(
                _MAKE, (self._master, text_array(key_ids), names, bytea_array(wrapped))
            )
            rows = connection.execute(_BY_SUBJECT, (names,), binary=True).fetchall()
        return {subject: self._remember(*row) for row in rows for subject in [row[1]]}

    def prefetch(self, key_ids: Iterable[str]) -> None:
        """Load the keys of a batch in one statement; those destroyed are remembered as such."""
        with self._lock:
            missing = sorted({key_id for key_id in key_ids if key_id not in self._by_id})
        if not missing:
            return
        with self._connect() as connection:
            rows = connection.execute(_BY_ID, (text_array(missing),), binary=True).fetchall()
        for row in rows:
            self._remember(*row)
        with self._lock:
            for key_id in set(missing) - {row[0] for row in rows}:
                _put(self._by_id, key_id, None)

    def _wrap(self, key_id: str, subject: str, key: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._wrapping.encrypt(nonce, key, orjson.dumps([key_id, subject]))

    def _remember(self, key_id: str, subject: str, wrapped: bytes, master: str) -> SubjectKey:
        if master != self._master:
            raise WrongMasterKeyError
        try:
            raw = self._wrapping.decrypt(
                wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], orjson.dumps([key_id, subject])
            )
        except InvalidTag:
            raise UnsealingFailedError(
                f"The key {key_id} does not unwrap: it was changed.",
                way_out="Restore the keys from a backup.",
            ) from None
        key = SubjectKey(key_id, AESGCM(raw))
        with self._lock:
            _put(self._by_id, key_id, key)
            _put(self._by_subject, subject, key)
        return key

    # --- texts ---------------------------------------------------------------------------------

    def seal(
        self, key: SubjectKey, text: str, caller: str, request_id: str, index: int, name: str
    ) -> Sealed:
        """Return ``text`` sealed for the field ``name`` of the event ``index`` of a request."""
        nonce = os.urandom(_NONCE_BYTES)
        place = _place(caller, request_id, index, name, key.key_id)
        sealed = nonce + key.cipher.encrypt(nonce, text.encode(), place)
        return Sealed(key.key_id, base64.b64encode(sealed).decode("ascii"))

    def open(
        self, sealed: Sealed, caller: str, request_id: str, index: int, name: str
    ) -> str | None:
        """Return the text, or None where its key was destroyed; raises UnsealingFailedError."""
        key = self._key(sealed.key)
        if key is None:
            return None
        try:
            raw = base64.b64decode(sealed.text, validate=True)
            place = _place(caller, request_id, index, name, sealed.key)
            return key.cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], place).decode()
        except (InvalidTag, ValueError):
            raise UnsealingFailedError(
                f"The sealed field {name} does not open: it was changed or moved.",
                way_out="Run guishu verify; it names the first position that differs.",
            ) from None

    def open_text(self, event: Event, name: str, value: str | Sealed | None) -> str | None:
        """Return what a field of an event says; plain text as it is, None for an erased one."""
        if not isinstance(value, Sealed):
            return value
        envelope = event.envelope
        return self.open(
            value, envelope["caller"], envelope["request_id"], envelope.get("index", 0), name
        )

    def _key(self, key_id: str) -> SubjectKey | None:
        with self._lock:
            if key_id in self._by_id:
                return self._by_id[key_id]
        self.prefetch([key_id])
        with self._lock:
            return self._by_id.get(key_id)

    # --- keyed digests -------------------------------------------------------------------------

    def identifier_digest(self, system: str, value: str) -> str:
        """Return the key under which an individual's identifier is unique: ``hmac:`` and hex."""
        message = orjson.dumps([system, value])
        return "hmac:" + hmac.new(self._identifiers, message, hashlib.sha256).hexdigest()

    def request_digest(self, canonical: bytes) -> bytes:
        """Return 32 bytes that tell a request's content apart without giving it away."""
        return hmac.new(self._requests, canonical, hashlib.sha256).digest()


def _put(cache: OrderedDict[str, Any], key: str, value: SubjectKey | None) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > KEYS_CACHED_MAX:
        cache.popitem(last=False)


def _place(caller: str, request_id: str, index: int, name: str, key_id: str) -> bytes:
    return orjson.dumps([caller, request_id, index, name, key_id])


def _derived(master_key: bytes, label: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label.encode()).derive(master_key)
