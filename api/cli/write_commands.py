"""Commands that ask for something: each records a request and waits for its decision."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.approval_words import approval_words
from api.cli.collaboration_words import collaboration_words
from api.cli.conflict_words import conflict_words
from api.cli.context import (
    As,
    Json,
    RequestId,
    console,
    day,
    moment,
    notes,
    numbers,
    opened,
    origin,
    print_json,
)
from api.cli.following import follow
from api.cli.hand_over_words import hand_over_words
from api.cli.orphan_words import orphan_words
from api.outcomes import is_refusal
from consumers.checking import would_decide
from ledger import commands, reasons
from ledger.commands import CustomerCommand, InvalidRequestError, parse
from ledger.envelope import Event, decode
from ledger.events import decisions
from ledger.recording import Asked, Recorded
from ledger.store.reading import read_decisions

Customer = Annotated[str, typer.Argument(help="Id, identifier, foreign id or name.")]
Check = Annotated[
    bool,
    typer.Option("--check", help="Say what would be decided now, and record nothing."),
]
On = Annotated[
    str | None,
    typer.Option("--on", help="When it happened, where that was not now (2026-03-01T09:30)."),
]


def ask(
    ledger: Ledger,
    command: CustomerCommand,
    actor: str,
    request_id: str | None,
    on: str | None = None,
) -> tuple[Recorded, list[Event]]:
    """Record a request, wait for its decisions, and return both."""
    zone = ledger.recording.organisation().time_zone
    occurred = moment(on, zone, "on")
    recorded = ledger.recording.record(Asked(command, origin(actor, request_id, occurred)))
    follow(ledger, recorded.positions[-1])
    with ledger.pool.connection() as connection:
        stored = read_decisions(connection, list(recorded.positions))
    return recorded, [decode(ledger.catalogue, each) for each in stored]


def submit(
    ledger: Ledger,
    kind: type[commands.Command],
    fields: dict[str, Any],
    as_: str | None,
    request_id: str | None,
    *,
    json: bool,
) -> None:
    """Record what ``fields`` ask for, those that are None left out, and print what came of it.

    A refusal ends the command with exit status 3.
    """
    command, actor = parsed(ledger, kind, fields, as_)
    answer(ledger, *ask(ledger, command, actor, request_id), json=json)


def parsed(
    ledger: Ledger, kind: type[commands.Command], fields: dict[str, Any], as_: str | None
) -> tuple[Any, str]:
    """Return the command that the fields make, those that are None left out, and who acts."""
    given = {name: value for name, value in fields.items() if value is not None}
    return parse(kind, given), resolve.actor(ledger, as_)


def answer(ledger: Ledger, recorded: Recorded, decided: list[Event], *, json: bool) -> None:
    """Print what was recorded and decided; a refusal ends the command with exit status 3."""
    if json:
        print_json(told(ledger, recorded, decided))
    else:
        names = resolve.Names(ledger)
        for event in decided:
            console().print(words(event.data, names), markup=False)
        where = ", ".join(str(position) for position in recorded.positions)
        again = " (recorded before; this is the first answer)" if recorded.repeated else ""
        made = f" as {recorded.made}" if recorded.made else ""
        console().print(
            f"recorded at {where}{made}; customer {recorded.customer}{again}", markup=False
        )
    if any(is_refusal(event.data) for event in decided):
        raise typer.Exit(3)


def told(ledger: Ledger, recorded: Recorded, decided: Sequence[Event]) -> dict[str, Any]:
    """Return what was recorded and decided, for JSON."""
    return {
        "request_id": recorded.request_id,
        "positions": recorded.positions,
        "customer": recorded.customer,
        "made": recorded.made,
        "repeated": recorded.repeated,
        "decisions": [
            {
                "position": event.position,
                "name": event.name,
                "effective": event.effective,
                **ledger.catalogue.dump(event.data),
            }
            for event in decided
        ],
    }


def check(ledger: Ledger, command: CustomerCommand, actor: str, *, json: bool) -> None:
    """Print what would be decided now on a command, and record nothing.

    A refusal ends the command with exit status 3, as it would if it were recorded.
    """
    asked = Asked(command, origin(actor))
    with ledger.pool.connection() as connection:
        checked = would_decide(connection, ledger.catalogue, ledger.recording, asked)
    draft = checked.draft
    if json:
        print_json(
            {
                "recorded": False,
                "customer": draft.data.customer,
                "head": checked.head,
                "is_behind": checked.is_behind,
                "decisions": [
                    {
                        "name": ledger.catalogue.name_of(data),
                        "effective": draft.effective,
                        **ledger.catalogue.dump(data),
                    }
                    for data in draft.all
                ],
            }
        )
    else:
        names = resolve.Names(ledger)
        console().print("nothing was recorded; now it would bring", markup=False)
        for data in draft.all:
            console().print(f"  {words(data, names)}", markup=False)
        if checked.is_behind:
            notes().print("Recorded requests still wait for their decision: it may change this.")
    if any(is_refusal(data) for data in draft.all):
        raise typer.Exit(3)


def words(data: decisions.Decision, names: resolve.Names) -> str:
    """Return one sentence that says what was decided."""
    customer = names.customer(data.customer)
    match data:
        case decisions.OwnershipGranted():
            until = names.moment(data.protected_until)
            protected = f", protected until {until}" if until else ""
            return f"granted: {customer} belongs to {names.person(data.owner)}{protected}"
        case decisions.OwnershipAssigned():
            return f"assigned: {customer} belongs to {names.person(data.owner)}"
        case decisions.OwnershipReleased():
            return f"released: {customer} is free again"
        case decisions.CustomerAdmitted():
            territory = names.territory(data.territory) if data.territory else "no territory"
            return f"admitted: {customer}, {territory}"
        case decisions.CustomerChanged():
            return f"changed: {customer}"
        case decisions.Noted():
            remark = f" ({reasons.SENTENCES[data.remark]})" if data.remark else ""
            return f"noted at {customer}{remark}"
        case _:
            told = approval_words(data, names) or collaboration_words(data, names)
            told = told or conflict_words(data, names) or orphan_words(data, names)
            told = told or hand_over_words(data, names)
            return told or _refusal(data, customer, names)


def _refusal(data: Any, customer: str, names: resolve.Names) -> str:
    sentence = f"refused: {data.reason}. {reasons.SENTENCES[data.reason]}"
    owner = getattr(data, "owner", None)
    if owner is not None:
        sentence += f" {customer} belongs to {names.person(owner)}."
    existing = getattr(data, "existing", None)
    if existing is not None:
        sentence += f" It is {names.customer(existing)}."
    retry_at = getattr(data, "retry_at", None)
    if retry_at is not None:
        sentence += f" Possible again from {names.moment(retry_at)} on."
    return sentence


def _attributes(given: list[str]) -> dict[str, Any]:
    """Return NAME=VALUE and NAME:TYPE=VALUE options as typed attributes."""
    found: dict[str, Any] = {}
    for each in given:
        name, separator, value = each.partition("=")
        name, _, kind = name.partition(":")
        if not separator:
            raise InvalidRequestError("attribute", f"{each!r} is not NAME=VALUE")
        match kind:
            case "" | "text":
                found[name] = value
            case "integer":
                found[name] = _integer(name, value)
            case "decimal":
                found[name] = {"decimal": value}
            case "date":
                found[name] = {"date": value}
            case "set":
                found[name] = {"set": [word.strip() for word in value.split(",")]}
            case "money":
                found[name] = {"money": money(value)}
            case _:
                raise InvalidRequestError(
                    "attribute", f"{kind!r} is none of text, integer, decimal, date, set, money"
                )
    return found


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidRequestError(name, f"{text!r} is no whole number") from None


def money(text: str) -> dict[str, Any]:
    """Return money from what somebody typed, ``1054.00 CNY``; raises InvalidRequestError."""
    amount, _, currency = text.strip().partition(" ")
    try:
        return {"amount": Decimal(amount), "currency": currency.strip() or "CNY"}
    except InvalidOperation:
        raise InvalidRequestError("value", f"{text!r} is no sum such as '1054.00 CNY'") from None


Identifiers = Annotated[
    list[str], typer.Option("--identifier", help="SYSTEM=VALUE, such as uscc=91…")
]
ForeignIds = Annotated[
    list[str], typer.Option("--foreign-id", help="SYSTEM=VALUE: what another system calls it.")
]
AttributeOptions = Annotated[
    list[str],
    typer.Option(
        "--attribute", help="NAME=VALUE, or NAME:TYPE=VALUE (integer, decimal, date, set, money)."
    ),
]
Territory = Annotated[str | None, typer.Option(help="A territory named explicitly.")]
Parent = Annotated[str | None, typer.Option(help="The customer that stands above in the group.")]
Override = Annotated[
    bool, typer.Option("--override-check-digit", help="Take a credit code that looks wrong.")
]


def register(
    name: Annotated[str, typer.Argument(help="The customer's name.")],
    as_: As = None,
    claim: Annotated[bool, typer.Option("--claim", help="Claim it in the same breath.")] = False,
    individual: Annotated[bool, typer.Option("--individual", help="个体工商户: a person.")] = False,
    identifier: Identifiers = [],  # noqa: B006 - typer copies it
    foreign_id: ForeignIds = [],  # noqa: B006 - typer copies it
    attribute: AttributeOptions = [],  # noqa: B006 - typer copies it
    territory: Territory = None,
    parent: Parent = None,
    contact: Annotated[str | None, typer.Option(help="Name of somebody to talk to.")] = None,
    phone: Annotated[str | None, typer.Option(help="The contact's phone number.")] = None,
    override_check_digit: Override = False,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Enter a customer; where the identifier is taken, --claim is decided on the existing one."""
    with opened() as ledger:
        actor = resolve.actor(ledger, as_)
        fields: dict[str, Any] = {
            "name": name,
            "kind": "individual" if individual else "organisation",
            "identifiers": numbers(identifier, "identifier"),
            "foreign_ids": numbers(foreign_id, "foreign-id"),
            "attributes": _attributes(attribute),
            "territory": resolve.territory(ledger, territory) if territory else None,
            "parent": resolve.customer(ledger, parent) if parent else None,
            "contacts": [{"name": contact, "phone": phone}] if contact or phone else [],
            "claim_for": actor if claim else None,
            "overrides": ["check_digit"] if override_check_digit else [],
        }
        command = parse(commands.RegisterCustomer, fields)
        answer(ledger, *ask(ledger, command, actor, request_id), json=json)


