"""What ``guishu run`` shows: how things stand, what to try, and each event as one line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from api.bootstrap import Ledger
from api.cli.approval_words import approval_words
from api.cli.collaboration_words import collaboration_words
from api.cli.conflict_words import conflict_words
from api.cli.context import console, print_table
from api.cli.hand_over_words import hand_over_words
from api.cli.orphan_words import orphan_words
from api.cli.resolve import Names
from consumers.clock import database_now
from ledger import reasons
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.events import organisation as facts
from projections import claims as claim_views
from projections import customers as customer_views
from projections import deadlines
from projections.ownership import list_ownership

CLAIM_DAYS = 7
FORECAST_DAYS = 30
SHOWN_HERE = "What they do is shown here. Ctrl-C stops."


def demo_now(ledger: Ledger) -> datetime:
    """Return until when a demo's history reaches: that of a demo that was cut off, else now.

    A demo that goes on where it was cut off must ask for just what it asked for before.
    """
    with ledger.pool.connection() as connection:
        row = connection.execute("SELECT recorded FROM ledger.events WHERE position = 1").fetchone()
    return row[0] if row else datetime.now(UTC).replace(microsecond=0)


@dataclass(slots=True)
class _Standing:
    owned: int = 0
    free: int = 0


def show(ledger: Ledger, *, try_these: bool, ending: str = SHOWN_HERE) -> None:
    """Print customers owned and free per territory, and the claims of the last days.

    ``ending`` says behind what can be tried where one sees what comes of it.
    """
    names = Names(ledger)
    by_territory: dict[str | None, _Standing] = {}
    after = ""
    with ledger.pool.connection() as connection:
        while page := list_ownership(connection, after=after, limit=5_000):
            for each in page:
                standing = by_territory.setdefault(each.customer_territory, _Standing())
                if each.owner is None:
                    standing.free += 1
                else:
                    standing.owned += 1
            after = page[-1].customer
        since = first_moment(datetime.now(names.zone))
        days = claim_views.per_day(connection, since, names.zone.key)
    rows = [
        (names.territory(territory) or "no territory", standing.owned, standing.free)
        for territory, standing in by_territory.items()
    ]
    title = f"{names.organisation.name or 'a ledger without an organisation'}: customers"
    print_table(title, ("territory", "owned", "free"), sorted(rows))
    per_day: dict[Any, Counter[str]] = {}
    for day in days:
        per_day.setdefault(day.day, Counter())[day.status] += day.claims
    print_table(
        f"claims of the last {CLAIM_DAYS} days",
        ("day", "granted", "refused"),
        [(day, each["granted"], each["refused"]) for day, each in sorted(per_day.items())],
    )
    _show_recycling(ledger, names)
    if try_these:
        _show_commands(ledger, names, ending)


def first_moment(now: datetime) -> datetime:
    """Return the first moment of the last days, of which today is one, in the zone of ``now``."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=CLAIM_DAYS - 1)


def _show_recycling(ledger: Ledger, names: Names) -> None:
    """Say how many customers go back to the pool soon, where the policy recycles."""
    if not names.organisation.policy.policy.recycling.rules:
        return
    with ledger.pool.connection() as connection:
        now = database_now(connection)
        count = deadlines.falling_count(connection, now + timedelta(days=FORECAST_DAYS))
    console().print(
        f"{count} customers go back to the pool within {FORECAST_DAYS} days unless somebody works"
        " them (guishu recycle; guishu due lists the warnings)",
        markup=False,
        soft_wrap=True,
    )


def _show_commands(ledger: Ledger, names: Names, ending: str) -> None:
    """Print three commands that work with what is in this ledger, for a second terminal."""
    organisation = names.organisation
    if organisation.name is None:
        _show_beginning(ending)
        return
    with ledger.pool.connection() as connection:
        free = list_ownership(connection, free=True, limit=200)
        picked = next(
            (
                (each.customer, person.person)
                for each in free
                for person in organisation.bearers("rep")
                if person.left_on is None
                and organisation.is_within(each.customer_territory, person.territory)
            ),
            None,
        )
        found = customer_views.summaries(connection, [picked[0]]) if picked else {}
    if picked is None or picked[0] not in found:
        return
    name = found[picked[0]].name
    person = names.person(picked[1])
    console().print("\nIn a second terminal, in this folder:", markup=False)
    for line in (
        f".venv/bin/guishu claim {name} --as {person}",
        f".venv/bin/guishu follow-up {name} 约好周五演示 --as {person}",
        f".venv/bin/guishu whois {name}",
    ):
        console().print(f"    {line}", markup=False, soft_wrap=True)
    console().print(f"{ending}\n", markup=False)


