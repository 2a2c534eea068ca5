"""Sealing: what was written opens again, elsewhere or changed it does not, erased it is gone."""

from __future__ import annotations

import base64
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection

from ledger.envelope import Event
from ledger.errors import StoreUnavailableError, TextRefusedError
from ledger.events.values import Sealed
from ledger.sealing import (
    SubjectKey,
    UnsealingFailedError,
    Vault,
    WrongMasterKeyError,
    _opened,
    _place,
    rewrap,
)
from ledger.store import arrays
from tests.ledger.store.support import rows
from tests.support.database import DatabaseUrls

MASTER, OTHER_MASTER = bytes(range(32)), bytes(range(1, 33))
PLACE = ("per_1", "req_7", 0, "note")
PRIVATE = "客户王芳的电话 138 0013 8000"

# Computed with another implementation (pycryptodome): subject key 20..3f, nonce 00..0b.
KEY_3 = bytes.fromhex(
    "000102030405060708090a0ba831269a8b72a6f7cd2c60d68989e16a45fa35f75d8072dd655be367"
    "02e42c9843315e09daa4d6a58504439c0b805aa4"
)
SEALED_3 = "AAECAwQFBgcICQoLd2prh3sG08yMyfj1BktuDCNQDurh+SyidLzqTbFQLQyhoMkb11zY6Q=="
MASTER_NAME = "7c822c4a75a4aadc"
IDENTIFIER = "hmac:555aeca9da2f51330be6480b9cb001b68dbc5c678ac0546b1cf1fb6e6d4a30c6"
NOTE = "c7134d09d2f514e4553e24f2"
REQUEST = "38210a012baf53d40bade6510aacb0d182dea1eb6c12ad91d894edc2938f5206"


def connecting(url: str) -> Callable[[], AbstractContextManager[Connection[Any]]]:
    @contextmanager
    def connect() -> Iterator[Connection[Any]]:
        with psycopg.connect(url, autocommit=True) as connection:
            arrays.register(connection)
            yield connection

    return connect


def vault_of(database: DatabaseUrls, master: bytes = MASTER, **more: int) -> Vault:
    """Return a vault as a process of the service has it."""
    return Vault(connecting(database.service_url), master, **more)


def unreachable() -> AbstractContextManager[Connection[Any]]:
    raise AssertionError("the database was asked although the keys are in memory")


def sealed_note(vault: Vault, text: str = PRIVATE, subject: str = "cus_1") -> Sealed:
    return vault.seal(vault.keys_for([subject])[subject], text, *PLACE)


def destroy(database: DatabaseUrls, subject: str) -> None:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        connection.execute("DELETE FROM keys.subject_keys WHERE subject = %s", (subject,))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200))
def test_any_text_opens_as_it_was_sealed(text: str) -> None:
    key = a_key()
    vault = Vault(unreachable, MASTER)
    sealed = vault.seal(key, text, *PLACE)
    assert _opened(key, sealed.text, _place(*PLACE, key.key_id)) == text


def a_key() -> SubjectKey:
    return SubjectKey("key_1", bytes(32))


def test_another_process_opens_what_was_sealed(database: DatabaseUrls) -> None:
    sealed = sealed_note(vault_of(database))
    assert PRIVATE not in sealed.text
    assert vault_of(database).open(sealed, *PLACE) == PRIVATE


