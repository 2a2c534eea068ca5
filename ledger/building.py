"""From commands to event data: ids are made, identifiers normalised, personal data sealed. Pure
but for the ids; whoever calls gives the sealing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ledger import commands, four_eyes, ids
from ledger import organisation_commands as facts_in
from ledger.events import organisation, requests
from ledger.events.catalogue import Data
from ledger.events.values import (
    Attribute,
    Contact,
    ForeignId,
    Identifier,
    Money,
    Part,
    Sealed,
    Site,
    Text,
)

Seal = Callable[[str, str, str], Sealed]
"""``seal(subject, field, text)``: the text under the subject's key."""
Digest = Callable[[str, str], str]
"""``digest(system, normalised value)``: the keyed digest of an individual's identifier."""


NoteDigest = Callable[[str, str], str]
"""``note_digest(subject, note)``: what tells the same note apart, by the subject's key."""


@dataclass(slots=True)
class Ids:
    """Makes the ids of one command, each once; they follow from ``seed`` where there is one."""

    seed: str | None = None
    _made: dict[str, str] = field(default_factory=dict)

    def make(self, prefix: str, label: str = "") -> str:
        """Return the id for ``label``: new at the first call, the same at every later one."""
        key = f"{prefix}/{label}"
        if key not in self._made:
            self._made[key] = (
                ids.new_id(prefix)
                if self.seed is None
                else ids.derived_id(prefix, self.seed, label)
            )
        return self._made[key]


@dataclass(frozen=True, slots=True)
class Built:
    """Event data of one command, in order; the customer concerned, and the act that was made.

    Of a hand-over the giver stands for the customer.
    """

    data: tuple[Data, ...]
    customer: str
    made: str | None = None


def build_request(
    command: commands.CustomerCommand,
    made: Ids,
    seal: Seal,
    digest: Digest,
    note_digest: NoteDigest,
    kind_of: Callable[[str], str],
) -> Built:
    """Return the requests that a command stands for.

    ``kind_of(customer)`` says ``organisation`` or ``individual``. Raises CheckDigitError.
    """
    match command:
        case commands.RegisterCustomer():
            return _register(command, made, seal, digest)
        case commands.ChangeCustomer():
            return _change(command, made, seal, digest, kind_of(command.customer))
        case commands.LogFollowUp() | commands.RecordDeal():
            return _act(command, made, seal, note_digest)
        case commands.RequestTransfer():
            transfer = made.make(ids.TRANSFER)
            asked = requests.TransferRequested(
                command.customer,
                transfer,
                command.receiver,
                command.reason_code,
                _sealed(seal, command.customer, "reason", command.reason),
                _money(command.value),
                command.collaborators,
            )
            return Built((asked,), command.customer, transfer)
        case commands.HandOver():
            return _hand_over(command, made, seal)
        case commands.RequestCollaboration():
            return _collaboration(command, made, seal)
        case commands.NameStandIn():
            return _stand_in(command, made, seal)
        case _:
            return Built((_simple(command, seal),), command.customer)


def _sealed(seal: Seal, subject: str, name: str, text: str | None) -> Sealed | None:
    return None if text is None else seal(subject, name, text)