def _show_beginning(ending: str) -> None:
    """Say how a ledger begins that is nobody's yet."""
    console().print("\nThis ledger is empty. In a second terminal, in this folder:", markup=False)
    for line in (
        ".venv/bin/guishu init ORGANISATION ADMINISTRATOR",
        ".venv/bin/guishu import MAPPING FOLDER",
    ):
        console().print(f"    {line}", markup=False, soft_wrap=True)
    console().print(
        "The first founds the organisation, the second does so with what other systems know"
        f" (guishu run --demo makes one up). {ending}\n",
        markup=False,
        soft_wrap=True,
    )


def line(event: Event, names: Names) -> str:
    """Return an event as one line: position, time, and a sentence."""
    return f"{event.position:>7}  {names.moment(event.effective)}  {sentence(event, names)}"


def sentence(event: Event, names: Names) -> str:
    """Return what an event says, in one sentence."""
    data = event.data
    actor = names.person(event.actor) if event.actor != "enforcer" else "enforcer"
    customer = names.customer(getattr(data, "customer", None))
    match data:
        case requests.RegistrationRequested():
            return f"{actor} enters {customer}"
        case requests.CustomerChangeRequested():
            return f"{actor} changes {customer}"
        case requests.ClaimFiled():
            return f"{names.person(data.claimant)} claims {customer}"
        case requests.ReleaseRequested():
            return f"{actor} gives {customer} back ({data.reason_code})"
        case requests.AssignmentRequested():
            return f"{actor} assigns {customer} to {names.person(data.assignee)}"
        case requests.FollowUpLogged():
            return f"{names.person(data.person)} follows {customer} up ({data.channel})"
        case requests.DealRecorded():
            value = f", {data.value.amount} {data.value.currency}" if data.value else ""
            return f"{names.person(data.person)}: deal {data.outcome} at {customer}{value}"
        case requests.FollowUpCorrected() | requests.FollowUpVoided():
            verb = "voids" if isinstance(data, requests.FollowUpVoided) else "corrects"
            return f"{actor} {verb} a follow-up at {customer}"
        case requests.DealCorrected() | requests.DealVoided():
            verb = "voids" if isinstance(data, requests.DealVoided) else "corrects"
            return f"{actor} {verb} a deal at {customer}"
        case requests.TransferRequested():
            return f"{actor} asks to transfer {customer} to {names.person(data.receiver)}"
        case requests.TransferWithdrawn():
            return f"{actor} withdraws what awaits approval at {customer}"
        case requests.ApprovalGiven():
            return f"{actor} approves at {customer}"
        case requests.ApprovalDenied():
            return f"{actor} does not approve at {customer} ({data.reason_code})"
        case requests.CollaborationRequested():
            return f"{actor} asks that {names.person(data.person)} collaborates at {customer}"
        case requests.CollaborationEndRequested():
            return f"{actor} ends a collaboration at {customer} ({data.reason_code})"
        case requests.RulingGiven():
            return f"{actor} rules on a conflict at {customer}: {data.ruling}"
        case requests.RequestUnparked():
            return f"{actor} has the request at {data.request} decided by version {data.decider}"
        case requests.StandInRequested():
            return f"{actor} has {names.person(data.person)} stand in at {customer}"
        case requests.StandInEndRequested():
            return f"{actor} ends a stand-in at {customer} ({data.reason_code})"
        case requests.GroupReviewRequested():
            return f"{actor} has the group of {customer} reviewed"
        case requests.RecycleHoldRequested():
            return f"{actor} has {customer} not recycled before {data.until}"
        case requests.HandOverRequested():
            receivers = ", ".join(names.person(each) for each in data.receivers)
            return f"{actor} hands over from {names.person(data.giver)} to {receivers}"
        case requests.DeadlineReached():
            return f"the clock: {data.kind.replace('_', ' ')} at {customer}"
        case _:
            return _decision(event, names, customer)


