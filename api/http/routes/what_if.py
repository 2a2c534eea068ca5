"""What-ifs: what would be different had another policy been in force, as a job."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter

from api.http.admission import requires
from api.http.callers import Caller
from api.http.inputs import Moment
from api.http.jobs import Job, ask, asked_of
from api.http.permissions import Permission
from api.http.services import InServices
from api.http.writing import (
    InKeyed,
)
from ledger import commands
from ledger import organisation_commands as facts
from ledger.canonical import instant
from ledger.organisation_checks import check_facts
from ledger.policy import Policy

router = APIRouter(prefix="/v1/what-if", tags=["policies"])


class WhatIfIn(commands.Command):
    """A policy (what is not given has its default), and from when on it would have held."""

    policy: Policy
    since: Moment


@router.post("", status_code=202)
def ask_what_if(
    asked: WhatIfIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WHAT_IF)],
    writes: InKeyed,
) -> Job:
    """Decide again what was recorded since then, under another policy; nothing is written.

    The answer is a job; its result has the differences in numbers, and names the customers behind
    them, up to 1,000 in each list (``left_out`` says how many more there are).
    """
    caller.must_be_unbound()
    check_facts([facts.AdoptPolicy(policy=asked.policy)], [None], caller.organisation, _now())
    parameters = {"policy": asked.policy.as_rules(), "since": instant(asked.since)}
    return ask(services, writes.response, asked_of(services, caller, writes, "what_if", parameters))


def _now() -> datetime:
    return datetime.now(UTC)