def change(
    customer: Customer,
    as_: As = None,
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    identifier: Identifiers = [],  # noqa: B006 - typer copies it
    foreign_id: ForeignIds = [],  # noqa: B006 - typer copies it
    attribute: AttributeOptions = [],  # noqa: B006 - typer copies it
    territory: Territory = None,
    parent: Parent = None,
    contact: Annotated[str | None, typer.Option(help="Name of one more contact.")] = None,
    phone: Annotated[str | None, typer.Option(help="The contact's phone number.")] = None,
    remove: Annotated[
        list[str],
        typer.Option(help="parent, territory, attribute:NAME, contact:ID, identifier:SYSTEM …"),
    ] = [],  # noqa: B006 - typer copies it
    close: Annotated[
        bool | None, typer.Option("--close/--reopen", help="Close it, or not.")
    ] = None,
    override_check_digit: Override = False,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Change a customer: what is given changes, what --remove names goes, the rest stays."""
    with opened() as ledger:
        given: dict[str, Any] = {
            "name": name,
            "identifiers": numbers(identifier, "identifier"),
            "foreign_ids": numbers(foreign_id, "foreign-id"),
            "attributes": _attributes(attribute),
            "territory": resolve.territory(ledger, territory) if territory else None,
            "parent": resolve.customer(ledger, parent) if parent else None,
            "contacts": [{"name": contact, "phone": phone}] if contact or phone else [],
            "removed": remove,
            "closed": close,
            "overrides": ["check_digit"] if override_check_digit else [],
        }
        fields = {key: value for key, value in given.items() if value not in (None, [], {})}
        fields["customer"] = resolve.customer(ledger, customer)
        command = parse(commands.ChangeCustomer, fields)
        actor = resolve.actor(ledger, as_)
        answer(ledger, *ask(ledger, command, actor, request_id), json=json)


def claim(
    customer: Customer,
    as_: As = None,
    note: Annotated[str | None, typer.Option(help="Why; sealed.")] = None,
    checking: Check = False,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Claim a customer (领取); with --check, only say what would come of it.

    From outside your territory it is refused, or awaits the heads, as the policy says.
    """
    with opened() as ledger:
        actor = resolve.actor(ledger, as_)
        fields = {
            "customer": resolve.customer(ledger, customer),
            "claimant": actor,
            "note": note,
        }
        command = parse(commands.FileClaim, fields)
        if checking:
            check(ledger, command, actor, json=json)
            return
        answer(ledger, *ask(ledger, command, actor, request_id), json=json)


def release(
    customer: Customer,
    as_: As = None,
    reason_code: Annotated[str, typer.Option(help="A word for programs.")] = "released",
    reason: Annotated[str | None, typer.Option(help="Why, in your words; sealed.")] = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Give a customer back to the pool (释放)."""
    with opened() as ledger:
        fields = {
            "customer": resolve.customer(ledger, customer),
            "reason_code": reason_code,
            "reason": reason,
        }
        command = parse(commands.ReleaseCustomer, fields)
        actor = resolve.actor(ledger, as_)
        answer(ledger, *ask(ledger, command, actor, request_id), json=json)


def assign(
    customer: Customer,
    assignee: Annotated[str, typer.Argument(help="Who gets it: an id or a name.")],
    as_: As = None,
    reason: Annotated[str | None, typer.Option(help="Why, in your words; sealed.")] = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Assign a free customer to somebody, as a manager (分配)."""
    with opened() as ledger:
        fields = {
            "customer": resolve.customer(ledger, customer),
            "assignee": resolve.person(ledger, assignee),
            "reason": reason,
        }
        command = parse(commands.AssignCustomer, fields)
        actor = resolve.actor(ledger, as_)
        answer(ledger, *ask(ledger, command, actor, request_id), json=json)


def follow_up(
    customer: Customer,
    note: Annotated[str | None, typer.Argument(help="What was said; sealed.")] = None,
    as_: As = None,
    channel: Annotated[
        str | None, typer.Option(help="call (where nothing is said), visit, wechat, email …")
    ] = None,
    agreed: Annotated[str | None, typer.Option(help="What was agreed; sealed.")] = None,
    next_on: Annotated[str | None, typer.Option(help="The day of the next one.")] = None,
    on: On = None,
    correct: Annotated[str | None, typer.Option(help="The id of one to correct.")] = None,
    void: Annotated[
        str | None, typer.Option(help="The id of one that is to count no more.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why it is corrected or voided.")] = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Log a follow-up (跟进); correct or void an earlier one."""
    with opened() as ledger:
        actor = resolve.actor(ledger, as_)
        fields: dict[str, Any] = {"customer": resolve.customer(ledger, customer)}
        kind: type[commands.Command]
        if void is not None:
            kind = commands.VoidFollowUp
            fields |= {"follow_up": void, "reason": reason}
        elif correct is not None:
            kind = commands.CorrectFollowUp
            zone = ledger.recording.organisation().time_zone
            fields |= {"follow_up": correct, "reason": reason, "note": note, "agreed": agreed}
            fields |= {"channel": channel}
            fields |= {"at": moment(on, zone, "on"), "next_on": day(next_on, "next-on")}
        else:
            kind = commands.LogFollowUp
            fields |= {"person": actor, "note": note, "agreed": agreed}
            fields |= {"channel": channel or "call"}
            fields |= {"next_on": day(next_on, "next-on")}
        command: Any = parse(kind, fields)
        happened = on if kind is commands.LogFollowUp else None
        answer(ledger, *ask(ledger, command, actor, request_id, happened), json=json)


def deal(
    customer: Customer,
    outcome: Annotated[str | None, typer.Argument(help="won or lost")] = None,
    as_: As = None,
    value: Annotated[str | None, typer.Option(help="Such as '1054.00 CNY'.")] = None,
    product: Annotated[str | None, typer.Option(help="What was sold, or was not.")] = None,
    on: On = None,
    correct: Annotated[str | None, typer.Option(help="The id of one to correct.")] = None,
    void: Annotated[
        str | None, typer.Option(help="The id of one that is to count no more.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why it is corrected or voided.")] = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Record a deal won or lost (成交); correct or void an earlier one."""
    with opened() as ledger:
        actor = resolve.actor(ledger, as_)
        fields: dict[str, Any] = {"customer": resolve.customer(ledger, customer)}
        kind: type[commands.Command]
        if void is not None:
            kind = commands.VoidDeal
            fields |= {"deal": void, "reason": reason}
        else:
            fields |= {"value": money(value) if value else None, "product": product}
            if correct is not None:
                kind = commands.CorrectDeal
                fields |= {"deal": correct, "reason": reason, "outcome": outcome}
            else:
                kind = commands.RecordDeal
                fields |= {"person": actor, "outcome": outcome}
        command: Any = parse(kind, fields)
        happened = on if kind is commands.RecordDeal else None
        answer(ledger, *ask(ledger, command, actor, request_id, happened), json=json)
