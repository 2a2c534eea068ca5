"""A customer's history in words: each entry of its timeline as one English sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ledger import reasons
from ledger.events.values import Money
from projections.timeline import TimelineEntry


def ids_named(entries: Sequence[TimelineEntry]) -> set[str]:
    """Return the ids of people, customers and territories that the entries' sentences name."""
    named = {each.actor for each in entries}
    for each in entries:
        named.update(filter(None, [each.person, *(each.details.get(key) for key in _NAMED)]))
        for several in ("asked", "people"):
            named.update(each.details.get(several, ()))
    return named


_NAMED = (
    *("owner", "former_owner", "assigned_by", "requester", "ruled_by"),
    *("parent", "territory", "existing", "duplicate"),
)


_Names = Mapping[str, str | None]


def sentence(entry: TimelineEntry, names: _Names) -> str:
    """Say an entry in one English sentence.

    ``names`` gives the names of people, customers and territories by id; an id that it does not
    know, or whose name was erased, stands for itself.
    """
    writer = _SENTENCES.get(entry.event)
    said = writer(entry, names) if writer else f"{entry.event}."
    texts = [
        f"{field}: {'(erased)' if text is None else text}"
        for field, text in entry.words.items()
        if field != "name"
    ]
    return f"{said} ({'; '.join(texts)})" if texts else said


def _name(names: _Names, key: str | None) -> str:
    return "nobody" if key is None else names.get(key) or key


def _pool(entry: TimelineEntry, names: _Names) -> str:
    territory = entry.details.get("territory")
    return f" in {_name(names, territory)}" if territory else ""


def _because(code: str | None) -> str:
    return reasons.SENTENCES.get(code or "", f"{(code or 'no reason').replace('_', ' ')}.")


def _plainly(code: str | None) -> str:
    return f" ({code.replace('_', ' ')})" if code else ""


def why_recycled(because: str | None, days: int | None) -> str:
    """Return for which rule a customer was recycled, as far as that is known."""
    figure = f" for {days} days" if days is not None else ""
    return f"{(because or '').replace('_', ' ')}{figure}"


def _worth(value: Money | None) -> str:
    return f" worth {value.amount:f} {value.currency}" if value else ""


def _on(entry: TimelineEntry, names: _Names) -> str:
    """Say for whom it was done, where that is somebody else than who did it."""
    same = entry.person is None or entry.person == entry.actor
    return "" if same else f" for {_name(names, entry.person)}"


def _say_registration(entry: TimelineEntry, names: _Names) -> str:
    name = entry.words.get("name", "") if "name" in entry.words else ""
    called = f" as {name}" if name else " under a name that was erased"
    parent = entry.details.get("parent")
    group = f", in the group of {_name(names, parent)}" if parent else ""
    return f"{_name(names, entry.actor)} registered the customer{called}{group}."


def _say_change(entry: TimelineEntry, names: _Names) -> str:
    details = entry.details
    parts = [word.replace(":", " ") for word in details.get("changed", ())]
    if "name" in entry.words:
        parts.insert(0, f"the name to {entry.words['name'] or '(erased)'}")
    parts.extend(f"{word.replace(':', ' ')} (removed)" for word in details.get("removed", ()))
    if "closed" in details:
        parts.append("closed" if details["closed"] else "open again")
    asked = ", ".join(parts) or "nothing"
    return f"{_name(names, entry.actor)} asked to change the customer: {asked}."


def _say_follow_up(entry: TimelineEntry, names: _Names) -> str:
    details = entry.details
    then = f", next on {details['next_on']}" if "next_on" in details else ""
    channel = details.get("channel", "unknown")
    who = _name(names, entry.person)
    by = "" if entry.person == entry.actor else f", entered by {_name(names, entry.actor)}"
    return f"{who} followed up by {channel}{then}{by}."


def _say_deal(entry: TimelineEntry, names: _Names) -> str:
    details = entry.details
    product = f" for {details['product']}" if "product" in details else ""
    who = _name(names, entry.person)
    by = "" if entry.person == entry.actor else f", entered by {_name(names, entry.actor)}"
    return f"{who} {details.get('outcome')} a deal{product}{_worth(entry.value)}{by}."


def _say_follow_up_correction(entry: TimelineEntry, names: _Names) -> str:
    changed = [f"{key} {entry.details[key]}" for key in ("channel", "next_on", "at")
               if key in entry.details]  # fmt: skip
    to = f": {', '.join(changed)}" if changed else ""
    who = _name(names, entry.actor)
    return f"{who} asked to correct a follow-up{_plainly(entry.code)}{to}."


