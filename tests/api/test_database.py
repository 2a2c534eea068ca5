"""The database of the settings: the embedded one, or a foreign one; and the master key."""

from __future__ import annotations

import base64
import os
import socket
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from api.database import MasterKeyError, open_database
from api.settings import Settings
from ledger.store.errors import EmbeddedDirectoryError
from ledger.store.migrations import migrate, pending
from tests.support.database import DatabaseUrls
from tests.support.proxy import RouteToDatabase

KEY = bytes(range(32))
SECRET_KEY = SecretStr(base64.b64encode(KEY).decode())


@pytest.fixture(autouse=True)
def _nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("GUISHU_") or name.upper() == "DATABASE_URL":
            monkeypatch.delenv(name)


def _shown(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def _foreign(urls: DatabaseUrls, **more: object) -> Settings:
    url = SecretStr(urls.superuser_url)
    return Settings.model_validate({"database_url": url, "master_key": SECRET_KEY, **more})


def test_the_embedded_database_is_there_and_not_migrated(servers_folder: Path) -> None:
    with open_database(Settings(data_directory=servers_folder / "data")) as database:
        assert database.embedded
        assert pending(database.owner_url)
        migrate(database.owner_url)
        assert pending(database.service_url) == []
        with psycopg.connect(database.service_url) as connection:
            found = connection.execute("SELECT session_user, current_user").fetchone()
        assert found == ("guishu_app", "guishu_app")


def test_the_service_of_a_foreign_database_acts_as_its_role(database: DatabaseUrls) -> None:
    """The login may be an owner, even a superuser; not so what the service does with it."""
    with open_database(_foreign(database)) as opened:
        assert not opened.embedded
        assert opened.master_key == KEY
        with psycopg.connect(opened.service_url, autocommit=True) as connection:
            for statement in ("SELECT 1", "RESET ROLE", "DISCARD ALL", "RESET ALL"):
                connection.execute(statement.encode())
                found = connection.execute("SELECT current_user").fetchone()
                assert found == ("guishu_app",), statement
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("CREATE TABLE ledger.mine (id integer)")


@pytest.mark.parametrize("kind", ["foreign", "embedded"])
def test_the_time_outs_of_the_settings_are_in_force(
    database: DatabaseUrls, servers_folder: Path, kind: str
) -> None:
    limits = {
        "statement_timeout_seconds": 11,
        "lock_timeout_seconds": 12,
        "idle_in_transaction_timeout_seconds": 13,
    }
    if kind == "foreign":
        settings = _foreign(database, **limits)
    else:
        settings = Settings.model_validate({"data_directory": servers_folder / "data", **limits})
    with open_database(settings) as opened:
        assert _shown(opened.service_url, "statement_timeout") == "11s"
        assert _shown(opened.service_url, "lock_timeout") == "12s"
        assert _shown(opened.service_url, "idle_in_transaction_session_timeout") == "13s"
        assert _shown(opened.service_url, "application_name") == "guishu"


def test_options_of_the_url_are_kept_but_do_not_beat_the_role(database: DatabaseUrls) -> None:
    options = "-c role=pg_monitor -c work_mem=7MB -c search_path=a,\\ b"
    url = make_conninfo(database.superuser_url, options=options, application_name="mine")
    settings = _foreign(database, database_url=SecretStr(url))
    with open_database(settings) as opened:
        assert _shown(opened.service_url, "role") == "guishu_app"
        assert _shown(opened.service_url, "work_mem") == "7MB"
        assert _shown(opened.service_url, "search_path") == "a, b"
        assert _shown(opened.service_url, "application_name") == "mine"


class TestLostRoutes:
    """A route that drops packets let a process wait for two hours, and its locks on the server."""

    def test_both_ends_of_a_connection_look_whether_the_other_one_is_there(
        self, database: DatabaseUrls
    ) -> None:
        with RouteToDatabase(database.superuser_url) as route:
            settings = _foreign(database, database_url=SecretStr(route.conninfo))
            with open_database(settings) as opened:
                with psycopg.connect(opened.service_url) as connection:
                    assert _of_the_socket(connection) == (30_000, 10, 5, 4)
                # A session of the server's over a Unix socket shows what it would do over another.
                assert _of_the_server(opened.service_url) == ("30000", "10", "5", "4")

    def test_the_url_may_say_otherwise(self, database: DatabaseUrls) -> None:
        with RouteToDatabase(database.superuser_url) as route:
            url = make_conninfo(
                route.conninfo, tcp_user_timeout=7_000, options="-c tcp_user_timeout=8s"
            )
            with open_database(_foreign(database, database_url=SecretStr(url))) as opened:
                with psycopg.connect(opened.service_url) as connection:
                    assert _of_the_socket(connection) == (7_000, 10, 5, 4)
                assert _of_the_server(opened.service_url) == ("8000", "10", "5", "4")


def _of_the_socket(connection: psycopg.Connection) -> tuple[int, ...]:
    names = (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        return tuple(end.getsockopt(socket.IPPROTO_TCP, name) for name in names)


def _of_the_server(url: str) -> tuple[str, ...]:
    names = ["user_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count"]
    given = "SELECT reset_val FROM pg_settings WHERE name = %s"
    with psycopg.connect(url) as connection:
        return tuple(row[0] for name in names for row in connection.execute(given, [f"tcp_{name}"]))


def test_the_owner_may_be_another_login(database: DatabaseUrls) -> None:
    owner = SecretStr(database.owner_url)
    with open_database(_foreign(database, owner_database_url=owner)) as opened:
        assert opened.owner_url == database.owner_url
    with open_database(_foreign(database)) as opened:
        assert opened.owner_url == database.superuser_url


def test_a_foreign_database_needs_a_given_key(database: DatabaseUrls, servers_folder: Path) -> None:
    with (
        pytest.raises(MasterKeyError) as raised,
        open_database(_foreign(database, master_key=None, data_directory=servers_folder / "data")),
    ):
        pytest.fail("a key of this machine would not be that of the others")
    assert "openssl rand -base64 32" in raised.value.way_out
    assert not (servers_folder / "data").exists()


def test_no_secret_stands_in_what_is_printed(database: DatabaseUrls) -> None:
    url = make_conninfo(database.superuser_url, password="hunter2")  # noqa: S106 - made up
    with open_database(_foreign(database, database_url=SecretStr(url))) as opened:
        assert "hunter2" not in repr(opened)
        assert repr(KEY) not in repr(opened)


def test_the_key_is_made_once_for_its_owner_alone_and_kept(servers_folder: Path) -> None:
    settings = Settings(data_directory=servers_folder / "data")
    with open_database(settings) as database:
        first = database.master_key
        file = servers_folder / "data" / "master.key"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert base64.b64decode(file.read_text()) == first
        assert len(first) == 32
    with open_database(settings) as database:
        assert database.master_key == first
    assert {path.name for path in (servers_folder / "data").glob("master.key*")} == {"master.key"}


def test_many_first_starts_at_once_agree_on_one_key(servers_folder: Path) -> None:
    settings = Settings(data_directory=servers_folder / "data")
    together = Barrier(4)

    def first_start(_: int) -> bytes:
        together.wait()
        with open_database(settings) as database:
            return database.master_key

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(first_start, range(4)))) == 1


