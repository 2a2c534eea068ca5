"""Runs one program, and ends it when whoever started us has ended, however that came about.

``python -m consumers.kafka.keeper SECONDS PROGRAM ARGUMENT...`` says the number of the program's
process. At the end of the standard input it asks the program to end, and kills it after SECONDS.
A broker knows no such bond: a killed launcher would leave it behind, with half a gigabyte.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Sequence

_POLL_SECONDS = 0.1


def keep(seconds: float, command: Sequence[str]) -> int:
    """Run ``command`` until it or our standard input ends; return how it ended."""
    # What we inherited on purpose, a lock above all, is for the program as well.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False) as program:  # noqa: S603
        print(program.pid, flush=True)
        while program.poll() is None:
            if select.select([sys.stdin], [], [], _POLL_SECONDS)[0] and not os.read(0, 1):
                _end(program, seconds)
        return program.returncode


def _end(program: subprocess.Popen[bytes], seconds: float) -> None:
    if seconds:
        program.terminate()
        try:
            program.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        else:
            return
    program.kill()
    program.wait()


if __name__ == "__main__":
    sys.exit(keep(float(sys.argv[1]), sys.argv[2:]) % 256)
