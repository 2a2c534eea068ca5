"""The database that the settings name: the embedded server, or the one of DATABASE_URL."""

from __future__ import annotations

import base64
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from api.settings import HOW_TO_MAKE_A_KEY, MASTER_KEY_BYTES, Settings, decode_master_key
from ledger.errors import LedgerError
from ledger.store.embedded import SERVICE_ROLE, EmbeddedServer, embedded_server, prepare_directory

MASTER_KEY_FILE = "master.key"

# A route that drops packets says nothing. Without these a process would wait for an answer for two
# hours, and the server as long for the end of a session with its locks; so after half a minute,
# whether something was under way or not. That is for libpq here, and for the server there, which
# knows them by other names. Over a Unix socket they have no effect. It is no shorter, for Linux
# also ends a connection whose other end lives, and reads nothing for so long while it is sent
# much: a server waits for locks, and for its disk.
_LOST_MS = 30_000
_PROBES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4}


class MasterKeyError(LedgerError):
    """The master key is missing, lost, malformed, readable by others, or not the one in use."""

    code = "master_key"


@dataclass(frozen=True)
class Database:
    """An open database; the URLs are libpq connection strings, and valid inside the ``with``.

    ``owner_url`` may change the schema and is for migrations; ``service_url`` acts as the role
    guishu_app. ``master_key`` has 32 bytes. ``server`` is there for the embedded one.
    """

    owner_url: str = field(repr=False)
    service_url: str = field(repr=False)
    master_key: bytes = field(repr=False)
    server: EmbeddedServer | None

    @property
    def embedded(self) -> bool:
        """Whether this is the embedded server."""
        return self.server is not None


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Open the database; start the embedded server if no other is named. Does not migrate.

    Raises:
        MasterKeyError: there is no usable master key.
        EmbeddedDirectoryError, EmbeddedServerError, EmbeddedBusyError: see ``embedded_server``.
    """
    if settings.database_url is not None:
        if settings.master_key is None:
            raise MasterKeyError(
                "DATABASE_URL is given, but no master key",
                way_out=f"Make one with `{HOW_TO_MAKE_A_KEY}`, keep it safe, and give it in "
                "GUISHU_MASTER_KEY to every process of this database.",
            )
        owner = settings.owner_database_url or settings.database_url
        yield Database(
            owner_url=owner.get_secret_value(),
            service_url=service_conninfo(settings.database_url.get_secret_value(), settings),
            master_key=decode_master_key(settings.master_key.get_secret_value()),
            server=None,
        )
        return
    directory = prepare_directory(settings.data_directory)
    master_key = _embedded_master_key(directory, settings.master_key)
    with embedded_server(directory) as server:
        yield Database(
            owner_url=server.owner_url,
            service_url=service_conninfo(server.service_url, settings),
            master_key=master_key,
            server=server,
        )


def service_conninfo(url: str, settings: Settings) -> str:
    """Return ``url`` with the service's role and time-outs in force from the first statement on.

    A session's role that is set in this way is also what RESET ROLE and DISCARD ALL go back to.
    What ``url`` itself says in ``options`` is kept, but cannot override these. When a connection
    counts as lost it may say by itself, in libpq's words and in ``options``.
    """
    given = conninfo_to_dict(url)
    ours = {
        "role": SERVICE_ROLE,
        "statement_timeout": f"{settings.statement_timeout_seconds}s",
        "lock_timeout": f"{settings.lock_timeout_seconds}s",
        "idle_in_transaction_session_timeout": f"{settings.idle_in_transaction_timeout_seconds}s",
    }
    theirs = {"tcp_user_timeout": _LOST_MS} | {f"tcp_{name}": _PROBES[name] for name in _PROBES}
    options = [
        *(f"-c {name}={value}" for name, value in theirs.items()),
        str(given.pop("options", "")),
        *(f"-c {name}={value}" for name, value in ours.items()),
    ]
    return make_conninfo(
        "",
        **{
            "connect_timeout": settings.connect_timeout_seconds,
            "fallback_application_name": "guishu",
            "tcp_user_timeout": _LOST_MS,
            **_PROBES,
            **given,
            "options": " ".join(each for each in options if each),
        },
    )


def _embedded_master_key(directory: Path, given: SecretStr | None) -> bytes:
    """Return the given key, else that of the file, which is made with the very first start."""
    path = directory / MASTER_KEY_FILE
    # Asked before the file is looked for: whoever makes the server has made the key first.
    in_use = (directory / "postgres").exists()
    stored = _stored_master_key(path)
    if given is not None:
        key = decode_master_key(given.get_secret_value())
        if stored is not None and not secrets.compare_digest(stored, key):
            raise MasterKeyError(
                f"GUISHU_MASTER_KEY is not the key in {path}",
                way_out="Unset GUISHU_MASTER_KEY, or name another GUISHU_DATA_DIRECTORY.",
            )
        return key
    if stored is not None:
        return stored
    if in_use:
        # A new key would make every name in the ledger unreadable without anybody noticing.
        raise MasterKeyError(
            f"{path} is missing, but the data beside it were sealed with a key",
            way_out="Restore the file from a backup, or give the key in GUISHU_MASTER_KEY.",
        )
    try:
        _make_master_key(path)
    except OSError as error:
        raise MasterKeyError(
            f"{path} cannot be made: {error.strerror}",
            way_out="Mend the cause (often a full disk or missing rights) and start again.",
        ) from error
    # Read back, for another process may have been faster.
    stored = _stored_master_key(path)
    if stored is None:
        raise MasterKeyError(
            f"{path} vanished as soon as it was made", way_out="Find out what removes it."
        )
    return stored


def _stored_master_key(path: Path) -> bytes | None:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise MasterKeyError(
            f"{path} cannot be read: {error}", way_out="Restore it from a backup."
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MasterKeyError(
            f"other users may open {path}", way_out=f"Run `chmod 600 {path}`; consider it known."
        )
    try:
        return decode_master_key(text)
    except ValueError as error:
        raise MasterKeyError(f"{path} {error}", way_out="Restore it from a backup.") from None


def _make_master_key(path: Path) -> None:
    """Make the file, unless it is there; it is safely on the disk when this returns."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    text = base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode("ascii")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces a key that somebody uses already.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