def _simple(command: commands.CustomerCommand, seal: Seal) -> requests.Request:
    """Build the requests whose data mirrors the command, but for sealed free text."""
    customer = command.customer  # type: ignore[union-attr]  # registering is built elsewhere

    def words(name: str) -> Sealed | None:
        return _sealed(seal, customer, name, getattr(command, name))

    match command:
        case commands.FileClaim():
            return requests.ClaimFiled(customer, command.claimant, words("note"))
        case commands.ReleaseCustomer():
            return requests.ReleaseRequested(customer, command.reason_code, words("reason"))
        case commands.AssignCustomer():
            return requests.AssignmentRequested(customer, command.assignee, words("reason"))
        case commands.WithdrawTransfer():
            return requests.TransferWithdrawn(
                customer, command.approval, command.reason_code, words("reason")
            )
        case commands.Approve():
            return requests.ApprovalGiven(customer, command.approval, words("comment"))
        case commands.Refuse():
            return requests.ApprovalDenied(
                customer, command.approval, command.reason_code, words("comment")
            )
        case commands.EndCollaboration():
            return requests.CollaborationEndRequested(
                customer, command.collaboration, command.reason_code, words("reason")
            )
        case commands.Rule():
            return requests.RulingGiven(
                customer,
                command.conflict,
                command.ruling,
                command.reason_code,
                words("reason"),
                command.receiver,
                tuple(Part(each.person, _percent(each.share)) for each in command.parts),
            )
        case commands.CorrectFollowUp():
            return requests.FollowUpCorrected(
                customer,
                command.follow_up,
                command.reason_code,
                words("reason"),
                command.channel,
                words("note"),
                words("agreed"),
                command.next_on,
                command.at,
            )
        case commands.VoidFollowUp():
            return requests.FollowUpVoided(
                customer, command.follow_up, command.reason_code, words("reason")
            )
        case commands.CorrectDeal():
            return requests.DealCorrected(
                customer,
                command.deal,
                command.reason_code,
                words("reason"),
                command.outcome,
                _money(command.value),
                command.product,
            )
        case commands.VoidDeal():
            return requests.DealVoided(customer, command.deal, command.reason_code, words("reason"))
        case commands.HoldRecycling():
            return requests.RecycleHoldRequested(
                customer, command.until, command.reason_code, words("reason")
            )
        case commands.ReviewGroup():
            return requests.GroupReviewRequested(customer)
        case commands.EndStandIn():
            return requests.StandInEndRequested(
                customer, command.stand_in, command.reason_code, words("reason")
            )
        case commands.ReachDeadline():
            return requests.DeadlineReached(customer, command.kind, command.subject, command.due)
        case commands.UnparkRequest():
            return requests.RequestUnparked(customer, command.request, command.decider)
        case _:
            raise AssertionError(f"{type(command).__name__} is built elsewhere")


def _collaboration(command: commands.RequestCollaboration, made: Ids, seal: Seal) -> Built:
    collaboration = made.make(ids.COLLABORATION)
    asked = requests.CollaborationRequested(
        command.customer,
        collaboration,
        command.person,
        command.role,
        command.reason_code,
        _sealed(seal, command.customer, "reason", command.reason),
        _percent(command.share),
        command.from_day,
        command.until_day,
        command.site,
    )
    return Built((asked,), command.customer, collaboration)


def _hand_over(command: commands.HandOver, made: Ids, seal: Seal) -> Built:
    hand_over = made.make(ids.HAND_OVER)
    ordered = requests.HandOverRequested(
        command.giver,
        hand_over,
        command.receivers,
        command.plan,
        command.reason_code,
        _sealed(seal, command.giver, "reason", command.reason),
        command.customers,
        command.territories,
        command.conditions,
        command.collaborators,
        command.collaborations,
    )
    return Built((ordered,), command.giver, hand_over)


def _stand_in(command: commands.NameStandIn, made: Ids, seal: Seal) -> Built:
    stand_in = made.make(ids.STAND_IN)
    asked = requests.StandInRequested(
        command.customer,
        stand_in,
        command.person,
        command.until,
        command.reason_code,
        _sealed(seal, command.customer, "reason", command.reason),
    )
    return Built((asked,), command.customer, stand_in)


def _percent(share: Decimal | None) -> Decimal | None:
    return None if share is None else Decimal(f"{share:f}")


def _money(value: commands.MoneyIn | None) -> Money | None:
    # Written out: a decimal as in 1E+3 is the same number, and no amount of money.
    return None if value is None else Money(Decimal(f"{value.amount:f}"), value.currency)


def _foreign(numbers: commands.Numbers) -> tuple[ForeignId, ...]:
    return tuple(ForeignId(each.system, each.value) for each in numbers)


def _act(
    command: commands.LogFollowUp | commands.RecordDeal,
    made: Ids,
    seal: Seal,
    note_digest: NoteDigest,
) -> Built:
    if isinstance(command, commands.RecordDeal):
        deal = made.make(ids.DEAL)
        recorded = requests.DealRecorded(
            command.customer,
            deal,
            command.person,
            command.outcome,
            _money(command.value),
            command.product,
            _foreign(command.foreign_ids),
        )
        return Built((recorded,), command.customer, deal)
    follow_up = made.make(ids.FOLLOW_UP)
    # Free text is sealed for the contact that it is about, else for the customer.
    subject = command.contact or command.customer
    logged = requests.FollowUpLogged(
        command.customer,
        follow_up,
        command.person,
        command.channel,
        _sealed(seal, subject, "note", command.note),
        _sealed(seal, subject, "agreed", command.agreed),
        command.next_on,
        command.contact,
        command.site,
        _foreign(command.foreign_ids),
        None if command.note is None else note_digest(subject, command.note),
    )
    return Built((logged,), command.customer, follow_up)


