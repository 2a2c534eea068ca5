"""The lock file, which a new machine installs from."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

LOCK = Path(__file__).parents[1] / "requirements.lock"
PINNED = re.compile(r"^[a-zA-Z0-9]\S*?(?:\[.*?\])?==[^ ;]+", re.MULTILINE)


def test_the_lock_pins_every_extra_that_an_installed_package_asks_for() -> None:
    """Finding: pytest-cov needs ``coverage[toml]`` and the lock pinned ``coverage`` alone. The pip
    that comes with Python 3.11 holds those for two things, took the newest release of the first,
    and refused it for want of a hash, on the day that one came out.
    """
    pinned = {
        canonicalize_name(each.name): each.extras
        for each in map(Requirement, PINNED.findall(LOCK.read_text("utf-8")))
    }
    asked: defaultdict[NormalizedName, set[str]] = defaultdict(set)
    for distribution in distributions():
        for each in map(Requirement, distribution.requires or ()):
            if each.extras and (each.marker is None or each.marker.evaluate({"extra": ""})):
                asked[canonicalize_name(each.name)] |= each.extras
    assert {"coverage", "psycopg"} <= asked.keys()
    assert [name for name, extras in asked.items() if extras - pinned[name]] == []
