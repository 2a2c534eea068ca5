"""Sealing: personal data stands in the log only under a key of its subject.

A text is sealed with AES-256-GCM under a random key of 32 bytes per subject (a person, a contact,
a customer). The additional data are the canonical JSON array of caller, request id, index of the
event in the request, field and key id: all of them stand in the event's body, so a sealed text
cannot be moved to another place unnoticed. For example, in UTF-8 and without spaces,
``["per_1","req_7",0,"contacts.con_2.phone","key_3"]``. This form is for ever (a test holds it).

Fields are named by their path: ``name``, ``note``, ``contacts.<contact id>.phone``,
``identifiers.<system>``, ``sites.<site id>.address``.

Keys lie outside the log, each wrapped by the master key (AES-256-GCM; additional data: the JSON
array of key id and subject); destroying one erases its subject, and the log stays whole.

What a note says is told apart by an HMAC-SHA-256 under a key derived from its subject's, which dies
with that. Two other keyed digests use keys derived from the ledger's first master key by HKDF. The
digests of identifiers stand in the log for ever, so these keys must outlive a change of the master
key: they are kept, wrapped, in ``keys.master_check``, which thereby also tells whether a master
key is the right one.
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
import psycopg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg import Connection
from psycopg.pq import TransactionStatus

from ledger import ids
from ledger.envelope import Event
from ledger.errors import LedgerError, StoreUnavailableError, TextRefusedError
from ledger.events.values import Sealed
from ledger.store.arrays import bytea_array, text_array

MASTER_KEY_BYTES = 32
KEYS_CACHED_MAX = 100_000
REWRAP_PAGE_KEYS = 5_000

# Random nonces of 12 bytes are safe for 2^32 texts under one key (NIST SP 800-38D, section 8.3),
# far more than anybody writes about one subject.
_NONCE_BYTES = 12
# Only the last few notes of a customer are compared.
_NOTE_DIGEST_BYTES = 12
_NOTES = b"guishu notes v1"

# The first to make a subject's key wins; whoever comes second reads that one. Nothing is made
# under a master key that is no longer in use: rewrap locks the table, and who waited looks anew.
_MAKE = """
INSERT INTO keys.subject_keys (key_id, subject, wrapped, master)
SELECT a.key_id, a.subject, a.wrapped, m.master
FROM unnest(%b::text[], %b::text[], %b::bytea[]) AS a(key_id, subject, wrapped)
CROSS JOIN (SELECT c.master FROM keys.master_check c WHERE c.master = %s) m
ORDER BY a.subject ON CONFLICT (subject) DO NOTHING
"""
_BY_SUBJECT = """
SELECT key_id, subject, wrapped, master FROM keys.subject_keys WHERE subject = ANY(%b)
"""
_BY_ID = """
SELECT key_id, subject, wrapped, master FROM keys.subject_keys WHERE key_id = ANY(%b)
"""
_CHECK = "SELECT master, wrapped FROM keys.master_check"
# Only for a ledger without keys: where keys are there, their check value has been lost, and
# another must not take its place.
_FIRST_CHECK = """
INSERT INTO keys.master_check (master, wrapped)
SELECT %s, %s WHERE NOT EXISTS (SELECT FROM keys.subject_keys) ON CONFLICT DO NOTHING
"""
_LOCK = "LOCK TABLE keys.subject_keys, keys.master_check IN EXCLUSIVE MODE"
_PAGE = """
SELECT key_id, subject, wrapped, master FROM keys.subject_keys
WHERE key_id > %s ORDER BY key_id LIMIT %s
"""
_REWRAP = """
UPDATE keys.subject_keys k SET wrapped = a.wrapped, master = %s
FROM unnest(%b::text[], %b::bytea[]) AS a(key_id, wrapped) WHERE k.key_id = a.key_id
"""
_NEW_CHECK = "UPDATE keys.master_check SET master = %s, wrapped = %s, made_at = now()"


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
    """A subject's key, unwrapped (32 bytes); it never shows itself."""

    key_id: str
    # Not a ready cipher: that would save a microsecond a text, and take 2.5 kB of memory a key.
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _DigestKeys:
    identifiers: bytes = field(repr=False)
    requests: bytes = field(repr=False)


