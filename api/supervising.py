"""Roles as child processes: each is started, started again when it ends, and ended in order.

A keeper stands around each child (see ``consumers.kafka.keeper``), so that none is left when this
process is killed. What a child says goes to a file of its own, from which is seen that it runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

# What ``guishu ROLE`` says when it has begun.
_SIGNS_OF_LIFE = (": running", "serving on ")
_GUISHU = (sys.executable, "-P", "-m", "api.cli")
_KEEPER = (sys.executable, "-P", "-m", "consumers.kafka.keeper")
# The keeper ends with its program's status modulo 256, which is negative for a signal.
_SIGNALS_FROM = 256 - 64


@dataclass(frozen=True, slots=True)
class SupervisingLimits:
    """Bounds of the supervision; the pause before a restart grows from the least to the greatest.

    A child that has lived for ``steady_seconds`` is started again after the least pause.
    ``end_seconds_max`` is what it gets to end in good order before it is killed.
    """

    pause_seconds_min: float = 0.5
    pause_seconds_max: float = 30.0
    steady_seconds: float = 30.0
    end_seconds_max: float = 30.0


@dataclass(slots=True)
class Child:
    """One role as a process; ``pid`` is there while it lives, ``sign`` once it runs.

    ``starts`` counts how often it was started.
    """

    name: str
    role: str
    log: Path
    pid: int | None = None
    sign: str | None = None
    starts: int = 0
    _keeper: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _began: float = 0.0
    _pause: float = 0.0
    _again_at: float = 0.0
    _said_before: int = 0


class Supervisor:
    """Keeps the children going; used by one thread. ``tell`` is told a line when something happens.

    ``roles`` are names of children and what each does, in the order in which they are started; they
    are ended in the opposite order. ``command`` is what is given a role as its argument.
    """

    def __init__(
        self,
        roles: Sequence[tuple[str, str]],
        folder: Path,
        environment: Mapping[str, str],
        tell: Callable[[str], None] = lambda line: None,
        limits: SupervisingLimits | None = None,
        command: Sequence[str] = _GUISHU,
    ) -> None:
        self.children = [Child(name, role, folder / f"{name}.log") for name, role in roles]
        self._environment = {**os.environ, **environment}
        self._tell = tell
        self._limits = limits or SupervisingLimits()
        self._command = command
        folder.mkdir(parents=True, exist_ok=True)
        for each in self.children:
            # Of this run alone: else they would grow for ever.
            each.log.write_bytes(b"")

    def look(self) -> None:
        """Start what does not run and is due, and say what has become of the others."""
        for child in self.children:
            if child._keeper is None:
                if time.monotonic() >= child._again_at:
                    self._start(child)
            elif (status := child._keeper.poll()) is not None:
                self._has_ended(child, status)
            elif child.sign is None:
                self._look_for_a_sign(child)

    def end(self) -> None:
        """End all in order, and wait for each."""
        for child in reversed(self.children):
            _forget(child)

    def _start(self, child: Child) -> None:
        child._said_before = child.log.stat().st_size
        child.starts += 1
        child._began = time.monotonic()
        with child.log.open("ab") as said:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                [*_KEEPER, str(self._limits.end_seconds_max), *self._command, child.role],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=self._environment,
                # Ctrl-C in the terminal is for us; we then end the children in order.
                start_new_session=True,
            )
        child._keeper = process
        if process.stdout is None:
            raise AssertionError("its output is a pipe")
        first = process.stdout.readline().strip()
        child.pid = int(first) if first.isdigit() else None

    def _look_for_a_sign(self, child: Child) -> None:
        for line in self._words(child):
            if any(each in line for each in _SIGNS_OF_LIFE):
                child.sign = line
                self._tell(f"{child.name}: {line.partition(': ')[2] or line}, process {child.pid}")
                return

    def _has_ended(self, child: Child, status: int) -> None:
        lived = time.monotonic() - child._began
        if lived > self._limits.steady_seconds or not child._pause:
            child._pause = self._limits.pause_seconds_min
        else:
            child._pause = min(child._pause * 2, self._limits.pause_seconds_max)
        child._again_at = time.monotonic() + child._pause
        last = " / ".join(self._words(child)[-2:]) or "it has said nothing"
        how = (
            f"killed by {_signal_name(256 - status)}"
            if status >= _SIGNALS_FROM
            else f"ended with status {status}: {last}"
        )
        self._tell(f"{child.name}: {how}; it is started again in {child._pause:.1f} s")
        _forget(child)

    def _words(self, child: Child) -> list[str]:
        """Return the lines that a child has said since it was started."""
        with child.log.open("rb") as said:
            said.seek(child._said_before)
            text = said.read().decode("utf-8", "replace")
        return [line.strip() for line in text.splitlines() if line.strip()]


def _forget(child: Child) -> None:
    """End a child, if it lives, and its keeper; harmless when there is none."""
    process, pid = child._keeper, child.pid
    child._keeper, child.pid, child.sign = None, None, None
    if process is None or process.stdin is None or process.stdout is None:
        return
    process.stdin.close()
    process.stdout.close()
    if process.wait() == -signal.SIGKILL and pid is not None:
        # Somebody killed the keeper, and what it kept lives on.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