def test_the_same_text_sealed_twice_looks_different(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    assert sealed_note(vault).text != sealed_note(vault).text


def test_the_form_of_sealed_text_is_for_ever(database: DatabaseUrls) -> None:
    """The log holds texts of this form: a change that fails this test loses all of them."""
    with connecting(database.service_url)() as connection:
        connection.execute(
            "INSERT INTO keys.subject_keys (key_id, subject, wrapped, master)"
            " VALUES ('key_3', 'con_2', %s, %s)",
            (KEY_3, MASTER_NAME),
        )
    opened = vault_of(database).open(
        Sealed("key_3", SEALED_3), "per_1", "req_7", 0, "contacts.con_2.phone"
    )
    assert opened == "+86 138 0013 8000 王芳"


def test_the_additional_data_are_the_canonical_array_of_the_place() -> None:
    place = _place("per_1", "req_7", 0, "contacts.con_2.phone", "key_3")
    assert place == b'["per_1","req_7",0,"contacts.con_2.phone","key_3"]'
    # Joined by a mere separator these two would be the same place.
    assert _place('a","b', "c", 0, "d", "e") != _place("a", 'b","c', 0, "d", "e")


def test_the_digests_are_for_ever(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    assert vault.identifier_digest("resident_id", "王芳") == IDENTIFIER
    assert vault.request_digest(b'{"a":1}').hex() == REQUEST


def test_the_digest_of_a_note_is_for_ever_and_goes_by_its_subject() -> None:
    # By OpenSSL: HKDF (expand only) of the key 20..3f, then HMAC-SHA-256 of the note.
    key = SubjectKey("key_3", bytes(range(32, 64)))
    vault = Vault(unreachable, MASTER)
    assert vault.note_digest(key, "客户要报价单") == NOTE
    assert vault.note_digest(key, "客户要合同") != NOTE
    assert vault.note_digest(SubjectKey("key_4", bytes(32)), "客户要报价单") != NOTE
    with pytest.raises(TextRefusedError):
        vault.note_digest(key, "\ud800")


def test_the_digest_of_a_note_dies_with_the_key_of_its_subject(database: DatabaseUrls) -> None:
    """Whoever is erased leaves nothing by which a note could be guessed, or told to be the same."""
    vault = vault_of(database)
    before = vault.note_digest(vault.keys_for(["cus_1"])["cus_1"], "客户要报价单")
    again = vault_of(database)
    assert again.note_digest(again.keys_for(["cus_1"])["cus_1"], "客户要报价单") == before
    destroy(database, "cus_1")
    after = vault_of(database)
    assert after.note_digest(after.keys_for(["cus_1"])["cus_1"], "客户要报价单") != before


def test_digests_tell_systems_values_and_ledgers_apart(
    database: DatabaseUrls, more_databases: Callable[[], DatabaseUrls]
) -> None:
    vault, elsewhere = vault_of(database), vault_of(more_databases(), OTHER_MASTER)
    digests = [
        vault.identifier_digest("a", "bc"),
        vault.identifier_digest("ab", "c"),
        elsewhere.identifier_digest("a", "bc"),
        "hmac:" + vault.request_digest(b'["a","bc"]').hex(),
    ]
    assert len(set(digests)) == 4


@pytest.mark.parametrize(
    "place",
    [
        ("per_2", "req_7", 0, "note"),
        ("per_1", "req_8", 0, "note"),
        ("per_1", "req_7", 1, "note"),
        ("per_1", "req_7", 0, "agreed"),
    ],
)
def test_a_text_moved_elsewhere_does_not_open(
    database: DatabaseUrls, place: tuple[str, str, int, str]
) -> None:
    vault = vault_of(database)
    sealed = sealed_note(vault)
    with pytest.raises(UnsealingFailedError) as refused:
        vault.open(sealed, *place)
    assert refused.value.code == "unsealing_failed"


def test_a_text_given_to_another_subject_does_not_open(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    keys = vault.keys_for(["cus_1", "cus_2"])
    sealed = vault.seal(keys["cus_1"], PRIVATE, *PLACE)
    with pytest.raises(UnsealingFailedError):
        vault.open(replace(sealed, key=keys["cus_2"].key_id), *PLACE)


def test_each_changed_bit_of_a_text_is_noticed(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    sealed = sealed_note(vault, "王芳")
    raw = base64.b64decode(sealed.text)
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UnsealingFailedError):
            vault.open(replace(sealed, text=base64.b64encode(changed).decode()), *PLACE)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64", "王芳", "AAECAwQFBgcICQoL"])
def test_what_was_never_sealed_does_not_open(database: DatabaseUrls, text: str) -> None:
    vault = vault_of(database)
    sealed = sealed_note(vault)
    with pytest.raises(UnsealingFailedError):
        vault.open(replace(sealed, text=text), *PLACE)


def test_spare_bits_of_base64_are_noticed(database: DatabaseUrls) -> None:
    """The decoder ignores the last bits before the padding, so another text meant the same."""
    vault = vault_of(database)
    sealed = sealed_note(vault, "a" * 3)  # 31 bytes: two spare bytes of padding
    assert sealed.text.endswith("==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = alphabet[alphabet.index(sealed.text[-3]) ^ 1]
    twin = sealed.text[:-3] + other + "=="
    assert base64.b64decode(twin) == base64.b64decode(sealed.text)
    with pytest.raises(UnsealingFailedError):
        vault.open(replace(sealed, text=twin), *PLACE)


@pytest.mark.parametrize("text", ["a\0b", "lone \ud800 surrogate"])
def test_text_that_no_event_may_hold_is_refused_before_it_is_hidden(
    database: DatabaseUrls, text: str
) -> None:
    """Sealed, such a text would pass every check, and fail in the read models for ever."""
    vault = vault_of(database)
    with pytest.raises(TextRefusedError) as refused:
        sealed_note(vault, text)
    assert text not in shown(refused.value)
    with pytest.raises(TextRefusedError):
        vault.identifier_digest("resident_id", text)


def shown(error: BaseException) -> str:
    """Return all that a log could say about an error: trace, context and attributes."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None:
        chain.append(following)
        following = following.__context__
    return "".join(traceback.format_exception(error)) + repr([[e.args, vars(e)] for e in chain])


def test_an_error_of_opening_holds_no_secret(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    sealed = sealed_note(vault)
    with pytest.raises(UnsealingFailedError) as refused:
        vault.open(sealed, "per_2", "req_7", 0, "note")
    said = shown(refused.value)
    assert PRIVATE not in said
    assert sealed.text not in said


def test_no_repr_shows_a_secret(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    key = vault.keys_for(["cus_1"])["cus_1"]
    vault.check_master_key()
    said = repr(vault) + repr(key) + repr(vault._master) + repr(vault._digest_keys)
    digest_keys = vault._checked()
    for secret in (MASTER, key.secret, digest_keys.identifiers, digest_keys.requests):
        assert secret.hex() not in said
        assert repr(secret)[2:-1] not in said


# --- keys --------------------------------------------------------------------------------------


def test_a_subject_keeps_its_key(database: DatabaseUrls) -> None:
    first = vault_of(database).keys_for(["per_1", "con_1"])
    second = vault_of(database).keys_for(["con_1", "cus_1", "per_1", "per_1"])
    assert set(second) == {"con_1", "cus_1", "per_1"}
    assert {name: second[name].key_id for name in first} == {
        name: key.key_id for name, key in first.items()
    }
    assert len({key.key_id for key in second.values()}) == 3


def test_no_subjects_need_no_keys() -> None:
    assert Vault(unreachable, MASTER).keys_for([]) == {}


def test_keys_are_durable_before_they_are_given(database: DatabaseUrls) -> None:
    key = vault_of(database).keys_for(["per_1"])["per_1"]
    assert rows(database, "SELECT key_id, subject FROM keys.subject_keys") == [
        (key.key_id, "per_1")
    ]


def test_a_transaction_of_somebody_else_is_refused(database: DatabaseUrls) -> None:
    """Keys made inside it would be lost with it, after texts were sealed under them."""
    with connecting(database.service_url)() as connection:
        vault = Vault(lambda: nullcontext(connection), MASTER)
        vault.check_master_key()
        with connection.transaction(), pytest.raises(AssertionError, match="outside a transaction"):
            vault.keys_for(["per_1"])
    assert rows(database, "SELECT FROM keys.subject_keys") == []


def test_processes_that_make_the_same_keys_at_once_get_the_same(database: DatabaseUrls) -> None:
    subjects = [f"cus_{number}" for number in range(200)]
    start = threading.Barrier(8)

    def work(number: int) -> dict[str, str]:
        vault = vault_of(database)
        vault.check_master_key()
        asked = subjects if number % 2 else subjects[::-1]
        start.wait(30)
        return {name: key.key_id for name, key in vault.keys_for(asked).items()}

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(work, range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert sorted(answers[0]) == sorted(subjects)


def test_who_comes_second_waits_and_uses_the_first_key(database: DatabaseUrls) -> None:
    first, second = vault_of(database), vault_of(database)
    first.check_master_key()
    key_id, wrapped = "key_first", first._master.wrap_subject_key("key_first", "cus_1", bytes(32))
    with (
        psycopg.connect(database.service_url) as holding,
        ThreadPoolExecutor(1) as pool,
    ):
        holding.execute(
            "INSERT INTO keys.subject_keys VALUES (%s, 'cus_1', %s, %s)",
            (key_id, wrapped, MASTER_NAME),
        )
        waiting = pool.submit(second.keys_for, ["cus_1"])
        wait_for_waiters(database)
        holding.commit()
        assert waiting.result(30)["cus_1"].key_id == key_id


def wait_for_waiters(database: DatabaseUrls, count: int = 1) -> None:
    """Return when so many sessions of the database wait for a lock."""
    waiting = """
        SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE NOT granted AND datname = %s
    """
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if rows(database, waiting, database.name)[0][0] >= count:
            return
    raise AssertionError(f"fewer than {count} sessions came to wait")


def test_a_text_whose_key_was_destroyed_is_gone(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    gone, kept = sealed_note(vault), sealed_note(vault, "stays", "cus_2")
    destroy(database, "cus_1")
    later = vault_of(database)
    assert later.open(gone, *PLACE) is None
    assert later.open(kept, *PLACE) == "stays"
    again = later.keys_for(["cus_1"])["cus_1"]
    assert again.key_id != gone.key
    assert later.open(gone, *PLACE) is None


def test_a_batch_is_fetched_at_once_those_destroyed_too(database: DatabaseUrls) -> None:
    writer = vault_of(database)
    notes = [sealed_note(writer, f"note {n}", f"cus_{n}") for n in range(50)]
    destroy(database, "cus_7")
    asked = []

    @contextmanager
    def counted() -> Iterator[Connection[Any]]:
        asked.append(1)
        with connecting(database.service_url)() as connection:
            yield connection

    reader = Vault(counted, MASTER)
    reader.prefetch(note.key for note in notes)
    texts = [reader.open(note, *PLACE) for note in notes]
    reader.prefetch(note.key for note in notes)
    assert texts == [None if n == 7 else f"note {n}" for n in range(50)]
    assert len(asked) == 1


def test_memory_is_bounded_and_what_was_used_last_stays(database: DatabaseUrls) -> None:
    writer = vault_of(database)
    notes = [sealed_note(writer, f"note {n}", f"cus_{n}") for n in range(6)]
    reader = vault_of(database, keys_cached_max=3)
    for note in notes[:3]:
        reader.open(note, *PLACE)
    reader.open(notes[0], *PLACE)
    reader.open(notes[3], *PLACE)  # displaces the second, which was not used since
    assert list(reader._by_id) == [notes[2].key, notes[0].key, notes[3].key]
    reader.prefetch(note.key for note in notes)
    assert len(reader._by_id) == len(reader._by_subject) == 3
    assert [reader.open(note, *PLACE) for note in notes] == [f"note {n}" for n in range(6)]
    keys = reader.keys_for([f"cus_{n}" for n in range(6)])
    assert [keys[f"cus_{n}"].key_id for n in range(6)] == [note.key for note in notes]


def test_a_changed_key_does_not_unwrap(database: DatabaseUrls) -> None:
    sealed = sealed_note(vault_of(database))
    rows(
        database,
        "UPDATE keys.subject_keys SET wrapped = set_byte(wrapped, 20, 255 - get_byte(wrapped, 20))"
        " RETURNING 1",
    )
    with pytest.raises(UnsealingFailedError, match="was changed"):
        vault_of(database).open(sealed, *PLACE)


def test_a_key_moved_to_another_subject_does_not_unwrap(database: DatabaseUrls) -> None:
    sealed = sealed_note(vault_of(database))
    rows(database, "UPDATE keys.subject_keys SET subject = 'cus_9' RETURNING 1")
    with pytest.raises(UnsealingFailedError):
        vault_of(database).open(sealed, *PLACE)


# --- events ------------------------------------------------------------------------------------


def event(**envelope: Any) -> Event:
    return Event(1, datetime(2026, 3, 1, tzinfo=UTC), "customer-1", 1, "X.v1", envelope, None)


def test_the_text_of_an_event_opens_by_its_envelope(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    sealed = sealed_note(vault)
    of = event(caller="per_1", request_id="req_7", index=0)
    assert vault.open_text(of, "note", sealed) == PRIVATE
    assert vault.open_text(of, "note", "in plain") == "in plain"
    assert vault.open_text(of, "note", None) is None
    with pytest.raises(UnsealingFailedError):
        vault.open_text(event(caller="per_1", request_id="req_7", index=1), "note", sealed)


def test_an_event_of_no_request_opens_nothing(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    with pytest.raises(UnsealingFailedError):
        vault.open_text(event(causation=1, ordinal=0), "note", sealed_note(vault))


# --- the master key ----------------------------------------------------------------------------


def test_a_wrong_master_key_is_refused_before_anything_was_sealed(database: DatabaseUrls) -> None:
    """Only the subjects' keys were compared at first, so an empty ledger took any master key."""
    vault_of(database).check_master_key()
    with pytest.raises(WrongMasterKeyError) as refused:
        vault_of(database, OTHER_MASTER).check_master_key()
    assert refused.value.code == "wrong_master_key"
    vault_of(database).check_master_key()


def test_a_wrong_master_key_makes_opens_and_digests_nothing(database: DatabaseUrls) -> None:
    sealed = sealed_note(vault_of(database))
    wrong = vault_of(database, OTHER_MASTER)
    asks: list[Callable[[], object]] = [
        lambda: wrong.keys_for(["cus_2"]),
        lambda: wrong.open(sealed, *PLACE),
        lambda: wrong.prefetch([sealed.key]),
        lambda: wrong.identifier_digest("a", "b"),
        lambda: wrong.request_digest(b"{}"),
    ]
    for ask in asks:
        with pytest.raises(WrongMasterKeyError):
            ask()
    assert rows(database, "SELECT subject FROM keys.subject_keys") == [("cus_1",)]


def test_of_many_that_start_first_with_different_keys_one_wins(database: DatabaseUrls) -> None:
    start = threading.Barrier(6)

    def work(master: bytes) -> bytes | None:
        vault = vault_of(database, master)
        start.wait(30)
        try:
            vault.check_master_key()
        except WrongMasterKeyError:
            return None
        return master

    with ThreadPoolExecutor(6) as pool:
        won = set(pool.map(work, [MASTER, OTHER_MASTER] * 3)) - {None}
    assert len(won) == 1


def test_a_lost_check_value_is_not_replaced(database: DatabaseUrls) -> None:
    """After a change of master key a new one would give other digests, without anybody knowing."""
    sealed_note(vault_of(database))
    rows(database, "DELETE FROM keys.master_check RETURNING 1")
    with pytest.raises(UnsealingFailedError, match="missing"):
        vault_of(database).check_master_key()


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_master_key_of_another_length_is_refused_and_not_shown(size: int) -> None:
    key = secrets.token_bytes(size)
    with pytest.raises(ValueError, match=f"32 bytes, not {size}"):
        Vault(unreachable, key)


# --- rewrap ------------------------------------------------------------------------------------


def rewrapped(database: DatabaseUrls, old: bytes = MASTER, new: bytes = OTHER_MASTER) -> int:
    with connecting(database.owner_url)() as connection:
        return rewrap(connection, old, new)


def test_a_new_master_key_opens_everything_and_the_old_one_nothing(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    notes = [sealed_note(vault, f"note {n}", f"cus_{n}") for n in range(5)]
    assert rewrapped(database) == 5
    later = vault_of(database, OTHER_MASTER)
    later.check_master_key()
    assert [later.open(note, *PLACE) for note in notes] == [f"note {n}" for n in range(5)]
    assert later.keys_for(["cus_1"])["cus_1"].key_id == notes[1].key
    with pytest.raises(WrongMasterKeyError):
        vault_of(database).check_master_key()
    with pytest.raises(WrongMasterKeyError):
        vault_of(database).open(notes[0], *PLACE)


def test_digests_outlive_a_change_of_master_key(database: DatabaseUrls) -> None:
    """Digests stand in the log for ever: under another key nobody's identifier was taken."""
    vault = vault_of(database)
    before = vault.identifier_digest("resident_id", "1"), vault.request_digest(b"{}")
    third = bytes(range(2, 34))
    rewrapped(database)
    rewrapped(database, OTHER_MASTER, third)
    later = vault_of(database, third)
    assert (later.identifier_digest("resident_id", "1"), later.request_digest(b"{}")) == before


def test_all_pages_are_rewrapped(database: DatabaseUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.sealing.REWRAP_PAGE_KEYS", 3)
    vault_of(database).keys_for([f"cus_{n}" for n in range(10)])
    assert rewrapped(database) == 10
    masters = rows(database, "SELECT DISTINCT master FROM keys.subject_keys")
    assert masters == rows(database, "SELECT master FROM keys.master_check")
    assert masters != [(MASTER_NAME,)]


def test_rewrapping_by_the_wrong_key_changes_nothing(database: DatabaseUrls) -> None:
    sealed = sealed_note(vault_of(database))
    with pytest.raises(WrongMasterKeyError):
        rewrapped(database, OTHER_MASTER, bytes(range(2, 34)))
    assert vault_of(database).open(sealed, *PLACE) == PRIVATE


def test_rewrapping_is_all_or_nothing(database: DatabaseUrls) -> None:
    vault = vault_of(database)
    sealed = sealed_note(vault)
    vault.keys_for(["cus_2"])
    rows(
        database,
        "UPDATE keys.subject_keys SET wrapped = set_byte(wrapped, 20, 255 - get_byte(wrapped, 20))"
        " WHERE subject = 'cus_2' RETURNING 1",
    )
    with pytest.raises(UnsealingFailedError):
        rewrapped(database)
    assert vault_of(database).open(sealed, *PLACE) == PRIVATE


def test_a_ledger_without_a_key_has_none_to_change(database: DatabaseUrls) -> None:
    with pytest.raises(WrongMasterKeyError):
        rewrapped(database)


@pytest.mark.parametrize("used_before", [0, 8])  # psycopg prepares what comes more than five times
def test_no_key_is_made_under_a_master_key_that_is_being_changed(
    database: DatabaseUrls, used_before: int
) -> None:
    """Who waits in the middle of the change must look anew, not go by what held before it."""
    with (
        connecting(database.service_url)() as kept,
        psycopg.connect(database.owner_url) as holding,
        ThreadPoolExecutor(2) as pool,
    ):
        vault = Vault(lambda: nullcontext(kept), MASTER)
        vault.check_master_key()
        for number in range(used_before):
            vault.keys_for([f"per_{number}"])
        holding.execute("LOCK TABLE keys.subject_keys IN SHARE MODE")
        changing = pool.submit(rewrapped, database)
        wait_for_waiters(database, 1)
        making = pool.submit(vault.keys_for, ["cus_1"])
        wait_for_waiters(database, 2)
        holding.commit()
        assert changing.result(30) == used_before
        with pytest.raises(WrongMasterKeyError):
            making.result(30)
    later = vault_of(database, OTHER_MASTER)
    assert set(later.keys_for(["cus_1", "per_0"])) == {"cus_1", "per_0"}


def test_a_process_with_the_old_key_is_refused_new_keys_after_the_change(
    database: DatabaseUrls,
) -> None:
    vault = vault_of(database)
    vault.keys_for(["cus_1"])
    rewrapped(database)
    with pytest.raises(WrongMasterKeyError):
        vault.keys_for(["cus_2"])
    assert rows(database, "SELECT subject FROM keys.subject_keys") == [("cus_1",)]


def test_keys_in_use_make_the_change_wait_no_longer_than_it_says(
    database: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ledger.sealing._LOCK",
        "SET LOCAL lock_timeout = '50ms'; LOCK TABLE keys.subject_keys IN EXCLUSIVE MODE",
    )
    vault_of(database).keys_for(["cus_1"])
    with psycopg.connect(database.service_url) as holding:
        holding.execute("DELETE FROM keys.subject_keys")
        with pytest.raises(StoreUnavailableError):
            rewrapped(database)
        holding.rollback()
    vault_of(database).check_master_key()