class _MasterKey:
    """Wraps and unwraps; ``name`` tells master keys apart without giving them away."""

    __slots__ = ("_cipher", "_key", "name")

    def __init__(self, key: bytes) -> None:
        if len(key) != MASTER_KEY_BYTES:
            raise ValueError(f"a master key has {MASTER_KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        self._cipher = AESGCM(self._derive("guishu wrapping v1"))
        self.name = self._derive("guishu master id v1").hex()[:16]

    def first_digest_keys(self) -> _DigestKeys:
        """Derive the digest keys of a ledger that begins with this master key."""
        return _DigestKeys(
            self._derive("guishu identifiers v1"), self._derive("guishu requests v1")
        )

    def wrap_subject_key(self, key_id: str, subject: str, key: bytes) -> bytes:
        return self._wrap(orjson.dumps([key_id, subject]), key)

    def unwrap_subject_key(self, key_id: str, subject: str, wrapped: bytes, master: str) -> bytes:
        if master != self.name:
            raise WrongMasterKeyError
        key = self._unwrap(orjson.dumps([key_id, subject]), wrapped)
        if key is None:
            raise UnsealingFailedError(
                f"The key {key_id} does not unwrap: it was changed.",
                way_out="Restore the keys from a backup.",
            )
        return key

    def wrap_digest_keys(self, keys: _DigestKeys) -> bytes:
        return self._wrap(self._digest_place(), keys.identifiers + keys.requests)

    def unwrap_digest_keys(self, wrapped: bytes, master: str) -> _DigestKeys:
        if master != self.name:
            raise WrongMasterKeyError
        both = self._unwrap(self._digest_place(), wrapped)
        if both is None:
            raise UnsealingFailedError(
                "The check value of the master key does not unwrap: it was changed.",
                way_out="Restore the keys from a backup.",
            )
        return _DigestKeys(both[:32], both[32:])

    def _digest_place(self) -> bytes:
        # Three parts: it can never equal the two parts of a subject's key.
        return orjson.dumps(["guishu", "digest keys", self.name])

    def _wrap(self, place: bytes, secret: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, place)

    def _unwrap(self, place: bytes, wrapped: bytes) -> bytes | None:
        try:
            return self._cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], place)
        except (InvalidTag, ValueError):
            return None

    def _derive(self, label: str) -> bytes:
        hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=label.encode())
        return hkdf.derive(self._key)