def _say_deal_correction(entry: TimelineEntry, names: _Names) -> str:
    changed = [f"{key} {entry.details[key]}" for key in ("outcome", "product")
               if key in entry.details]  # fmt: skip
    if entry.value:
        changed.append(_worth(entry.value).strip())
    to = f": {', '.join(changed)}" if changed else ""
    return f"{_name(names, entry.actor)} asked to correct a deal{_plainly(entry.code)}{to}."


def _say_refused_registration(entry: TimelineEntry, names: _Names) -> str:
    duplicate, existing = entry.details.get("duplicate"), entry.details.get("existing")
    if duplicate:
        return f"The customer was entered a second time, as {_name(names, duplicate)}."
    meant = f" {_name(names, existing)} is meant." if existing else ""
    return f"The registration was refused: {_because(entry.code)}{meant}"


def _say_refused_claim(entry: TimelineEntry, names: _Names) -> str:
    owner, retry = entry.details.get("owner"), entry.details.get("retry_at")
    said = f"The claim of {_name(names, entry.person)} was refused: {_because(entry.code)}"
    if owner and owner != entry.person:
        said += f" The owner is {_name(names, owner)}."
    if retry:
        said += f" It may be tried again from {retry} on."
    return said


def _say_noted(entry: TimelineEntry, names: _Names) -> str:
    if entry.code is None:
        return "It was noted."
    owner = f" The owner is {_name(names, entry.person)}." if entry.person else ""
    token = " It does not count against recycling." if "token_of" in entry.details else ""
    return f"It was noted: {_because(entry.code)}{token}{owner}"


def _say_transfer(entry: TimelineEntry, names: _Names) -> str:
    receiver = "themselves" if entry.person == entry.actor else _name(names, entry.person)
    at_stake = _worth(entry.value).replace("worth", "with a deal worth", 1)
    return (
        f"{_name(names, entry.actor)} asked to transfer the customer to {receiver}"
        f"{at_stake}{_plainly(entry.code)}."
    )


def _asked(entry: TimelineEntry, names: _Names) -> str:
    asked = _listed(entry, names)
    return f"; asked: {asked}" if asked else ""


def _listed(entry: TimelineEntry, names: _Names) -> str:
    return ", ".join(_name(names, each) for each in entry.details.get("asked", ()))


def _say_opened(entry: TimelineEntry, names: _Names) -> str:
    steps, purpose = entry.details.get("steps", 0), entry.details.get("purpose")
    if not steps:
        return f"The {purpose} needs no approval."
    count = "one step" if steps == 1 else f"{steps} steps"
    if "hand_over" in entry.details:
        purpose = f"hand-over to {_name(names, entry.person)}"
    return f"The {purpose} awaits approval in {count}{_asked(entry, names)}."


def _say_answer(entry: TimelineEntry, names: _Names) -> str:
    answer = "agreed" if entry.details.get("agreed") else "did not agree"
    return f"{_name(names, entry.person)} {answer} (step {entry.details.get('step', 0) + 1})."


def _say_closed(entry: TimelineEntry, names: _Names) -> str:
    why = f": {_because(entry.code)}" if entry.code else "."
    return f"What awaited approval is {entry.details.get('outcome')}{why}"


def _say_collaboration(entry: TimelineEntry, names: _Names) -> str:
    same = entry.person == entry.actor
    who = "" if same else f" that {_name(names, entry.person)} may"
    days = "".join(
        f" {word} {entry.details[key]}"
        for word, key in (("from", "from_day"), ("until", "until_day"))
        if key in entry.details
    )
    asked = f"{_name(names, entry.actor)} asked{who or ' to'} collaborate"
    return f"{asked}{_terms(entry)}{days}{_plainly(entry.code)}."


def _terms(entry: TimelineEntry) -> str:
    details = entry.details
    share = f" for {details['share']} % of the credit" if "share" in details else ""
    site = f" at the site {details['site']}" if "site" in details else ""
    return f" as {details.get('role', 'collaborator')}{site}{share}"


def _say_collaborator(entry: TimelineEntry, names: _Names) -> str:
    until = entry.details.get("until")
    ends = f" until {until}" if until else ""
    since = f" from {entry.details.get('since')}{ends}"
    return f"{_name(names, entry.person)} collaborates{_terms(entry)}{since}."


def _say_collaborations_ended(entry: TimelineEntry, names: _Names) -> str:
    people = [_name(names, each) for each in entry.details.get("people", ())]
    verb = "collaborates" if len(people) == 1 else "collaborate"
    return f"{' and '.join(people)} no longer {verb}{_plainly(entry.code)}."


