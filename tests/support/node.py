"""Programs of Node.js for tests: what their lock file names is fetched once, into a cache.

npm is used as anybody else on this machine uses it: its own settings say from where it fetches.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

from consumers.kafka.fetching import cache_folder
from tests.support.processes import run

_LISTS = ("package.json", "package-lock.json", ".npmrc")


def program(name: str) -> str:
    """Return the path of ``node`` or ``npm``; fails where it is not there."""
    found = shutil.which(name)
    assert found is not None, f"This test needs {name} on the PATH (Node.js 20 or newer with npm)."
    return found


def with_packages(source: Path, folder: Path) -> Path:
    """Copy a program into an empty folder, with its packages beside it; return the folder."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(_packages(source))
    return folder


def _packages(source: Path) -> Path:
    """Return the packages that a program's lock file names; fetch them, if they are not there.

    Several processes may ask at once: one of them fetches.
    """
    node, npm = program("node"), program("npm")
    wanted = b"".join((source / name).read_bytes() for name in _LISTS)
    base = cache_folder()
    kept = base / f"node-{hashlib.sha256(wanted).hexdigest()[:16]}"
    base.mkdir(parents=True, exist_ok=True)
    lock = os.open(base / "fetching.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            draft = Path(mkdtemp(prefix="fetching-", dir=base))
            try:
                for name in _LISTS:
                    shutil.copy(source / name, draft)
                done = run(npm, "ci", "--prefix", draft, "--no-audit", "--no-fund", seconds_max=600)
                assert done.returncode == 0, f"{node}, npm ci: {done.stdout}{done.stderr}"
                draft.rename(kept)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    finally:
        os.close(lock)
    return kept / "node_modules"