class Vault:
    """Seals and opens; thread-safe.

    ``connect`` gives a connection in autocommit mode, outside any transaction and with
    ``ledger.store.arrays`` registered (a pool's ``connection`` does); ``master_key`` has 32 bytes.
    Up to ``keys_cached_max`` keys stay in memory, those used last; a key that another process
    destroys is known here as long as it stays there.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Connection[Any]]],
        master_key: bytes,
        *,
        keys_cached_max: int = KEYS_CACHED_MAX,
    ) -> None:
        self._connect = connect
        self._master = _MasterKey(master_key)
        self._digest_keys: _DigestKeys | None = None
        self._lock = threading.Lock()
        self._keys_cached_max = keys_cached_max
        self._by_id: OrderedDict[str, SubjectKey | None] = OrderedDict()
        self._by_subject: OrderedDict[str, SubjectKey] = OrderedDict()

    def check_master_key(self) -> None:
        """Raise where this is not the ledger's master key; a ledger without keys takes it as its.

        Raises WrongMasterKeyError, or UnsealingFailedError where the check value was changed or
        is lost.
        """
        self._checked(again=True)

    def _checked(self, *, again: bool = False) -> _DigestKeys:
        keys = self._digest_keys
        if keys is not None and not again:
            return keys
        with self._connect() as connection:
            row = connection.execute(_CHECK).fetchone()
            if row is None:
                first = self._master.wrap_digest_keys(self._master.first_digest_keys())
                connection.execute(_FIRST_CHECK, (self._master.name, first))
                # Another process may have been the first, and with another key.
                row = connection.execute(_CHECK).fetchone()
        if row is None:
            raise UnsealingFailedError(
                "The ledger has keys, but the check value of their master key is missing.",
                way_out="Restore the schema keys as a whole from a backup.",
            )
        master, wrapped = row
        self._digest_keys = self._master.unwrap_digest_keys(wrapped, master)
        return self._digest_keys

    # --- keys ----------------------------------------------------------------------------------

    def keys_for(self, subjects: Sequence[str]) -> dict[str, SubjectKey]:
        """Return each subject's key, made where it is missing; durable when this returns.

        Where several processes make the key of one subject, the first wins and all get that one.
        Raises WrongMasterKeyError (nothing was made) or UnsealingFailedError.
        """
        found: dict[str, SubjectKey] = {}
        with self._lock:
            for subject in subjects:
                key = _used(self._by_subject, subject)
                if key is not None:
                    found[subject] = key
        missing = sorted(set(subjects) - found.keys())
        if missing:
            self._checked()
            found.update(self._make(missing))
        return found

    def _make(self, subjects: Sequence[str]) -> dict[str, SubjectKey]:
        key_ids = [ids.new_id(ids.KEY) for _ in subjects]
        wrapped = [
            self._master.wrap_subject_key(key_id, subject, AESGCM.generate_key(256))
            for key_id, subject in zip(key_ids, subjects, strict=True)
        ]
        names = text_array(subjects)
        made = (text_array(key_ids), names, bytea_array(wrapped), self._master.name)
        with self._connect() as connection:
            _check_outside_transaction(connection)
            connection.execute(_MAKE, made)
            rows = connection.execute(_BY_SUBJECT, (names,), binary=True).fetchall()
        keys = {row[1]: self._remember(*row) for row in rows}
        if len(keys) < len(subjects):
            # Nothing is made once the master key was changed; else a key was destroyed just now.
            self._checked(again=True)
            raise StoreUnavailableError(
                "A key was destroyed while it was being asked for.", way_out="Try again."
            )
        return keys

    def prefetch(self, key_ids: Iterable[str]) -> None:
        """Load the keys of a batch in one statement; those destroyed are remembered as such.

        Raises WrongMasterKeyError or UnsealingFailedError.
        """
        self._fetch(key_ids)

    def _fetch(self, key_ids: Iterable[str]) -> dict[str, SubjectKey]:
        with self._lock:
            missing = sorted({key_id for key_id in key_ids if not _holds(self._by_id, key_id)})
        if not missing:
            return {}
        with self._connect() as connection:
            rows = connection.execute(_BY_ID, (text_array(missing),), binary=True).fetchall()
        keys = {row[0]: self._remember(*row) for row in rows}
        # A key is durable before the event that names it, so one that is not there was destroyed.
        with self._lock:
            for key_id in missing:
                if key_id not in keys:
                    self._put(self._by_id, key_id, None)
        return keys

    def _remember(self, key_id: str, subject: str, wrapped: bytes, master: str) -> SubjectKey:
        raw = self._master.unwrap_subject_key(key_id, subject, wrapped, master)
        key = SubjectKey(key_id, raw)
        with self._lock:
            self._put(self._by_id, key_id, key)
            self._put(self._by_subject, subject, key)
        return key

    def _put(self, cache: OrderedDict[str, Any], name: str, key: SubjectKey | None) -> None:
        cache[name] = key
        cache.move_to_end(name)
        if len(cache) > self._keys_cached_max:
            cache.popitem(last=False)

    def _key(self, key_id: str) -> SubjectKey | None:
        with self._lock:
            if _holds(self._by_id, key_id):
                return self._by_id[key_id]
        # What was fetched counts, not the cache: by now others may have displaced it there.
        return self._fetch([key_id]).get(key_id)

    # --- texts ---------------------------------------------------------------------------------

    def seal(
        self, key: SubjectKey, text: str, caller: str, request_id: str, index: int, name: str
    ) -> Sealed:
        """Return ``text`` sealed for the field ``name`` of the event ``index`` of a request.

        Raises TextRefusedError for U+0000 and lone surrogates: nobody could look inside later.
        """
        plain = _utf8(text, name)
        nonce = os.urandom(_NONCE_BYTES)
        place = _place(caller, request_id, index, name, key.key_id)
        sealed = nonce + AESGCM(key.secret).encrypt(nonce, plain, place)
        return Sealed(key.key_id, base64.b64encode(sealed).decode("ascii"))

    def open(
        self, sealed: Sealed, caller: str, request_id: str, index: int, name: str
    ) -> str | None:
        """Return the text, or None where its key was destroyed.

        Raises UnsealingFailedError where it was changed or moved, WrongMasterKeyError.
        """
        key = self._key(sealed.key)
        if key is None:
            return None
        text = _opened(key, sealed.text, _place(caller, request_id, index, name, sealed.key))
        if text is None:
            raise _does_not_open(name)
        return text

    def open_text(self, event: Event, name: str, value: str | Sealed | None) -> str | None:
        """Return what a field of an event says: plain text as it is, None for an erased one.

        Raises UnsealingFailedError, WrongMasterKeyError.
        """
        if not isinstance(value, Sealed):
            return value
        envelope = event.envelope
        try:
            caller, request_id, index = (
                envelope["caller"],
                envelope["request_id"],
                envelope["index"],
            )
        except KeyError:
            # Nothing was ever sealed for an event that does not say of which request it is.
            raise _does_not_open(name) from None
        return self.open(value, caller, request_id, index, name)

    # --- keyed digests -------------------------------------------------------------------------

    def identifier_digest(self, system: str, value: str) -> str:
        """Return the key under which an individual's identifier is unique: ``hmac:`` and hex.

        ``value`` is normalised. Raises TextRefusedError for U+0000 and lone surrogates, and what
        ``check_master_key`` raises.
        """
        _utf8(system, "an identifier's system")
        _utf8(value, "an identifier")
        message = orjson.dumps([system, value])
        return "hmac:" + hmac.new(self._checked().identifiers, message, hashlib.sha256).hexdigest()

    def note_digest(self, key: SubjectKey, note: str) -> str:
        """Return what tells the same note apart from others under a subject's key: 24 hex digits.

        ``note`` is folded (ledger/tokens.py). Without the key nobody can make it again, nor try
        what a note may have said. Raises TextRefusedError for U+0000 and lone surrogates.
        """
        message = _utf8(note, "note")
        # The key is random, so that one step of HKDF (RFC 5869, expand) makes one apart from it.
        derived = hmac.digest(key.secret, _NOTES + b"\x01", "sha256")
        return hmac.digest(derived, message, "sha256")[:_NOTE_DIGEST_BYTES].hex()

    def request_digest(self, canonical: bytes) -> bytes:
        """Return 32 bytes that tell a request's content apart without giving it away.

        Raises what ``check_master_key`` raises.
        """
        return hmac.digest(self._checked().requests, canonical, "sha256")


def rewrap(connection: Connection[Any], old_master_key: bytes, new_master_key: bytes) -> int:
    """Wrap all keys of a ledger by a new master key, in one transaction; return how many.

    ``connection`` belongs to the owner of the tables (the service has no right to update them), is
    in autocommit mode and has ``ledger.store.arrays`` registered. Sealed texts and digests stay as
    they are. Processes that still have the old master key make no more keys from then on and raise
    WrongMasterKeyError, until they are started again with the new one.

    Raises WrongMasterKeyError, UnsealingFailedError, or StoreUnavailableError where the keys are
    in use by others for more than ten seconds; then nothing was changed.
    """
    old, new = _MasterKey(old_master_key), _MasterKey(new_master_key)
    _check_outside_transaction(connection)
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            connection.execute("SET LOCAL lock_timeout = '10s'")
            connection.execute(_LOCK)
            row = connection.execute(_CHECK).fetchone()
            if row is None:
                raise WrongMasterKeyError
            digest_keys = old.unwrap_digest_keys(row[1], row[0])
            count = _rewrap_pages(connection, old, new)
            connection.execute(_NEW_CHECK, (new.name, new.wrap_digest_keys(digest_keys)))
    except psycopg.errors.LockNotAvailable:
        raise StoreUnavailableError(
            "The keys are in use by others.", way_out="Stop the services, then try again."
        ) from None
    return count


def _rewrap_pages(connection: Connection[Any], old: _MasterKey, new: _MasterKey) -> int:
    last, count = "", 0
    while True:
        page = connection.execute(_PAGE, (last, REWRAP_PAGE_KEYS), binary=True).fetchall()
        if not page:
            return count
        wrapped = [
            new.wrap_subject_key(row[0], row[1], old.unwrap_subject_key(*row)) for row in page
        ]
        key_ids = text_array([row[0] for row in page])
        changed = connection.execute(_REWRAP, (new.name, key_ids, bytea_array(wrapped))).rowcount
        if changed != len(page):
            raise AssertionError(f"{changed} of {len(page)} keys were wrapped anew")
        last = page[-1][0]
        count += changed


def _check_outside_transaction(connection: Connection[Any]) -> None:
    # In somebody's transaction the keys would not be durable before the events that use them.
    idle = connection.info.transaction_status == TransactionStatus.IDLE
    if not (connection.autocommit and idle):
        raise AssertionError("keys need a connection in autocommit mode, outside a transaction")


def _holds(cache: OrderedDict[str, Any], name: str) -> bool:
    if name not in cache:
        return False
    cache.move_to_end(name)
    return True


def _used(cache: OrderedDict[str, SubjectKey], name: str) -> SubjectKey | None:
    return cache[name] if _holds(cache, name) else None


def _place(caller: str, request_id: str, index: int, name: str, key_id: str) -> bytes:
    try:
        return orjson.dumps([caller, request_id, index, name, key_id])
    except TypeError:
        raise TextRefusedError(
            "A caller, request id or field name holds a lone surrogate.",
            way_out="Name them in well-formed Unicode.",
        ) from None


def _utf8(text: str, name: str) -> bytes:
    try:
        plain = text.encode()
    except UnicodeEncodeError:
        plain = b"\x00"
    # Raised out here: the codec's error carries the whole text along.
    if b"\x00" in plain:
        raise TextRefusedError(
            f"The text of {name} holds U+0000 or a lone surrogate.",
            way_out="Remove the character, or read the file in its real encoding.",
        )
    return plain


def _opened(key: SubjectKey, text: str, place: bytes) -> str | None:
    """Return the text, None where anything in it was changed, be it a spare bit of the base64."""
    try:
        raw = base64.b64decode(text, validate=True)
        if base64.b64encode(raw).decode("ascii") != text:
            return None
        cipher = AESGCM(key.secret)
        return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], place).decode()
    except (InvalidTag, ValueError):
        return None


def _does_not_open(name: str) -> UnsealingFailedError:
    return UnsealingFailedError(
        f"The sealed field {name} does not open: it was changed or moved.",
        way_out="Run guishu verify; it names the first position that differs.",
    )
