"""Copies of an embedded server as databases are really lost: a standby, a restored backup."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from ledger.store.embedded import (
    DATABASE,
    OWNER_ROLE,
    SERVICE_ROLE,
    SUPERUSER_ROLE,
    EmbeddedServer,
    binaries_folder,
)
from tests.support.database import DatabaseUrls
from tests.support.processes import run, wait_until

_CONFIGURATION = "postgresql.guishu.conf"


def urls_of(server: EmbeddedServer) -> DatabaseUrls:
    """Return how to connect to the ledger of a server."""
    roles = (OWNER_ROLE, SERVICE_ROLE, SUPERUSER_ROLE)
    return DatabaseUrls(DATABASE, *(server.url(role, DATABASE) for role in roles))


def back_up(server: EmbeddedServer, folder: Path) -> EmbeddedServer:
    """Back up a running server physically into a new folder; return what may be started there."""
    folder.mkdir(mode=0o711)
    copy = EmbeddedServer(folder, server.start_seconds_max, None)
    for each in (copy.data_directory, copy.socket_directory):
        each.mkdir(mode=0o700)
        _give_to_the_owner_of(server, each)
    options = ("--checkpoint=fast", "--wal-method=stream", "--no-sync")
    given = (f"--dbname={server.superuser_url}", f"--pgdata={copy.data_directory}")
    _run(server, "pg_basebackup", *options, *given)
    text = (server.directory / _CONFIGURATION).read_text()
    text = text.replace(str(server.socket_directory), str(copy.socket_directory))
    (folder / _CONFIGURATION).write_text(text)
    return copy


def copy_of(backup: EmbeddedServer, folder: Path) -> EmbeddedServer:
    """Copy a backup that was never started into a new folder."""
    shutil.copytree(backup.directory, folder, copy_function=shutil.copy2)
    copy = EmbeddedServer(folder, backup.start_seconds_max, None)
    for each in (copy.socket_directory, copy.data_directory, *copy.data_directory.rglob("*")):
        _give_to_the_owner_of(backup, each)
    text = (folder / _CONFIGURATION).read_text()
    text = text.replace(str(backup.socket_directory), str(copy.socket_directory))
    (folder / _CONFIGURATION).write_text(text)
    return copy


@contextmanager
def standing_by(copy: EmbeddedServer, primary: EmbeddedServer) -> Iterator[None]:
    """Run a backup as an asynchronous standby of the server that it was made of."""
    (copy.data_directory / "standby.signal").touch()
    _configure(copy, f"primary_conninfo = 'host={primary.socket_directory} user=postgres'")
    with _running(copy):
        yield


@contextmanager
def restored(copy: EmbeddedServer) -> Iterator[None]:
    """Run a backup that is recovered to its end, and then goes on, on a timeline of its own."""
    (copy.data_directory / "recovery.signal").touch()
    _configure(copy, "restore_command = 'false'\nrecovery_target_timeline = 'current'")
    with _running(copy):
        wait_until(lambda: asked(copy, "SELECT pg_is_in_recovery()") is False)
        yield


def cut_off(standby: EmbeddedServer) -> None:
    """Let a standby hear no more of its primary."""
    asked(standby, "ALTER SYSTEM SET primary_conninfo = ''")
    asked(standby, "SELECT pg_reload_conf()")
    wait_until(lambda: asked(standby, "SELECT count(*) FROM pg_stat_wal_receiver") == 0)


def asked(server: EmbeddedServer, statement: str) -> object:
    """Return the first value that a statement of a superuser gives, if it gives any."""
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


@contextmanager
def _running(copy: EmbeddedServer) -> Iterator[None]:
    log = copy.data_directory / "start.log"
    _run(copy, "pg_ctl", "start", "--wait", f"--pgdata={copy.data_directory}", f"--log={log}")
    try:
        yield
    finally:
        stop = ("stop", "--mode=immediate", "--wait")
        _run(copy, "pg_ctl", *stop, f"--pgdata={copy.data_directory}")


def _configure(copy: EmbeddedServer, lines: str) -> None:
    with (copy.data_directory / "postgresql.auto.conf").open("a") as configuration:
        configuration.write(f"{lines}\n")


def _give_to_the_owner_of(server: EmbeddedServer, path: Path) -> None:
    owner = server.data_directory.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def _run(server: EmbeddedServer, program: str, *arguments: str) -> None:
    done = run(binaries_folder() / program, *arguments, user_of=server.data_directory.stat())
    if done.returncode:
        raise subprocess.SubprocessError(f"{program} failed: {done.stdout}{done.stderr}")