_RULINGS = {
    "keep": "the owner keeps the customer",
    "split": "the owner shares the customer",
    "allow": "the parties may go on",
    "dismiss": "there is no conflict",
}
_KINDS = {
    "competing_claims": "another claim so soon after the grant",
    "follow_up": "a follow-up by somebody else",
    "deal": "a deal by somebody else",
    "group": "members of one group under different owners",
    "identifier": "the same identifier entered again",
}


def _say_ruling(entry: TimelineEntry, names: _Names) -> str:
    ruling = entry.details.get("ruling", "")
    said = _RULINGS.get(ruling) or f"the customer goes to {_name(names, entry.person)}"
    parts = [
        _name(names, person) + (f" for {share} %" if share else "")
        for person, share in entry.details.get("parts", ())
    ]
    whom = f" with {', '.join(parts)}" if parts else ""
    return f"{_name(names, entry.actor)} ruled that {said}{whom}{_plainly(entry.code)}."


_PARTIES_TOLD = 6


def _say_conflict(entry: TimelineEntry, names: _Names) -> str:
    people = [_name(names, each) for each in entry.details.get("people", ())]
    if len(people) > _PARTIES_TOLD:
        people = [*people[: _PARTIES_TOLD - 1], f"{len(people) - _PARTIES_TOLD + 1} others"]
    kind = _KINDS.get(entry.details.get("kind", ""), "a conflict")
    return f"A conflict of {' and '.join(people)}: {kind}{_asked(entry, names)}."


def _say_evidence(entry: TimelineEntry, names: _Names) -> str:
    people = [_name(names, each) for each in entry.details.get("people", ())]
    joins = f", which {' and '.join(people)} joins" if people else ""
    return f"One more proof of the conflict{joins}{_asked(entry, names)}."


def _say_conflict_closed(entry: TimelineEntry, names: _Names) -> str:
    if entry.details.get("outcome") == "gone":
        return f"The conflict is gone: {_because(entry.code)}"
    ruled_by = _name(names, entry.details.get("ruled_by"))
    return f"The conflict was ruled on by {ruled_by}: {entry.details.get('outcome')}."


def _say_grant(entry: TimelineEntry, names: _Names) -> str:
    waived = entry.details.get("limits_waived")
    but = f" Today's limits would have refused it: {', '.join(waived)}." if waived else ""
    return f"{_name(names, entry.person)} owns the customer.{but}"


