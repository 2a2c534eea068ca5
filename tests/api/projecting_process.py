"""A process that keeps the read models while it leads, until it is killed; for the tests."""

from __future__ import annotations

import sys
from pathlib import Path

from api import running
from api.bootstrap import open_ledger
from consumers.leading import LeadingLimits
from tests.api.http.office import settings_of
from tests.support.database import DatabaseUrls

SOON_MISSED = LeadingLimits(standby_seconds=0.05, idle_seconds_max=1.0)


def main(service_url: str, folder: Path) -> None:
    """Keep the read models, until killed."""
    urls = DatabaseUrls("", service_url, service_url, "")
    service = running.Service()
    with open_ledger(settings_of(urls, folder), migrating=False) as ledger:
        service.start("projector", running.project(ledger, SOON_MISSED))
        service.stop.wait()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