def _name(seal: Seal, customer: str, kind: str, field_name: str, name: str) -> Text:
    return seal(customer, field_name, name) if kind == "individual" else name


def _identifiers(
    command: commands.RegisterCustomer | commands.ChangeCustomer,
    customer: str,
    kind: str,
    seal: Seal,
    digest: Digest,
) -> tuple[Identifier, ...]:
    found: dict[str, Identifier] = {}
    for each in command.identifiers:
        value = commands.normalised_number(each.system, each.value, command.overrides)
        if each.system in found:
            raise commands.InvalidRequestError("identifiers", f"{each.system} is given twice")
        if kind == "individual":
            sealed = seal(customer, f"identifiers.{each.system}", value)
            found[each.system] = Identifier(each.system, digest(each.system, value), sealed)
        else:
            found[each.system] = Identifier(each.system, value)
    return tuple(found.values())


def _contacts(given: commands.Contacts, made: Ids, seal: Seal) -> tuple[Contact, ...]:
    contacts = []
    for number, each in enumerate(given):
        contact = each.contact or made.make(ids.CONTACT, str(number))
        where = f"contacts.{contact}"
        contacts.append(
            Contact(
                contact,
                _sealed(seal, contact, f"{where}.name", each.name),
                _sealed(seal, contact, f"{where}.phone", each.phone),
                _sealed(seal, contact, f"{where}.email", each.email),
                each.role,
            )
        )
    return tuple(contacts)


def _sites(
    given: commands.Sites, customer: str, kind: str, made: Ids, seal: Seal
) -> tuple[Site, ...]:
    sites = []
    for number, each in enumerate(given):
        site = each.site or made.make(ids.SITE, str(number))
        sites.append(
            Site(
                site,
                _name(seal, customer, kind, f"sites.{site}.name", each.name),
                _sealed(seal, customer, f"sites.{site}.address", each.address),
            )
        )
    return tuple(sites)


def attribute(value: commands.AttributeIn) -> Attribute:
    """Return a typed attribute as events hold it."""
    match value:
        case commands.DecimalIn():
            return {"decimal": f"{value.decimal:f}"}
        case commands.DateIn():
            return {"date": value.date.isoformat()}
        case commands.SetIn():
            return {"set": sorted(set(value.set))}
        case commands.MoneyAttributeIn():
            return {
                "money": {"amount": f"{value.money.amount:f}", "currency": value.money.currency}
            }
        case _:
            return value


def _attributes(given: commands.Attributes) -> dict[str, Attribute]:
    return {name: attribute(value) for name, value in given.items()}


def _register(command: commands.RegisterCustomer, made: Ids, seal: Seal, digest: Digest) -> Built:
    customer = made.make(ids.CUSTOMER)
    registration = requests.RegistrationRequested(
        customer,
        command.kind,
        _name(seal, customer, command.kind, "name", command.name),
        _identifiers(command, customer, command.kind, seal, digest),
        _foreign(command.foreign_ids),
        command.parent,
        command.territory,
        _attributes(command.attributes),
        _contacts(command.contacts, made, seal),
        _sites(command.sites, customer, command.kind, made, seal),
        command.opening,
        command.overrides,
    )
    if command.claim_for is None:
        return Built((registration,), customer)
    # In the same append: whoever enters a customer is the first to have claimed it.
    return Built((registration, requests.ClaimFiled(customer, command.claim_for)), customer)


def _change(
    command: commands.ChangeCustomer, made: Ids, seal: Seal, digest: Digest, kind: str
) -> Built:
    customer = command.customer
    name = command.name
    change = requests.CustomerChangeRequested(
        customer,
        None if name is None else _name(seal, customer, kind, "name", name),
        _identifiers(command, customer, kind, seal, digest),
        _foreign(command.foreign_ids),
        command.parent,
        command.territory,
        _attributes(command.attributes),
        _contacts(command.contacts, made, seal),
        _sites(command.sites, customer, kind, made, seal),
        command.removed,
        command.closed,
        command.overrides,
    )
    return Built((change,), customer)


