"""The processes of a soak: started, killed, frozen and brought back as the plan says."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from consumers.kafka.local import LocalKafka
from ledger.store.embedded import EmbeddedServer
from tests.soak.forge import Forge
from tests.soak.plan import Freeze, Kill, Plan, Target

ROLES: Mapping[Target | str, str] = {
    "serve": "serve",
    "relay": "relay",
    "enforcer-1": "enforce",
    "enforcer-2": "enforce",
    "projector": "project",
    "clock": "clock",
}
_SIGNS_OF_LIFE = (": running", "serving on ")
_TICK_SECONDS = 0.02
# A server that is killed at once again has to be up first; so long the last kills may take.
_LATE_SECONDS_MAX = 180.0


@dataclass(slots=True)
class Role:
    """A role as a process; ``pid`` None: it is down, and is started again at ``again_at``."""

    name: str
    log: Path
    pid: int | None = None
    again_at: float = 0.0
    wakes_at: float | None = None
    said_before: int = 0

    @property
    def has_run(self) -> bool:
        """Say whether it has said so since it was started."""
        text = self.log.read_bytes()[self.said_before :].decode("utf-8", "replace")
        return any(each in text for each in _SIGNS_OF_LIFE)

    def last_words(self) -> str:
        """Return the end of what it has said since it was started."""
        text = self.log.read_bytes()[self.said_before :].decode("utf-8", "replace")
        return " / ".join(text.splitlines()[-12:])


class Machine:
    """All processes; used by one thread, which calls ``tick`` as long as anything shall go on."""

    def __init__(
        self, folder: Path, forge: Forge, postgres: EmbeddedServer, kafka: LocalKafka
    ) -> None:
        self.roles = {name: Role(name, folder / f"{name}.log") for name in ROLES}
        self.kills: Counter[str] = Counter()
        self.woken = 0
        # What has ended after it ran, though nobody killed it: each is a defect.
        self.ended: list[str] = []
        # From when until when PostgreSQL was away, by the clock of time.monotonic.
        self.outages: list[tuple[float, float]] = []
        self._forge = forge
        self._postgres = postgres
        self._kafka = kafka
        self._reviving: dict[str, threading.Thread] = {}
        self._failures: list[BaseException] = []
        for each in self.roles.values():
            each.log.touch()

    def tick(self) -> None:
        """Start what is due, wake what has slept long enough, and see what has ended by itself."""
        if self._failures:
            raise self._failures[0]
        now = time.monotonic()
        for role in self.roles.values():
            if role.pid is None:
                if now >= role.again_at:
                    self._start(role)
            elif not self._forge.is_alive(role.pid):
                if role.has_run:
                    self.ended.append(f"{role.name}: {role.last_words()}")
                role.pid, role.wakes_at, role.again_at = None, None, now + 0.2
            elif role.wakes_at is not None and now >= role.wakes_at:
                self._forge.signal(role.pid, signal.SIGCONT)
                role.wakes_at = None
                self.woken += 1

    def run(self, plan: Plan) -> None:
        """Carry out a plan; returns when its time is over and all of it is done."""
        began = time.monotonic()
        kills, freezes = list(plan.kills), list(plan.freezes)
        now = 0.0
        while now < plan.seconds or kills or freezes or self._sleeps():
            now = time.monotonic() - began
            late = f"{kills} and {freezes} could not be done"
            assert now < plan.seconds + _LATE_SECONDS_MAX, late
            self.tick()
            for freeze in [each for each in freezes if each.at <= now]:
                if self._freeze(freeze):
                    freezes.remove(freeze)
            due = [each for each in kills if each.at <= now]
            for kill in due:
                if self._kill(kill):
                    kills.remove(kill)
            time.sleep(_TICK_SECONDS)

    def heal(self) -> None:
        """Return when everything has been started again."""
        deadline = time.monotonic() + _LATE_SECONDS_MAX
        while (
            self._sleeps()
            or any(each.is_alive() for each in self._reviving.values())
            or any(role.pid is None for role in self.roles.values())
        ):
            assert time.monotonic() < deadline
            self.tick()
            time.sleep(_TICK_SECONDS)

    def wait_until(self, condition: Callable[[], bool], seconds_max: float = 120) -> None:
        """Return when a condition holds, and look after the processes meanwhile."""
        deadline = time.monotonic() + seconds_max
        while not condition():
            assert time.monotonic() < deadline, f"not so within {seconds_max} seconds"
            self.tick()
            time.sleep(_TICK_SECONDS)

    def words(self) -> str:
        """Return how each role stands, and what it has said last."""
        return "\n".join(
            f"{role.name}: process {role.pid}, {role.last_words()}" for role in self.roles.values()
        )

    def end(self) -> list[str]:
        """Tell the roles to end, one after the other; return those that do not."""
        deaf = []
        for role in self.roles.values():
            if role.pid is None:
                continue
            self._forge.signal(role.pid, signal.SIGTERM)
            deadline = time.monotonic() + 30
            while self._forge.is_alive(role.pid) and time.monotonic() < deadline:
                time.sleep(_TICK_SECONDS)
            if self._forge.is_alive(role.pid):
                deaf.append(role.name)
        return deaf

    def _sleeps(self) -> bool:
        return any(each.wakes_at is not None for each in self.roles.values())

    def _start(self, role: Role) -> None:
        role.said_before = role.log.stat().st_size
        role.pid = self._forge.start(ROLES[role.name], role.log)

    def _freeze(self, freeze: Freeze) -> bool:
        role = self.roles[freeze.target]
        # One that is only just beginning has no session yet to sleep through.
        if role.pid is None or not role.has_run:
            return False
        if self._forge.signal(role.pid, signal.SIGSTOP):
            role.wakes_at = time.monotonic() + freeze.seconds
        return True

    def _kill(self, kill: Kill) -> bool:
        """Kill a target; says whether it was there to be killed."""
        if kill.target in ("kafka", "postgres"):
            return self._kill_server(kill)
        role = self.roles[kill.target]
        if role.pid is None or role.wakes_at is not None:
            return False
        if self._forge.signal(role.pid, signal.SIGKILL):
            self.kills[kill.target] += 1
        role.pid, role.again_at = None, time.monotonic() + kill.pause_seconds
        return True

    def _kill_server(self, kill: Kill) -> bool:
        before = self._reviving.get(kill.target)
        if before is not None and before.is_alive():
            return False
        revive = self._crash_kafka() if kill.target == "kafka" else self._crash_postgres()
        self.kills[kill.target] += 1

        def work() -> None:
            time.sleep(kill.pause_seconds)
            try:
                revive()
            except BaseException as error:
                self._failures.append(error)

        thread = threading.Thread(target=work, name=f"revive-{kill.target}")
        self._reviving[kill.target] = thread
        thread.start()
        return True

    def _crash_kafka(self) -> Callable[[], None]:
        (broker,) = self._kafka.brokers
        self._kafka.kill(broker)
        return lambda: self._kafka.start(broker)

    def _crash_postgres(self) -> Callable[[], None]:
        pid = self._postgres.postmaster_pid()
        assert pid is not None, "PostgreSQL has ended by itself"
        since = time.monotonic()
        os.kill(pid, signal.SIGKILL)

        def revive() -> None:
            self._postgres.ensure_running()
            self.outages.append((since, time.monotonic()))

        return revive
