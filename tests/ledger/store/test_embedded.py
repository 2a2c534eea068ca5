"""The embedded server, used by real processes that come, go, and are killed."""

from __future__ import annotations

import os
import pwd
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from ledger.store.embedded import (
    SYSTEM_USER,
    EmbeddedServer,
    _lock_alone,
    binaries_folder,
    embedded_server,
    prepare_directory,
)
from ledger.store.errors import (
    EmbeddedDirectoryError,
    EmbeddedServerError,
    EmbeddedSlowStartError,
)
from tests.support.processes import run, start, wait_until

SECONDS_MAX = 90


class User:
    """A process that uses the server; in a process group of its own, as in another terminal."""

    def __init__(self, directory: Path) -> None:
        self.process = start(
            *(sys.executable, "-m", "tests.support.embedded_user", str(directory)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def answer(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS_MAX)
        assert ready, "no answer in time"
        return self.process.stdout.readline().decode().strip()

    def ask(self) -> str:
        """Let it connect anew, and return the number of the server's process that it sees."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.answer()

    def leave(self) -> int:
        """Let it leave in order; return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(SECONDS_MAX)

    def signal(self, number: signal.Signals) -> int:
        """Signal its whole process group, as a terminal does; return its exit code."""
        os.killpg(self.process.pid, number)
        return self.process.wait(SECONDS_MAX)

    def close(self) -> None:
        """End the process, whatever became of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def directory(servers_folder: Path) -> Iterator[Path]:
    """A folder for a server, of which no process is left after the test."""
    folder = servers_folder / "guishu"
    yield folder
    if (folder / "postgres").exists():
        # The next user is the last one, and so stops what killed users have left behind.
        with embedded_server(folder):
            pass
    assert not _lives(folder)


@pytest.fixture
def user(directory: Path) -> Iterator[Callable[[], User]]:
    """Call it for one more process that uses the server."""
    with ExitStack() as stack:

        def start_user() -> User:
            user = User(directory)
            stack.callback(user.close)
            return user

        yield start_user


def _look(directory: Path) -> EmbeddedServer:
    """Return the server without becoming one of its users."""
    return EmbeddedServer(directory, start_seconds_max=SECONDS_MAX, _account=None)


def _lives(directory: Path) -> bool:
    return directory.exists() and not _look(directory)._stopped()


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def _process_with(argument: str) -> int | None:
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end while we look at it.
        with suppress(OSError):
            if argument.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                return int(folder.name)
    return None


def _kill_server(directory: Path) -> None:
    number = _look(directory).postmaster_pid()
    assert number is not None
    os.kill(number, signal.SIGKILL)


def test_the_first_use_makes_the_server_and_the_next_one_finds_its_data(directory: Path) -> None:
    with embedded_server(directory) as server, psycopg.connect(server.owner_url) as connection:
        assert connection.info.server_version // 10_000 == 18
        assert connection.info.parameter_status("server_encoding") == "UTF8"
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    assert not _lives(directory)
    with embedded_server(directory) as server:
        assert _count(server.owner_url) == 1


def test_the_service_and_the_owner_are_no_superusers(directory: Path) -> None:
    with embedded_server(directory) as server:
        for url in (server.owner_url, server.service_url):
            with psycopg.connect(url) as connection:
                assert connection.info.parameter_status("is_superuser") == "off"
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("CREATE ROLE intruder SUPERUSER")
        with psycopg.connect(server.service_url) as connection:
            timeout = connection.execute("SHOW idle_in_transaction_session_timeout").fetchone()
            assert timeout == ("10s",)


def test_what_is_acknowledged_is_durable(directory: Path) -> None:
    with embedded_server(directory) as server:
        with psycopg.connect(server.service_url) as connection:
            for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
                assert connection.execute("SELECT current_setting(%s)", [name]).fetchone() == (
                    "on",
                ), name
        with psycopg.connect(server.owner_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        server.restart("immediate")
        assert _count(server.owner_url) == 1


def test_no_other_local_user_and_no_network_reaches_the_server(directory: Path) -> None:
    with embedded_server(directory) as server:
        run, data = server.socket_directory, server.data_directory
        assert stat.S_IMODE(run.stat().st_mode) == 0o700
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert stat.S_IMODE((run / ".s.PGSQL.5432").stat().st_mode) == 0o700
        with psycopg.connect(server.superuser_url) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert not directory.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWOTH)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_is_kept_out(directory: Path) -> None:
    theirs = directory.with_name("theirs")
    theirs.touch()
    os.chown(theirs, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    with embedded_server(directory) as server:
        query = ("--dbname", server.superuser_url, "--command", "SELECT 1")
        result = run(binaries_folder() / "psql", *query, user_of=theirs.stat())
        assert result.returncode != 0
        assert "Permission denied" in result.stderr


def test_the_log_of_the_server_keeps_no_personal_data(directory: Path) -> None:
    """A failed statement and the values of a conflicting key would outlive their erasure."""
    with embedded_server(directory) as server:
        with psycopg.connect(server.owner_url) as connection:
            connection.execute("CREATE TABLE kept (name text PRIMARY KEY)")
            connection.execute("INSERT INTO kept VALUES ('secret-name')")
            connection.commit()
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute("INSERT INTO kept VALUES ('secret-name')")

        def said() -> str:
            logs = (server.data_directory / "log").glob("*.log")
            return "".join(log.read_text() for log in logs)

        # A process of its own writes the log, a whole message at a time.
        wait_until(lambda: "duplicate key" in said())
        assert "secret-name" not in said()


def test_terminals_come_and_go_and_the_last_one_stops_the_server(
    user: Callable[[], User], directory: Path
) -> None:
    first, second = user(), user()
    number = first.answer()
    assert second.answer() == number
    assert first.leave() == 0
    assert second.ask() == number
    third = user()
    assert third.answer() == number
    assert second.leave() == 0
    assert third.ask() == number
    assert third.leave() == 0
    assert not _lives(directory)


def test_four_processes_that_start_the_very_first_time_share_one_server(
    user: Callable[[], User], directory: Path
) -> None:
    users = [user() for _ in range(4)]
    numbers = {each.answer() for each in users}
    assert len(numbers) == 1
    assert numbers.pop().isdigit()
    assert [each.leave() for each in users] == [0, 0, 0, 0]
    assert not _lives(directory)


def test_ctrl_c_in_the_terminal_that_started_the_server_leaves_it_to_the_others(
    user: Callable[[], User], directory: Path
) -> None:
    first = user()
    number = first.answer()
    second = user()
    assert second.answer() == number
    assert first.signal(signal.SIGINT) == 130
    assert second.ask() == number
    assert second.signal(signal.SIGINT) == 130
    assert not _lives(directory)


def test_a_killed_user_is_not_counted_any_more(user: Callable[[], User], directory: Path) -> None:
    """The wheel's own list keeps killed processes for ever, so its server would never stop."""
    killed, other = user(), user()
    number = killed.answer()
    assert other.answer() == number
    assert killed.signal(signal.SIGKILL) == -signal.SIGKILL
    assert other.ask() == number
    assert other.leave() == 0
    assert not _lives(directory)


def test_after_its_only_user_was_killed_the_server_is_found_running_by_the_next(
    user: Callable[[], User], directory: Path
) -> None:
    killed = user()
    number = killed.answer()
    killed.signal(signal.SIGKILL)
    after = user()
    assert after.answer() == number
    assert after.leave() == 0
    assert not _lives(directory)


def test_the_server_is_started_again_after_it_was_killed(
    user: Callable[[], User], directory: Path
) -> None:
    first = user()
    number = first.answer()
    _kill_server(directory)
    second = user()
    after = second.answer()
    assert after != number
    assert first.ask() == after
    assert first.leave() == 0
    assert second.leave() == 0
    assert not _lives(directory)


def test_a_user_can_bring_a_killed_server_back_itself(directory: Path) -> None:
    with embedded_server(directory) as server:
        with psycopg.connect(server.owner_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        _kill_server(directory)
        server.ensure_running()
        assert _count(server.owner_url) == 1


def test_children_that_survive_a_killed_server_are_waited_for(directory: Path) -> None:
    """A busy child notices only later that its parent is gone, and must not be overtaken."""
    with embedded_server(directory) as server:
        with psycopg.connect(server.superuser_url, autocommit=True) as connection:
            child = connection.info.backend_pid
            # Stopped, it cannot notice anything, as if it were deep in a computation.
            os.kill(child, signal.SIGSTOP)
            _kill_server(directory)
            impatient = EmbeddedServer(
                server.directory, start_seconds_max=1, _account=server._account
            )
            with pytest.raises(EmbeddedSlowStartError):
                impatient.ensure_running()
            os.kill(child, signal.SIGCONT)
        server.ensure_running()
        assert server.postmaster_pid() is not None


def test_leaving_in_order_works_after_the_server_was_killed(
    user: Callable[[], User], directory: Path
) -> None:
    only = user()
    only.answer()
    _kill_server(directory)
    assert only.leave() == 0
    assert not _lives(directory)


def test_after_a_reboot_another_process_may_have_the_number_of_the_server(
    directory: Path,
) -> None:
    """PostgreSQL refuses to start if any process of its user has the number in its files."""
    with embedded_server(directory) as server:
        account = server.data_directory.stat()
        run, data = server.socket_directory, server.data_directory
        _kill_server(directory)
        wait_until(lambda: not _lives(directory))
        as_server = {"user": account.st_uid, "group": account.st_gid} if os.geteuid() == 0 else {}
        stranger = start(shutil.which("sleep") or "sleep", "600", **as_server)
        try:
            for file in (data / "postmaster.pid", run / ".s.PGSQL.5432.lock"):
                assert file.exists(), "the killed server leaves its files, as after a power cut"
                _, _, rest = file.read_text().partition("\n")
                file.write_text(f"{stranger.pid}\n{rest}")
            with embedded_server(directory) as again:
                assert again.postmaster_pid() != stranger.pid
                assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()


def test_a_server_that_somebody_started_by_hand_is_used_and_not_doubled(directory: Path) -> None:
    with embedded_server(directory) as server:
        data, account = server.data_directory, server.data_directory.stat()
    pg_ctl = (binaries_folder() / "pg_ctl", "--pgdata", data, "--wait", "--silent")
    started = run(*pg_ctl, "--log", data / "start.log", "start", user_of=account)
    assert started.returncode == 0, started.stderr
    number = (data / "postmaster.pid").read_text().split("\n", 1)[0]
    with embedded_server(directory) as server, psycopg.connect(server.superuser_url) as connection:
        assert (data / "postmaster.pid").read_text().split("\n", 1)[0] == number
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not (data / "postmaster.pid").exists()


@pytest.mark.parametrize("stage", ["postgres.new", "postgres.new/postgresql.conf", "postgres"])
def test_a_user_killed_during_the_very_first_start_leaves_nothing_half_made(
    user: Callable[[], User], directory: Path, stage: str
) -> None:
    killed = user()
    wait_until(lambda: (directory / stage).exists())
    killed.signal(signal.SIGKILL)
    after = user()
    assert after.answer().isdigit()
    assert after.leave() == 0
    assert not _lives(directory)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks into /proc")
def test_what_a_killed_user_was_setting_up_ends_before_the_next_one_begins(
    user: Callable[[], User], directory: Path
) -> None:
    """Its initdb lives on, and would write into the folder that the next one has just emptied."""
    killed = user()
    draft = f"--pgdata={directory / 'postgres.new'}"
    wait_until(lambda: _process_with(draft) is not None)
    orphan = _process_with(draft)
    assert orphan is not None
    os.kill(orphan, signal.SIGSTOP)
    try:
        killed.signal(signal.SIGKILL)
        assert _lock_alone(directory / "start.lock") is None
    finally:
        os.kill(orphan, signal.SIGCONT)
    after = user()
    assert after.answer().isdigit()
    assert after.leave() == 0


def test_a_start_that_takes_long_is_waited_for_and_goes_on_in_the_background(
    directory: Path,
) -> None:
    """Recovery after a crash may take minutes; the wheel gives up after ten seconds."""
    with embedded_server(directory) as server:
        data, account = server.data_directory, server.data_directory.stat()
    # Archive recovery asks this command for more, and waits for it before it opens the doors.
    gate = directory / "open"
    command = f"while test ! -e {gate}; do sleep 0.05; done; false"
    with (data / "postgresql.auto.conf").open("a") as configuration:
        configuration.write(f"restore_command = '{command}'\nhot_standby = off\n")
    (data / "recovery.signal").touch()
    if os.geteuid() == 0:
        os.chown(data / "recovery.signal", account.st_uid, account.st_gid)
    with (
        pytest.raises(EmbeddedSlowStartError) as slow,
        embedded_server(directory, start_seconds_max=1),
    ):
        pytest.fail("the server cannot be ready yet")
    assert slow.value.way_out
    number = _look(directory).postmaster_pid()
    assert number is not None
    gate.touch()
    with embedded_server(directory) as server:
        assert server.postmaster_pid() == number


def test_a_server_that_cannot_start_says_why(directory: Path) -> None:
    with embedded_server(directory) as server:
        configuration = server.data_directory / "postgresql.auto.conf"
    kept = configuration.read_text()
    configuration.write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedServerError, match="no_such_setting"), embedded_server(directory):
        pytest.fail("the server cannot start")
    assert not _lives(directory)
    configuration.write_text(kept)
    with embedded_server(directory) as server:
        assert server.postmaster_pid() is not None


def test_a_deep_folder_has_its_socket_elsewhere_and_as_private(servers_folder: Path) -> None:
    deep = servers_folder / ("x" * 100)
    with embedded_server(deep) as server:
        assert server.socket_directory.parent != deep
        assert stat.S_IMODE(server.socket_directory.stat().st_mode) == 0o700
        with psycopg.connect(server.service_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not _lives(deep)
    server.socket_directory.rmdir()


@pytest.mark.parametrize("kind", ["link", "file", "folder"])
def test_a_socket_folder_that_somebody_else_prepared_is_refused(
    servers_folder: Path, kind: str
) -> None:
    """Under /tmp everybody can guess the name, and answer there in the server's place.

    The folder was once looked at only when the server was started, which a socket that already
    listened in it prevented; and a file in its place was not a typed error.
    """
    deep, trap = servers_folder / ("x" * 100), servers_folder / "trap"
    guessed = _look(deep).socket_directory
    if kind == "file":
        guessed.touch()
    elif kind == "folder":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        guessed.mkdir(mode=0o777)
        os.chown(guessed, pwd.getpwnam("nobody").pw_uid, -1)
    else:
        trap.mkdir()
        if os.geteuid() == 0:
            os.chown(trap, pwd.getpwnam(SYSTEM_USER).pw_uid, -1)
        guessed.symlink_to(trap)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as impostor:
            if kind != "file":
                impostor.bind(str(guessed / ".s.PGSQL.5432"))
                impostor.listen()
            with (
                pytest.raises(EmbeddedDirectoryError),
                embedded_server(deep, start_seconds_max=5),
            ):
                pytest.fail("the socket would be in a folder of somebody else")
    finally:
        if kind == "folder":
            shutil.rmtree(guessed)
        else:
            guessed.unlink()
    assert not _lives(deep)


@pytest.mark.parametrize("name", ["with space", "quote's", 'double"quote', "dollar$HOME", "客户"])
def test_the_folder_may_have_any_name(servers_folder: Path, name: str) -> None:
    with embedded_server(servers_folder / name) as server:
        with psycopg.connect(server.service_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        server.restart()
        with psycopg.connect(server.owner_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not _lives(servers_folder / name)


def test_variables_for_other_servers_do_not_lead_astray(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGPORT": "6543",
        "PGHOST": "elsewhere.invalid",
        "PGDATA": "/nowhere",
        "PGUSER": "somebody",
        "PGDATABASE": "other",
    }.items():
        monkeypatch.setenv(name, value)
    with embedded_server(directory) as server, psycopg.connect(server.service_url) as connection:
        assert connection.info.dbname == "guishu"
        assert connection.info.user == "guishu_app"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
def test_the_server_does_not_inherit_the_secrets_of_our_environment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may run as another user, and lives longer than the process that started it."""
    monkeypatch.setenv("GUISHU_MASTER_KEY", "hunter2")
    with embedded_server(directory) as server:
        environment = Path(f"/proc/{server.postmaster_pid()}/environ").read_bytes()
    assert b"PGDATA" in environment
    assert b"hunter2" not in environment


def test_data_of_another_version_are_refused_and_left_alone(directory: Path) -> None:
    (directory / "postgres").mkdir(parents=True)
    (directory / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedDirectoryError, match="PostgreSQL 16"), embedded_server(directory):
        pytest.fail("these data are not ours to open")
    assert (directory / "postgres" / "PG_VERSION").read_text() == "16\n"
    shutil.rmtree(directory)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EmbeddedDirectoryError):
            prepare_directory(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(EmbeddedDirectoryError, match="belongs to"):
        prepare_directory(folder)
    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_restart_ends_the_sessions_and_changes_the_process(directory: Path) -> None:
    with embedded_server(directory) as server, psycopg.connect(server.service_url) as connection:
        before = server.postmaster_pid()
        server.restart("fast")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        assert server.postmaster_pid() != before


def test_the_wheel_carries_the_programs_that_we_call() -> None:
    for program in ("psql", "pgbench", "pg_dump", "pg_basebackup"):
        said = run(binaries_folder() / program, "--version").stdout
        assert re.search(r"\b18\.", said), said


def test_a_stale_socket_is_not_taken_for_a_server(directory: Path) -> None:
    with embedded_server(directory) as server:
        path, account = server.socket_directory / ".s.PGSQL.5432", server.data_directory.stat()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    if os.geteuid() == 0:
        os.chown(path, account.st_uid, account.st_gid)
    assert path.exists()
    with embedded_server(directory) as server, psycopg.connect(server.service_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