# --- facts of the organisation -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FactContext:
    """What a fact needs of the organisation as it is."""

    policy_number: int
    import_rules: dict[str, Any]
    # By proposal, who made it.
    proposers: Mapping[str, str] = field(default_factory=dict)


def build_fact(
    command: facts_in.FactCommand, made: Ids, seal: Seal, context: FactContext
) -> tuple[organisation.OrganisationFact, str | None]:
    """Return the fact that a command stands for, and the id that it made or is about."""
    match command:
        case facts_in.FoundOrganisation():
            return organisation.OrganisationFounded(command.name, command.time_zone), None
        case facts_in.DefineTerritory():
            territory = command.territory or made.make(ids.TERRITORY)
            return (
                organisation.TerritoryDefined(
                    territory,
                    command.name,
                    command.parent,
                    command.head,
                    command.managers,
                    _foreign(command.foreign_ids),
                ),
                territory,
            )
        case facts_in.AddPerson():
            return _person(command, made, seal)
        case facts_in.AdoptPolicy():
            number = context.policy_number + 1
            rules = command.policy.as_rules()
            return organisation.PolicyAdopted(number, rules, command.comment), str(number)
        case facts_in.AdoptDecider():
            return organisation.DeciderAdopted(command.version), None
        case facts_in.OpenImport():
            import_id = command.import_id or made.make(ids.IMPORT)
            policy = command.policy
            rules = context.import_rules if policy is None else policy.as_rules()
            return (
                organisation.ImportOpened(
                    import_id, command.name, command.time_zone, rules, command.cut_over
                ),
                import_id,
            )
        case facts_in.CloseImport():
            return organisation.ImportClosed(command.import_id), command.import_id
        case facts_in.RequireFourEyes():
            return organisation.FourEyesRequired(command.required), None
        case facts_in.ProposeFact():
            proposal = made.make(ids.PROPOSAL)
            kind, fact = four_eyes.as_json(command.fact)
            return organisation.FactProposed(proposal, kind, fact), proposal
        case facts_in.AdoptProposal():
            proposer = context.proposers.get(command.proposal, "")
            adopted = organisation.ProposalAdopted(command.proposal, proposer)
            return adopted, command.proposal
        case facts_in.WithdrawProposal():
            return organisation.ProposalWithdrawn(command.proposal), command.proposal
        case facts_in.StateCalendar():
            stated = organisation.CalendarStated(
                command.year,
                tuple(sorted(command.holidays)),
                tuple(sorted(command.workdays)),
                command.source,
            )
            return stated, str(command.year)
        case _:
            return _about_person(command, seal), command.person


def _person(
    command: facts_in.AddPerson, made: Ids, seal: Seal
) -> tuple[organisation.PersonJoined, str]:
    person = command.person or made.make(ids.PERSON)
    joined = organisation.PersonJoined(
        person,
        seal(person, "name", command.name),
        command.territory,
        command.roles,
        command.joined_on,
        _foreign(command.foreign_ids),
        _sealed(seal, person, "phone", command.phone),
        _sealed(seal, person, "email", command.email),
    )
    return joined, person


def _about_person(
    command: facts_in.ChangePerson
    | facts_in.MarkLeft
    | facts_in.MarkReturned
    | facts_in.MarkAway
    | facts_in.NameDelegate
    | facts_in.EndAbsence
    | facts_in.EndDelegation,
    seal: Seal,
) -> organisation.OrganisationFact:
    person = command.person
    match command:
        case facts_in.ChangePerson():
            return organisation.PersonChanged(
                person,
                command.territory,
                command.roles,
                _sealed(seal, person, "name", command.name),
            )
        case facts_in.MarkLeft():
            return organisation.PersonLeft(person, command.left_on)
        case facts_in.MarkReturned():
            return organisation.PersonReturned(person, command.returned_on)
        case facts_in.NameDelegate():
            return organisation.DelegateNamed(
                person, command.delegate, command.from_day, command.until_day
            )
        case facts_in.EndAbsence():
            return organisation.AbsenceEnded(person, command.back_on)
        case facts_in.EndDelegation():
            return organisation.DelegationEnded(person, command.ended_on)
        case facts_in.MarkAway():
            return organisation.PersonAway(person, command.from_day, command.until_day)