_SENTENCES: dict[str, Callable[[TimelineEntry, _Names], str]] = {
    "RegistrationRequested": _say_registration,
    "CustomerChangeRequested": _say_change,
    "ClaimFiled": lambda e, n: f"{_name(n, e.actor)} claimed the customer{_on(e, n)}.",
    "ReleaseRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked to release the customer{_plainly(e.code)}."
    ),
    "AssignmentRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked to assign the customer to {_name(n, e.person)}."
    ),
    "TransferRequested": _say_transfer,
    "TransferWithdrawn": lambda e, n: (
        f"{_name(n, e.actor)} asked to withdraw what awaits approval{_plainly(e.code)}."
    ),
    "ApprovalGiven": lambda e, n: f"{_name(n, e.actor)} approved.",
    "ApprovalDenied": lambda e, n: f"{_name(n, e.actor)} did not approve{_plainly(e.code)}.",
    "CollaborationRequested": _say_collaboration,
    "CollaborationEndRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked to end a collaboration{_plainly(e.code)}."
    ),
    "RulingGiven": _say_ruling,
    "FollowUpLogged": _say_follow_up,
    "DealRecorded": _say_deal,
    "FollowUpCorrected": _say_follow_up_correction,
    "FollowUpVoided": lambda e, n: (
        f"{_name(n, e.actor)} asked to void a follow-up{_plainly(e.code)}."
    ),
    "DealCorrected": _say_deal_correction,
    "DealVoided": lambda e, n: f"{_name(n, e.actor)} asked to void a deal{_plainly(e.code)}.",
    "RequestUnparked": lambda e, n: (
        f"{_name(n, e.actor)} had the request at position {e.details['request']} decided"
        f" by version {e.details['decider']} of the decider."
    ),
    "DeadlineReached": lambda e, n: f"A deadline was reached{_plainly(e.code)}.",
    "RecycleHoldRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked not to recycle the customer before"
        f" {e.details.get('until', 'then')}{_plainly(e.code)}."
    ),
    "GroupReviewRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked whether the customer's group is under several owners."
    ),
    "StandInRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked that {_name(n, e.person)} stands in for the owner, who left,"
        f" until {e.details.get('until', 'then')}{_plainly(e.code)}."
    ),
    "StandInEndRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked to end a stand-in{_plainly(e.code)}."
    ),
    "CustomerAdmitted": lambda e, n: f"The customer was admitted to the pool{_pool(e, n)}.",
    "RegistrationRefused": _say_refused_registration,
    "CustomerChanged": lambda e, n: (
        f"The change holds; the customer is{_pool(e, n) or ' in no territory'}."
    ),
    "ChangeRefused": lambda e, n: f"The change was refused: {_because(e.code)}",
    "OwnershipGranted": _say_grant,
    "ClaimRefused": _say_refused_claim,
    "OwnershipAssigned": lambda e, n: (
        f"{_name(n, e.person)} owns the customer, assigned by"
        f" {_name(n, e.details.get('assigned_by'))}."
    ),
    "AssignmentRefused": lambda e, n: (
        f"The assignment to {_name(n, e.person)} was refused: {_because(e.code)}"
    ),
    "OwnershipReleased": lambda e, n: (
        f"{_name(n, e.person)} no longer owns the customer{_plainly(e.code)};"
        f" it is in the pool{_pool(e, n)}."
    ),
    "ReleaseRefused": lambda e, n: f"The release was refused: {_because(e.code)}",
    "TransferRefused": lambda e, n: (
        f"The transfer to {_name(n, e.person)} was refused: {_because(e.code)}"
    ),
    "ApprovalOpened": _say_opened,
    "StepAnswered": _say_answer,
    "AnswerNotCounted": lambda e, n: (
        f"What {_name(n, e.person)} answered does not count: {_because(e.code)}"
    ),
    "StepOpened": lambda e, n: (
        f"Step {e.details.get('step', 0) + 1} is to be answered now{_asked(e, n)}."
    ),
    "StepReminded": lambda e, n: (
        f"Step {e.details.get('step', 0) + 1} has no answer yet and is reminded{_asked(e, n)}."
    ),
    "StepPassedOn": lambda e, n: (
        f"Step {e.details.get('step', 0) + 1} still has no answer and is passed on{_asked(e, n)}."
    ),
    "RecycleWarned": lambda e, n: (
        f"The customer goes back to the pool on {e.details.get('goes', 'time')}"
        f" unless {_name(n, e.person)} works it{_plainly(e.code)}; told: {_listed(e, n)}."
    ),
    "CustomerRecycled": lambda e, n: (
        f"{_name(n, e.person)} no longer owns the customer, which nobody worked"
        f" ({why_recycled(e.code, e.details.get('days'))}); it is in the pool{_pool(e, n)}."
    ),
    "RecycleHeld": lambda e, n: f"Recycling is held until {e.details.get('until', 'then')}.",
    "GroupReviewRefused": lambda e, n: f"The review found no conflict: {_because(e.code)}",
    "RecycleHoldRefused": lambda e, n: f"The hold was refused: {_because(e.code)}",
    "StandInNamed": lambda e, n: (
        f"{_name(n, e.person)} stands in for {_name(n, e.details.get('owner'))}"
        f" until {e.details.get('until', 'then')}."
    ),
    "StandInEnded": lambda e, n: f"{_name(n, e.person)} no longer stands in{_plainly(e.code)}.",
    "StandInRefused": lambda e, n: f"The stand-in was refused: {_because(e.code)}",
    "OwnershipTransferred": lambda e, n: (
        f"{_name(n, e.person)} owns the customer, which was"
        f" {_name(n, e.details.get('former_owner'))}'s"
        f"{', by a hand-over' if 'hand_over' in e.details else ''}."
    ),
    "HandOverLineRefused": lambda e, n: (
        f"The customer was to be handed over, and stays: {_because(e.code)}"
    ),
    "ApprovalClosed": _say_closed,
    "CollaboratorAdded": _say_collaborator,
    "CollaborationRefused": lambda e, n: (
        f"What was asked about a collaboration was refused: {_because(e.code)}"
    ),
    "CollaborationsEnded": _say_collaborations_ended,
    "ConflictOpened": _say_conflict,
    "ConflictEvidenceAdded": _say_evidence,
    "ConflictClosed": _say_conflict_closed,
    "RulingReminded": lambda e, n: (
        f"The conflict has no ruling yet, of which is reminded{_asked(e, n)}."
    ),
    "RulingPassedOn": lambda e, n: (
        f"The conflict still has no ruling and is passed on{_asked(e, n)}."
    ),
    "RulingRefused": lambda e, n: (
        f"The ruling of {_name(n, e.person)} does not hold: {_because(e.code)}"
    ),
    "Noted": _say_noted,
    "CorrectionRefused": lambda e, n: f"The correction was refused: {_because(e.code)}",
    "RequestParked": lambda e, n: (
        f"The request at position {e.details['request']} could not be decided and waits:"
        f" {e.details['error']}"
    ),
}
