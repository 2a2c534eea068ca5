"""Starts ``guishu ROLE`` in processes forked from one that has imported it already.

To import takes more processor time than all else that a role does in a soak, and dozens are started
in a minute. What runs is the command line, in a process of its own.

As a program (``python -m tests.soak.forge``) it reads a line for each thing to do, and answers each
with a line. At the end of its input it kills all that it has made. It alone waits for them, so that
no number can have passed to another process when a signal is sent.
"""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import consumers.kafka
from tests.support.processes import start


class Forge:
    """Makes processes of roles, for any number of threads; by ``forge`` only."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lock = threading.Lock()

    def start(self, role: str, log: Path) -> int:
        """Start a role, whose words go behind those in ``log``; return its process."""
        return int(self._ask(f"start {role} {log}"))

    def signal(self, pid: int, number: int) -> bool:
        """Send a signal; say whether the process was there to be sent it."""
        return self._ask(f"signal {pid} {int(number)}") == "sent"

    def is_alive(self, pid: int) -> bool:
        """Say whether a process has not ended yet."""
        return self.signal(pid, 0)

    def _ask(self, line: str) -> str:
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        with self._lock:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
            return self._process.stdout.readline().decode().strip()


@contextmanager
def forge(environment: Mapping[str, str]) -> Iterator[Forge]:
    """Open a forge, whose processes have this environment and end with the block."""
    process = start(
        sys.executable,
        *("-m", "tests.soak.forge"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield Forge(process)
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.wait()


def _work() -> None:
    _import_all()
    # Ctrl-C is for whoever asked, who then closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    alive: set[int] = set()
    for line in sys.stdin:
        word, *more = line.rstrip("\n").split(" ", 2)
        alive -= {each for each in alive if os.waitpid(each, os.WNOHANG) != (0, 0)}
        if word == "signal":
            pid, number = int(more[0]), int(more[1])
            if pid in alive:
                os.kill(pid, number)
            print("sent" if pid in alive else "gone", flush=True)
            continue
        pid = os.fork()
        if not pid:
            _become(*more)
        alive.add(pid)
        print(pid, flush=True)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _import_all() -> None:
    """Import what the roles import when they begin. None of it starts a thread."""
    import api.cli.http_commands  # noqa: F401
    from api.cli.main import command

    command()
    for each in pkgutil.iter_modules(consumers.kafka.__path__, "consumers.kafka."):
        importlib.import_module(each.name)


def _become(role: str, log: str) -> None:
    """Go on as ``guishu ROLE``; does not return."""
    from api.cli.main import run

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["guishu", role]
    # More than the command line would say, and when: for whoever looks for what went wrong.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    status = 1
    try:
        run()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _work()