def _decision(event: Event, names: Names, customer: str) -> str:
    data = event.data
    match data:
        case decisions.CustomerAdmitted():
            return f"  admitted: {customer}, {names.territory(data.territory) or 'no territory'}"
        case decisions.OwnershipGranted() | decisions.OwnershipAssigned():
            return f"  granted: {customer} belongs to {names.person(data.owner)}"
        case decisions.OwnershipReleased():
            return f"  released: {customer} is free"
        case decisions.Noted():
            remark = f": {reasons.SENTENCES[data.remark]}" if data.remark else ""
            return f"  noted at {customer}{remark}"
        case decisions.CustomerChanged():
            return f"  changed: {customer}, {names.territory(data.territory) or 'no territory'}"
        case decisions.RequestParked():
            return f"  parked: the request at {data.request} waits ({data.error})"
        case _:
            told = approval_words(data, names) or collaboration_words(data, names)
            told = told or conflict_words(data, names) or orphan_words(data, names)
            told = told or hand_over_words(data, names)
            if told is not None:
                return f"  {told}"
            reason = getattr(data, "reason", None)
            if reason in reasons.SENTENCES:
                return f"  refused ({reason}): {reasons.SENTENCES[reason]}"
            return _fact(event, names)


def _fact(event: Event, names: Names) -> str:
    data = event.data
    person = names.person(getattr(data, "person", None))
    match data:
        case facts.OrganisationFounded():
            return f"{data.name} is founded; its days are those of {data.time_zone}"
        case facts.TerritoryDefined():
            head = names.person(data.head) or "nobody"
            above = f" below {names.territory(data.parent)}" if data.parent else ""
            return f"territory {data.name}{above}, head {head}"
        case facts.PersonJoined() | facts.PersonChanged():
            verb = "joins" if isinstance(data, facts.PersonJoined) else "is changed"
            where = names.territory(data.territory) or "no territory"
            return f"{person} {verb}: {' '.join(data.roles)}, {where}"
        case facts.PersonLeft():
            return f"{person} is not there from {data.left_on} on"
        case facts.PersonReturned():
            return f"{person} is there again from {data.returned_on} on"
        case facts.PersonAway():
            return f"{person} is away from {data.from_day} until {data.until_day}"
        case facts.DelegateNamed():
            acting = names.person(data.delegate)
            return f"{acting} acts for {person} from {data.from_day} until {data.until_day}"
        case facts.AbsenceEnded():
            return f"{person} is back from {data.back_on} on"
        case facts.DelegationEnded():
            return f"nobody acts for {person} any more from {data.ended_on} on"
        case facts.PolicyAdopted():
            return f"policy {data.number} is in force"
        case facts.DeciderAdopted():
            return f"version {data.version} of the decider decides from now on"
        case facts.ImportOpened():
            return f"import {data.name} begins"
        case facts.ImportClosed():
            opened = names.organisation.import_(data.import_id)
            return f"import {opened.name if opened else data.import_id} ends"
        case facts.CalendarStated():
            free, worked = len(data.holidays), len(data.workdays)
            source = f", as {data.source} has it" if data.source else ""
            return f"{data.year}: {free} holidays, {worked} weekend days worked{source}"
        case facts.FourEyesRequired():
            return f"four eyes are {'required' if data.required else 'not required'} from now on"
        case facts.FactProposed():
            actor = names.person(event.actor)
            return f"{actor} proposes a change ({data.kind}) as {data.proposal}"
        case facts.ProposalAdopted():
            proposer = names.person(data.proposer)
            return f"{names.person(event.actor)} adopts {data.proposal} of {proposer}:"
        case facts.ProposalWithdrawn():
            return f"{names.person(event.actor)} withdraws {data.proposal}"
        case _:
            customer = names.customer(getattr(data, "customer", None))
            return f"{event.name.partition('.')[0]} {customer}".rstrip()
