"""A process shows that its consumers go round, and shows it no more when one of them hangs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.alive import SILENT_SECONDS_MAX, AliveFile, AliveFileError, AskedStop
from tests.support.processes import wait_until

LONG_AGO = 1_000_000_000


class Time:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def consumer(
    stop: AskedStop, begins_to_hang: threading.Event, hangs: threading.Event
) -> Iterator[threading.Thread]:
    """A consumer that goes round, until it hangs."""
    goes_on = threading.Event()

    def work() -> None:
        while not stop.wait(0.001):
            if begins_to_hang.is_set():
                hangs.set()
                goes_on.wait()

    thread = threading.Thread(target=work, name="enforcer")
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        goes_on.set()
        thread.join()


def is_touched(file: Path, alive: AliveFile, stop: AskedStop, thread: threading.Thread) -> bool:
    os.utime(file, (LONG_AGO, LONG_AGO))
    alive.look(stop, [thread])
    return file.stat().st_mtime > LONG_AGO


def test_the_file_is_touched_while_all_go_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, time = tmp_path / "alive", Time()
    stop, begins_to_hang, hangs = AskedStop(time), threading.Event(), threading.Event()
    with AliveFile(file) as alive, consumer(stop, begins_to_hang, hangs) as thread:
        wait_until(lambda: is_touched(file, alive, stop, thread))
        time.now = SILENT_SECONDS_MAX + 1
        wait_until(lambda: is_touched(file, alive, stop, thread))
        begins_to_hang.set()
        assert hangs.wait(60)
        time.now += SILENT_SECONDS_MAX
        assert is_touched(file, alive, stop, thread)
        time.now += 1
        assert not is_touched(file, alive, stop, thread)
        assert "enforcer has not gone round for 180 seconds" in caplog.text
    assert not file.exists()


def test_a_thread_that_never_asked_does_not_go_round(tmp_path: Path) -> None:
    file, stop = tmp_path / "alive", AskedStop()
    with AliveFile(file) as alive:
        assert not is_touched(file, alive, stop, threading.Thread())


def test_without_a_file_nothing_is_touched(tmp_path: Path) -> None:
    with AliveFile(None) as alive:
        alive.look(AskedStop(), [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(AliveFileError, match="cannot be written"), AliveFile(tmp_path / "a" / "b"):
        pass