def _remove(file: Path) -> None:
    file.unlink()


def _garble(file: Path) -> None:
    file.write_text("hunter2")


def _garble_bytes(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")


def _open_to_all(file: Path) -> None:
    file.chmod(0o644)


def _empty(file: Path) -> None:
    file.write_text("")


def _make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "change", [_remove, _garble, _garble_bytes, _open_to_all, _empty, _make_folder]
)
def test_a_lost_or_spoilt_key_is_never_replaced(
    servers_folder: Path, change: Callable[[Path], None]
) -> None:
    """A new key would make all names in the ledger unreadable, and nobody would notice at once."""
    settings = Settings(data_directory=servers_folder / "data")
    with open_database(settings):
        pass
    file = servers_folder / "data" / "master.key"
    change(file)
    before = file.read_bytes() if file.is_file() else file.exists()
    with pytest.raises(MasterKeyError) as raised, open_database(settings):
        pytest.fail("the data were sealed with another key")
    assert "hunter2" not in str(raised.value)
    assert before == (file.read_bytes() if file.is_file() else file.exists())


def test_a_given_key_is_used_and_not_stored(servers_folder: Path) -> None:
    settings = Settings(data_directory=servers_folder / "data", master_key=SECRET_KEY)
    with open_database(settings) as database:
        assert database.master_key == KEY
    assert not (servers_folder / "data" / "master.key").exists()
    with (
        pytest.raises(MasterKeyError, match="missing"),
        open_database(Settings(data_directory=servers_folder / "data")),
    ):
        pytest.fail("the key is given or the file is there, else nothing opens")


def test_a_given_key_that_contradicts_the_stored_one_is_refused(servers_folder: Path) -> None:
    with open_database(Settings(data_directory=servers_folder / "data")):
        pass
    with (
        pytest.raises(MasterKeyError, match="is not the key"),
        open_database(Settings(data_directory=servers_folder / "data", master_key=SECRET_KEY)),
    ):
        pytest.fail("one of the two is wrong")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(EmbeddedDirectoryError),
        open_database(Settings(data_directory=tmp_path / "file" / "data")),
    ):
        pytest.fail("there is no such folder")
