"""Helpers for tests with real processes: conditions are awaited, with a bound."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], bool], *, seconds_max: float = 60) -> None:
    """Return as soon as ``condition`` holds; AssertionError if it never does."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds_max} seconds"
        time.sleep(0.01)


def start(*arguments: str | os.PathLike[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process whose arguments the test itself has made; ``options`` as for Popen."""
    return subprocess.Popen(arguments, **options)  # noqa: S603 - nothing comes from outside


def run(
    *arguments: str | os.PathLike[str],
    user_of: os.stat_result | None = None,
    seconds_max: float = 90,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as the user to whom the file of ``user_of`` belongs."""
    return subprocess.run(  # noqa: S603 - nothing comes from outside
        arguments,
        user=user_of.st_uid if user_of and os.geteuid() == 0 else None,
        group=user_of.st_gid if user_of and os.geteuid() == 0 else None,
        extra_groups=[] if user_of and os.geteuid() == 0 else None,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds_max,
    )
