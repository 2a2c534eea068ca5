"""Policies: the one in force, those before, a new one; what two people put in force; calendars."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api import holidays
from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InReads, InServices, Services
from api.http.shapes import Page, Shape
from api.http.unchanged import (
    UNCHANGED,
    InUnless,
)
from api.http.writing import (
    STATED,
    InWrites,
    Stated,
    etag,
    fact,
    reflected_etag,
    stated,
)
from ledger import commands
from ledger import organisation_commands as facts
from ledger.commands import AnyDay, Flag, Id, parse
from ledger.organisation import OrganisationAt
from ledger.organisation import Proposal as Proposed
from ledger.policy import Policy
from ledger.working_days import StatedYear
from projections import people as views

router = APIRouter(prefix="/v1", tags=["policies"])
# As large as the number of a policy may be where it is stored.
_NUMBER_MAX = 2**31 - 1


class PolicySummary(Shape):
    """A policy that was adopted, without its rules; 0 is the default, which nobody adopted."""

    number: int
    position: int | None
    recorded: datetime | None
    comment: str | None
    in_force: bool


class PolicyDetails(PolicySummary):
    """A policy with its rules, as a new one states them (see POST /v1/policies)."""

    rules: dict[str, Any]


class PolicyInForce(PolicyDetails):
    """The policy in force, and the version of the decider that decides by it."""

    decider: int


class NewPolicy(commands.Command):
    """A policy to put in force: what is not given has its default. The comment stays in plain."""

    policy: Policy
    comment: commands.Note | None = None


class Proposal(Shape):
    """What somebody proposed: ``open``, ``adopted`` or ``withdrawn`` (by ``decided_by``).

    ``fact`` is what is stated once it is adopted.
    """

    proposal: str
    proposer: str
    kind: Literal["policy", "territory", "person", "import", "four_eyes", "calendar"]
    fact: dict[str, Any]
    position: int
    recorded: datetime
    state: Literal["open", "adopted", "withdrawn"]
    decided_by: str | None


class FourEyes(Shape):
    """Whether what decides over others takes two people."""

    required: bool


class FourEyesAsIs(commands.Command):
    """Whether what decides over others takes two people, from now on."""

    required: Flag


class Calendar(Shape):
    """The exceptions of a year from Monday to Friday being worked.

    ``holidays`` (节假日) are not worked, ``workdays`` (调休) are days of weekends that are.
    ``source`` names the library that knew; None: people stated them.
    """

    year: int
    holidays: list[date]
    workdays: list[date]
    source: str | None


class CalendarAsIs(commands.Command):
    """All exceptions of a year, which replace those that were stated before."""

    holidays: Annotated[tuple[AnyDay, ...], Field(max_length=262)] = ()
    workdays: Annotated[tuple[AnyDay, ...], Field(max_length=106)] = ()


# --- policies ----------------------------------------------------------------------------------


@router.get("/policies")
def list_policies(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    reads: InReads,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[PolicySummary]:
    """List the policies that were adopted, the newest first."""
    before = read_cursor(cursor, "policies", int)
    with services.reading(reads) as connection:
        adopted = views.policies(connection)[::-1]
    behind = [each for each in adopted if not before or each.number < before[0]]
    shown, following = page_of(
        behind[: limit + 1], limit, lambda each: make_cursor("policies", each.number)
    )
    last = adopted[0].number if adopted else 0
    return Page(items=[PolicySummary(**_summary(each, last)) for each in shown], next=following)


@router.get("/policies/current", responses=UNCHANGED)
def get_policy_in_force(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    unless: InUnless,
    reads: InReads,
) -> PolicyInForce:
    """Return the policy in force; the ETag is for adopting the next."""
    with services.reading(reads) as connection:
        reads.response.headers["ETag"] = reflected_etag(connection, reads)
        unless.check(reads.response)
        adopted = views.policies(connection)
        decider = views.organisation(connection).decider
    last = adopted[-1].number if adopted else 0
    return PolicyInForce(**_details(adopted, last), decider=decider)


@router.get("/policies/{number}", responses=UNCHANGED)
def get_policy(
    number: Annotated[int, Path(ge=0, le=_NUMBER_MAX, description="0 is the default.")],
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    unless: InUnless,
    reads: InReads,
) -> PolicyDetails:
    """Return a policy by its number."""
    with services.reading(reads) as connection:
        reads.response.headers["ETag"] = reflected_etag(connection, reads)
        details = _details(views.policies(connection), number)
    unless.check(reads.response)
    return PolicyDetails(**details)


def _details(adopted: list[views.AdoptedPolicy], number: int) -> dict[str, Any]:
    last = adopted[-1].number if adopted else 0
    if number == 0:
        nobody = {"position": None, "recorded": None, "comment": None}
        return {"number": 0, **nobody, "in_force": last == 0, "rules": Policy().as_rules()}
    found = next((each for each in adopted if each.number == number), None)
    if found is None:
        raise NotFoundError("policy", number)
    # What was not there yet when it was adopted has held by default since.
    rules = Policy.model_validate(dict(found.rules)).as_rules()
    return {**_summary(found, last), "rules": rules}


def _summary(each: views.AdoptedPolicy, last: int) -> Mapping[str, Any]:
    return {
        "number": each.number,
        "position": each.position,
        "recorded": each.recorded,
        "comment": each.comment,
        "in_force": each.number == last,
    }


@router.post("/policies", status_code=201, responses=STATED)
async def adopt_policy(
    new: NewPolicy,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Put a policy in force (201); where four eyes are required, propose it (202).

    ``about`` is its number.
    """
    caller.must_be_unbound()
    command = parse(facts.AdoptPolicy, new.model_dump(exclude_unset=True))
    answer = await fact(services, caller, writes, command)
    if answer.about is not None:
        writes.response.headers["Location"] = f"/v1/policies/{answer.about}"
    return answer


