"""``python -m tests.simulation --seed 7 --count 1000``: so many schedules from a seed on."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator

from tests.simulation.simulate import Failure, Simulation


def told(seed: int, failure: Failure) -> Iterator[str]:
    """Yield the lines that tell of a failure."""
    yield f"seed {seed} fails: {failure.sentence}"
    yield f"with {len(failure.steps)} steps:"
    yield from (f"  {line}" for line in failure.history)
    yield f"repeat it with: make simulate SEED={seed} COUNT=1"


def run(first: int, count: int) -> int:
    """Run so many schedules; return the exit code: 1 with the first that fails."""
    simulation, began = Simulation(), time.monotonic()
    for seed in range(first, first + count):
        failure = simulation.run_seed(seed)
        if failure is not None:
            print("\n".join(told(seed, simulation.shrunk(failure))))
            return 1
    seconds = time.monotonic() - began
    print(f"{count:,} schedules from seed {first} on hold; {count / seconds * 60:,.0f} a minute")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make simulate")
    new = random.randrange(1_000_000_000)  # noqa: S311 - where to look
    parser.add_argument("--seed", type=int, default=new)
    parser.add_argument("--count", type=int, default=1_000)
    given = parser.parse_args()
    sys.exit(run(given.seed, given.count))
