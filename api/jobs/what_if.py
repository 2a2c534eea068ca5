"""A what-if as a job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from api import what_ifs
from api.bootstrap import Ledger
from api.jobs.holding import Holding
from api.jobs.table import Job
from ledger.policy import Policy


def do(ledger: Ledger, job: Job, holding: Holding) -> Any:
    """Decide the log again under the policy of the job; return what would be different."""
    policy = Policy.model_validate(job.parameters["policy"])
    since = datetime.fromisoformat(job.parameters["since"])
    report = what_ifs.run(
        ledger,
        policy,
        since,
        lambda position, top: holding.tell("deciding again", position, top),
    )
    holding.tell("told", report.upto, report.upto)
    return what_ifs.document(report, listed_max=what_ifs.LISTED_MAX)
