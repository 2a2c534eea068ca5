"""Where tests keep the data of servers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

# Linux mounts a file system in memory there. Thousands of databases are made and dropped, each of
# them hundreds of files, which takes some file systems on disks ten times as long.
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
# Containers often have next to nothing there.
_ROOM_BYTES_MIN = 6 * 1024**3


@contextmanager
def data_folder() -> Iterator[Path]:
    """Make an empty folder for the data of servers, in memory where there is room; remove it.

    Nothing of what tests show needs a disk: they kill processes, and never the machine.
    """
    with TemporaryDirectory(prefix="guishu-test-", dir=_in_memory()) as folder:
        yield Path(folder)


def _in_memory() -> Path | None:
    try:
        is_usable = os.access(_IN_MEMORY, os.W_OK | os.X_OK)
        return _IN_MEMORY if is_usable and _room() >= _ROOM_BYTES_MIN else None
    except (OSError, KeyError, ValueError):
        return None  # of another make than Linux's


def _room() -> int:
    """Return how many bytes have room there: its size and the memory that is left bound it."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    return min(shutil.disk_usage(_IN_MEMORY).free, available)
