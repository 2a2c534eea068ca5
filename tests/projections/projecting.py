"""A process that keeps the read models until it is done; for the tests, which kill it.

Prints the position after each batch.
"""

from __future__ import annotations

import sys

from ledger.events.catalogue import catalogue
from projections.registry import all_projections
from projections.runner import Runner, RunnerLimits
from tests.projections.history import OpenUnsealer
from tests.projections.models import connected


def main() -> None:
    """Project the log at the URL that the first argument gives, in batches of the second."""
    url, batch = sys.argv[1], int(sys.argv[2])
    with connected(url) as connection:
        limits = RunnerLimits(batch_events_max=batch)
        runner = Runner(connection, all_projections(OpenUnsealer()), catalogue(), limits)
        runner.start()
        runner.catch_up(lambda position: print(position, flush=True))


if __name__ == "__main__":
    main()
