"""A process that takes a job and never comes to its end, until it is killed."""

from __future__ import annotations

import base64
import sys
import threading
from pathlib import Path
from typing import Any

from api.bootstrap import Ledger, open_ledger
from api.jobs.holding import Holding
from api.jobs.table import Job
from api.jobs.worker import Worker
from api.settings import Settings
from tests.support.ledgers import MASTER_KEY


def work(ledger: Ledger, job: Job, holding: Holding) -> Any:
    """Say that it is half done, for ever."""
    while True:
        holding.tell("half", 1, 2)
        threading.Event().wait(0.01)


def main() -> None:
    """Take jobs of the database that the first argument names; each lease is of two seconds."""
    settings = Settings(
        database_url=sys.argv[1],  # type: ignore[arg-type]  # pydantic makes it a secret
        master_key=base64.b64encode(MASTER_KEY).decode(),  # type: ignore[arg-type]
        data_directory=Path(sys.argv[2]),
    )
    with (
        open_ledger(settings, migrating=False) as ledger,
        Worker(ledger, doing={"what_if": work}, lease_seconds=2),
    ):
        threading.Event().wait()


if __name__ == "__main__":
    main()
