"""Children of a supervisor: started again when they end, and never left behind."""

from __future__ import annotations

import sys
from pathlib import Path

from api.supervising import SupervisingLimits, Supervisor
from tests.support.processes import wait_until

# What a child does is its role here: a line of Python.
PYTHON = (sys.executable, "-c")
QUICK = SupervisingLimits(pause_seconds_min=0.1, pause_seconds_max=0.2, end_seconds_max=5)


def is_alive(pid: int) -> bool:
    """Say whether a process runs: one that has ended and is waited for by nobody does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_what_cannot_run_is_told_and_tried_again_with_pauses_that_grow(tmp_path: Path) -> None:
    told: list[str] = []
    failing = "import sys; sys.exit('there is no role')"
    supervisor = Supervisor([("one", failing)], tmp_path, {}, told.append, QUICK, PYTHON)
    (child,) = supervisor.children
    try:

        def is_tried_thrice() -> bool:
            supervisor.look()
            return child.starts == 3

        wait_until(is_tried_thrice)
    finally:
        supervisor.end()
    assert [each.rpartition("again in ")[2] for each in told] == ["0.1 s", "0.2 s"]
    assert all(each.startswith("one: ended with status 1: there is no role;") for each in told)


def test_where_the_keeper_is_killed_its_program_is_not_left(tmp_path: Path) -> None:
    """A second of its kind would be started beside it."""
    told: list[str] = []
    sleeping = "import time; time.sleep(600)"
    supervisor = Supervisor([("one", sleeping)], tmp_path, {}, told.append, QUICK, PYTHON)
    (child,) = supervisor.children
    try:
        supervisor.look()
        pid, keeper = child.pid, child._keeper
        assert pid is not None
        assert keeper is not None
        keeper.kill()

        def is_noticed() -> bool:
            supervisor.look()
            return bool(told)

        wait_until(is_noticed)
        wait_until(lambda: not is_alive(pid))
    finally:
        supervisor.end()