# --- four eyes ---------------------------------------------------------------------------------

ProposalId = Annotated[Id, Path(description="The proposal's id.")]


@router.get("/proposals", tags=["proposals"])
def list_proposals(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    response: Response,
    state: Annotated[
        Literal["open", "adopted", "withdrawn"] | None, Query(description="None: all of them.")
    ] = "open",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Proposal]:
    """List what was proposed, in order; by default what waits for somebody else to adopt it."""
    after = read_cursor(cursor, "proposals", int)
    organisation = _now(services, response)
    wanted = [
        each
        for each in organisation.proposals()
        if (state is None or each.state == state) and (not after or each.position > after[0])
    ]
    shown, following = page_of(
        wanted[: limit + 1], limit, lambda each: make_cursor("proposals", each.position)
    )
    return Page(items=[Proposal.model_validate(each) for each in shown], next=following)


@router.get("/proposals/{proposal}", responses=UNCHANGED, tags=["proposals"])
def get_proposal(
    proposal: ProposalId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    unless: InUnless,
    response: Response,
) -> Proposal:
    """Return a proposal; the ETag is for adopting it."""
    found = _proposal(services, response, proposal)
    unless.check(response)
    return Proposal.model_validate(found)


def _proposal(services: Services, response: Response, proposal: str) -> Proposed:
    found = _now(services, response).proposal(proposal)
    if found is None:
        raise NotFoundError("proposal", proposal)
    return found


def _now(services: Services, response: Response) -> OrganisationAt:
    """Return the organisation by the log itself, and say by which version of it."""
    organisation, version = services.directory.now()
    response.headers["ETag"] = etag(version)
    response.headers["Ledger-Position"] = str(organisation.position - 1)
    return organisation


@router.post("/proposals/{proposal}/adopt", status_code=201, tags=["proposals"])
async def adopt_proposal(
    proposal: ProposalId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.ADOPT)],
    writes: InWrites,
) -> Stated:
    """Put in force what somebody else has proposed.

    By another administrator; where the proposer is the only one, by a manager. ``about`` is what
    is in force from now on.
    """
    caller.must_be_unbound()
    command = parse(facts.AdoptProposal, {"proposal": proposal})
    recorded = await stated(services, caller, writes, [command])
    last = recorded[-1]
    return Stated(position=last.position, about=last.about, repeated=last.repeated)


@router.post("/proposals/{proposal}/withdraw", status_code=201, tags=["proposals"])
async def withdraw_proposal(
    proposal: ProposalId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Withdraw a proposal that nobody has adopted, one's own or another's."""
    caller.must_be_unbound()
    command = parse(facts.WithdrawProposal, {"proposal": proposal})
    recorded = await stated(services, caller, writes, [command])
    last = recorded[-1]
    return Stated(position=last.position, about=last.about, repeated=last.repeated)


@router.get("/four-eyes", responses=UNCHANGED, tags=["proposals"])
def get_four_eyes(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    unless: InUnless,
    response: Response,
) -> FourEyes:
    """Say whether policies, heads, roles and imports take two people."""
    required = _now(services, response).four_eyes
    unless.check(response)
    return FourEyes(required=required)


@router.put("/four-eyes", status_code=201, responses=STATED, tags=["proposals"])
async def require_four_eyes(
    as_is: FourEyesAsIs,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Require four eyes (201), or no longer, which takes two people itself (202)."""
    caller.must_be_unbound()
    command = parse(facts.RequireFourEyes, as_is.model_dump())
    return await fact(services, caller, writes, command)


# --- calendars ---------------------------------------------------------------------------------

Year = Annotated[int, Path(ge=facts.YEAR_MIN, le=facts.YEAR_MAX)]


@router.get("/calendars", tags=["calendars"])
def list_calendars(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Calendar]:
    """List the years that are stated, in order; in any other Monday to Friday are worked."""
    after = read_cursor(cursor, "calendars", int)
    years = _now(services, response).working_days.years
    wanted = [years[year] for year in sorted(years) if not after or year > after[0]]
    shown, following = page_of(
        wanted[: limit + 1], limit, lambda each: make_cursor("calendars", each.year)
    )
    return Page(items=[_calendar(each) for each in shown], next=following)


@router.get("/calendars/{year}", responses=UNCHANGED, tags=["calendars"])
def get_calendar(
    year: Year,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    unless: InUnless,
    response: Response,
) -> Calendar:
    """Return the exceptions of a year; 404 where nothing was stated of it."""
    found = _now(services, response).working_days.years.get(year)
    if found is None:
        raise NotFoundError("calendar of the year", year)
    unless.check(response)
    return _calendar(found)


def _calendar(each: StatedYear) -> Calendar:
    return Calendar(
        year=each.year,
        holidays=list(each.holidays),
        workdays=list(each.workdays),
        source=each.source,
    )


@router.post("/calendars/{year}/seed", status_code=201, responses=STATED, tags=["calendars"])
async def seed_calendar(
    year: Year,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """State the holidays of mainland China of a year, as the library chinesecalendar knows them.

    It replaces what was stated of the year. From then on it stays as it is, whatever a newer
    library says. 422 for a year that the library does not know.
    """
    caller.must_be_unbound()
    return await fact(services, caller, writes, holidays.year_of_library(year))


@router.put("/calendars/{year}", status_code=201, responses=STATED, tags=["calendars"])
async def state_calendar(
    year: Year,
    as_is: CalendarAsIs,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """State all exceptions of a year, from now on; they replace those stated before."""
    caller.must_be_unbound()
    command = parse(facts.StateCalendar, as_is.model_dump(exclude_unset=True) | {"year": year})
    return await fact(services, caller, writes, command)
