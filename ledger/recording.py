"""The one way in: commands are checked, given ids, sealed, and recorded as requests or facts.

A request is recorded at whatever version of its customer's stream comes next, and decided later
by the enforcer. A fact of the organisation is validated against the organisation's state, recorded
at an expected version, and final at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from psycopg import Connection

from ledger import building, commands, ids
from ledger import organisation_commands as facts_in
from ledger.canonical import canonical_bytes, instant
from ledger.deciders import decider
from ledger.envelope import Origin, decode, request_body
from ledger.errors import LedgerError, RequestReusedError, VersionConflictError
from ledger.events import requests
from ledger.events.catalogue import Catalogue, Data
from ledger.events.values import Sealed
from ledger.organisation import Organisation, OrganisationAt
from ledger.policy import without_limits
from ledger.sealing import Vault
from ledger.store.appending import Append, Appended, NewEvent, RequestKey
from ledger.store.arrays import text_array
from ledger.store.reading import read_at, read_stream

ORGANISATION = "organisation"
_FACT_TRIES_MAX = 20

_KINDS = """
SELECT s.stream, e.name, e.body
FROM unnest(%b::text[]) AS s(stream)
CROSS JOIN LATERAL (SELECT name, body FROM ledger.events e WHERE e.stream = s.stream
                    ORDER BY version LIMIT 1) e
"""


_FIRST_ANSWER = """
SELECT first_position, events, digest FROM ledger.request_ids
WHERE caller = %s AND request_id = %s
"""


class UnknownIdError(LedgerError):
    """A request names a customer, person, territory or import that does not exist."""

    code = "unknown_id"

    def __init__(self, what: str, unknown: str) -> None:
        super().__init__(
            f"There is no {what} {unknown}.", way_out=f"Look the {what} up and use its id."
        )
        self.what = what
        self.unknown = unknown


class NotPermittedError(LedgerError):
    """The actor lacks the role that a fact of the organisation needs."""

    code = "not_permitted"


class Appender(Protocol):
    """What records appends: ledger.store.committer.CommitterThread, or a fake in tests."""

    def append_many(self, appends: Sequence[Append]) -> list[Appended | LedgerError]:
        """Record several appends, each with its own result, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A command and where it comes from. ``seed`` makes the ids of what it makes follow from it."""

    command: commands.CustomerCommand
    origin: Origin
    seed: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where a request stands in the log.

    ``customer`` is its customer, ``made`` the id of the follow-up or deal that it made;
    ``repeated`` says that it was recorded before and this is the first answer.
    """

    request_id: str
    positions: tuple[int, ...]
    customer: str
    made: str | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class RecordedFact:
    """Where a fact stands in the log, and the id that it made or is about."""

    position: int
    about: str | None


@dataclass(slots=True)
class _Sealing:
    """Seals the texts of one event; in a first pass it only learns whose keys are needed."""

    vault: Vault
    origin: Origin
    index: int = 0
    keys: dict[str, Any] | None = None
    subjects: dict[str, None] = field(default_factory=dict)

    def seal(self, subject: str, name: str, text: str) -> Sealed:
        if self.keys is None:
            self.subjects[subject] = None
            return Sealed("", "")
        key = self.keys[subject]
        origin = self.origin
        return self.vault.seal(key, text, origin.caller, origin.request_id, self.index, name)


class Recording:
    """Records commands; one for a process, used by one thread at a time."""

    def __init__(
        self,
        appender: Appender,
        connect: Callable[[], AbstractContextManager[Connection[Any]]],
        vault: Vault,
        catalogue: Catalogue,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._appender = appender
        self._connect = connect
        self._vault = vault
        self._catalogue = catalogue
        self._now = now
        self._organisation = Organisation()

    def organisation(self) -> OrganisationAt:
        """Return the organisation as the log has it now."""
        with self._connect() as connection:
            stored = read_stream(connection, ORGANISATION, self._organisation.version)
        self._organisation.apply_all(decode(self._catalogue, each) for each in stored)
        return self._organisation.latest

    # --- requests ------------------------------------------------------------------------------

    def record(self, asked: Asked) -> Recorded:
        """Record one request.

        Raises InvalidRequestError, CheckDigitError, UnknownIdError, and what the committer raises.
        """
        (result,) = self.record_many([asked])
        if isinstance(result, LedgerError):
            raise result
        return result

    def record_many(self, asked: Sequence[Asked]) -> list[Recorded | LedgerError]:
        """Record several requests, each with its own result, in their order.

        One may name a customer that another of the same call registers, or registered before it.
        """
        organisation = self.organisation()
        kinds = self._kinds(asked)
        built: list[building.Built | LedgerError] = []
        made = [building.Ids(each.seed) for each in asked]
        subjects: dict[str, None] = {}
        for each, its_ids in zip(asked, made, strict=True):
            learning = _Sealing(self._vault, each.origin, subjects=subjects)
            try:
                self._check(each, organisation, kinds)
                found = self._build(each, its_ids, learning, kinds)
                if isinstance(each.command, commands.RegisterCustomer):
                    kinds[found.customer] = each.command.kind
                built.append(found)
            except LedgerError as error:
                built.append(error)
        keys = self._vault.keys_for(list(subjects)) if subjects else {}
        appends: list[Append] = []
        for number, each in enumerate(asked):
            if not isinstance(built[number], LedgerError):
                sealing = _Sealing(self._vault, each.origin, keys=keys)
                done = (
                    self._build(each, made[number], sealing, kinds) if subjects else built[number]
                )
                built[number] = done
                appends.append(self._append_of(each, done))  # type: ignore[arg-type]  # no error
        return self._answer(asked, built, self._appender.append_many(appends))

    def _build(
        self, asked: Asked, made: building.Ids, sealing: _Sealing, kinds: dict[str, str]
    ) -> building.Built:
        return building.build_request(
            asked.command, made, sealing.seal, self._vault.identifier_digest, kinds.__getitem__
        )

    def _append_of(self, asked: Asked, built: building.Built) -> Append:
        stream = f"customer-{built.customer}"
        events = tuple(
            self._new_event(stream, asked.origin, index, data)
            for index, data in enumerate(built.data)
        )
        origin = asked.origin
        return Append(events, RequestKey(origin.caller, origin.request_id, self.digest(asked)))

    def _new_event(self, stream: str, origin: Origin, index: int, data: Data) -> NewEvent:
        body = request_body(self._catalogue, origin, index, data)
        return NewEvent(stream, self._catalogue.name_of(data), body)

    def digest(self, asked: Asked) -> bytes:
        """Return the keyed digest of the request as the caller sent it."""
        origin = asked.origin
        sent: dict[str, object] = {
            "command": type(asked.command).__name__,
            "fields": asked.command.model_dump(mode="json", exclude_unset=True),
            "actor": origin.actor,
        }
        if origin.occurred is not None:
            sent["occurred"] = instant(origin.occurred)
        return self._vault.request_digest(canonical_bytes(sent))

    def _answer(
        self,
        asked: Sequence[Asked],
        built: Sequence[building.Built | LedgerError],
        answers: Sequence[Appended | LedgerError],
    ) -> list[Recorded | LedgerError]:
        results: list[Recorded | LedgerError] = []
        left = iter(answers)
        for each, what in zip(asked, built, strict=True):
            answer = what if isinstance(what, LedgerError) else next(left)
            if isinstance(answer, LedgerError) or isinstance(what, LedgerError):
                results.append(answer)  # type: ignore[arg-type]  # an error in either case
                continue
            customer, made = what.customer, what.made
            if answer.repeated and each.seed is None:
                customer, made = self._first_answer(answer)
            results.append(
                Recorded(
                    each.origin.request_id,
                    tuple(answer.positions),
                    customer,
                    made,
                    answer.repeated,
                )
            )
        return results

    def _first_answer(self, answer: Appended) -> tuple[str, str | None]:
        """Return the ids that the request made when it was recorded for the first time."""
        with self._connect() as connection:
            stored = read_at(connection, [answer.first_position])
        data = decode(self._catalogue, stored[0]).data
        match data:
            case requests.FollowUpLogged():
                return data.customer, data.follow_up
            case requests.DealRecorded():
                return data.customer, data.deal
            case _:
                return data.customer, None

    def _kinds(self, asked: Iterable[Asked]) -> dict[str, str]:
        """Return ``organisation`` or ``individual`` of every customer named that exists."""
        named: dict[str, None] = {}
        for each in asked:
            command = each.command
            for name in ("customer", "parent"):
                customer = getattr(command, name, None)
                if customer is not None:
                    named[customer] = None
        if not named:
            return {}
        streams = text_array([f"customer-{customer}" for customer in named])
        with self._connect() as connection:
            rows = connection.execute(_KINDS, (streams,), binary=True).fetchall()
        return {
            stream.removeprefix("customer-"): "individual"
            if b'"kind":"individual"' in body
            else "organisation"
            for stream, _, body in rows
        }

    def _check(self, asked: Asked, organisation: OrganisationAt, kinds: dict[str, str]) -> None:
        """Raise what stands in the way of recording at all."""
        command, origin = asked.command, asked.origin
        commands.occurred_within(origin.occurred, self._now())
        people = [origin.actor, origin.on_behalf_of]
        for name in ("claimant", "assignee", "person", "claim_for"):
            people.append(getattr(command, name, None))
        for person in people:
            if person is not None and organisation.person(person) is None:
                raise UnknownIdError("person", person)
        territory = getattr(command, "territory", None)
        if territory is not None and organisation.territory(territory) is None:
            raise UnknownIdError("territory", territory)
        for name in ("customer", "parent"):
            customer = getattr(command, name, None)
            if customer is not None and customer not in kinds:
                raise UnknownIdError("customer", customer)
        if origin.import_id is not None:
            opened = organisation.import_(origin.import_id)
            if opened is None or opened.closed:
                raise UnknownIdError("open import", origin.import_id)

    # --- facts ---------------------------------------------------------------------------------

    def record_fact(self, command: facts_in.FactCommand, origin: Origin) -> RecordedFact:
        """Record one fact; errors as of ``record_facts``."""
        return self.record_facts([command], origin)[0]

    def record_facts(
        self,
        facts: Sequence[facts_in.FactCommand],
        origin: Origin,
        seeds: Sequence[str] | None = None,
    ) -> list[RecordedFact]:
        """Record facts of the organisation together, or none of them.

        Raises NotPermittedError, UnknownIdError, InvalidRequestError, DeciderMissingError, and
        what the committer raises. The same request id again gives the first answer.
        """
        made = [building.Ids(seed) for seed in seeds] if seeds else [building.Ids() for _ in facts]
        key = RequestKey(origin.caller, origin.request_id, self._digest_of_facts(facts, origin))
        first = self._recorded_before(key)
        if first is not None:
            # Before it is judged: what was recorded then may well contradict what holds now.
            return self._fact_answer(first, [])
        for _ in range(_FACT_TRIES_MAX):
            organisation = self.organisation()
            version = self._organisation.version
            built = self._build_facts(facts, origin, made, organisation)
            events = tuple(
                NewEvent(
                    ORGANISATION,
                    self._catalogue.name_of(data),
                    request_body(self._catalogue, origin, index, data),
                    version + 1 + index,
                )
                for index, (data, _) in enumerate(built)
            )
            (answer,) = self._appender.append_many([Append(events, key)])
            if isinstance(answer, VersionConflictError):
                continue  # somebody else changed the organisation: look again, and judge again
            if isinstance(answer, LedgerError):
                raise answer
            return self._fact_answer(answer, [about for _, about in built])
        raise VersionConflictError(ORGANISATION)

    def _digest_of_facts(self, facts: Sequence[facts_in.FactCommand], origin: Origin) -> bytes:
        sent: dict[str, object] = {
            "facts": [
                [type(each).__name__, each.model_dump(mode="json", exclude_unset=True)]
                for each in facts
            ],
            "actor": origin.actor,
        }
        return self._vault.request_digest(canonical_bytes(sent))

    def _recorded_before(self, key: RequestKey) -> Appended | None:
        """Return the first answer of a request id; raises RequestReusedError."""
        with self._connect() as connection:
            row = connection.execute(_FIRST_ANSWER, (key.caller, key.request_id)).fetchone()
        if row is None:
            return None
        first_position, count, digest = row
        if bytes(digest) != key.digest:
            raise RequestReusedError(key.request_id)
        return Appended(first_position, count, repeated=True)

    def _fact_answer(self, answer: Appended, about: Sequence[str | None]) -> list[RecordedFact]:
        if answer.repeated:
            with self._connect() as connection:
                stored = read_at(connection, list(answer.positions))
            decoded = [decode(self._catalogue, each).data for each in stored]
            about = [_subject(data) for data in decoded]
        return [
            RecordedFact(position, each)
            for position, each in zip(answer.positions, about, strict=True)
        ]

    def _build_facts(
        self,
        facts: Sequence[facts_in.FactCommand],
        origin: Origin,
        made: Sequence[building.Ids],
        organisation: OrganisationAt,
    ) -> list[tuple[Any, str | None]]:
        number = organisation.policy.number
        rules = without_limits(organisation.policy.policy).as_rules()
        subjects: dict[str, None] = {}
        new: set[str] = set()
        for command, its_ids in zip(facts, made, strict=True):
            learning = _Sealing(self._vault, origin, subjects=subjects)
            context = building.FactContext(number, rules)
            _, about = building.build_fact(command, its_ids, learning.seal, context)
            if about is not None:
                new.add(about)
        for command in facts:
            _check_fact(command, organisation, new)
        _check_permission(organisation, origin)
        keys = self._vault.keys_for(list(subjects)) if subjects else {}
        built = []
        for index, (command, its_ids) in enumerate(zip(facts, made, strict=True)):
            sealing = _Sealing(self._vault, origin, index, keys)
            context = building.FactContext(number, rules)
            data, about = building.build_fact(command, its_ids, sealing.seal, context)
            number += isinstance(command, facts_in.AdoptPolicy)
            built.append((data, about))
        return built


def _subject(data: Any) -> str | None:
    for name in ("person", "territory", "import_id", "number"):
        found = getattr(data, name, None)
        if found is not None:
            return str(found)
    return None


def _check_permission(organisation: OrganisationAt, origin: Origin) -> None:
    """Let administrators state facts, and before anybody joined whoever sets the ledger up."""
    if not any(True for _ in organisation.people()):
        return
    actor = organisation.person(origin.actor)
    if actor is None or "admin" not in actor.roles:
        raise NotPermittedError(
            "Facts of the organisation are recorded by an administrator.",
            way_out="Act as a person with the role admin.",
        )


def _check_fact(command: facts_in.FactCommand, organisation: OrganisationAt, new: set[str]) -> None:
    """Raise where a fact names what does not exist, or contradicts the organisation's state."""
    match command:
        case facts_in.FoundOrganisation():
            if organisation.name is not None:
                raise commands.InvalidRequestError("name", "the organisation was founded before")
        case facts_in.DefineTerritory():
            for person in (command.head, *command.managers):
                _must_be_person(organisation, person, new)
            _must_be_territory(organisation, command.parent, new)
            if command.parent is not None and command.territory is not None:
                above = {each.territory for each in organisation.lineage(command.parent)}
                if command.territory in above | {command.parent}:
                    raise commands.InvalidRequestError(
                        "parent", "a territory cannot be above itself"
                    )
        case facts_in.AddPerson():
            _must_be_territory(organisation, command.territory, new)
            if command.person is not None and organisation.person(command.person) is not None:
                raise commands.InvalidRequestError("person", "the person joined before")
        case facts_in.AdoptDecider():
            decider(command.version)
            if command.version < organisation.decider:
                raise commands.InvalidRequestError("version", "a decider never goes back")
        case facts_in.AdoptPolicy():
            for rule in command.policy.territory_rules:
                _must_be_territory(organisation, rule.territory, new)
        case facts_in.CloseImport():
            opened = organisation.import_(command.import_id)
            if opened is None or opened.closed:
                raise UnknownIdError("open import", command.import_id)
        case facts_in.OpenImport():
            pass
        case _:
            _must_be_person(organisation, command.person, new)
            if isinstance(command, facts_in.ChangePerson):
                _must_be_territory(organisation, command.territory, new)
            if isinstance(command, facts_in.NameDelegate):
                _must_be_person(organisation, command.delegate, new)


def _must_be_person(organisation: OrganisationAt, person: str | None, new: set[str]) -> None:
    if person is not None and person not in new and organisation.person(person) is None:
        raise UnknownIdError("person", person)


def _must_be_territory(organisation: OrganisationAt, territory: str | None, new: set[str]) -> None:
    known = territory is None or territory in new
    if not known and organisation.territory(territory or "") is None:
        raise UnknownIdError("territory", territory or "")


def new_request_id() -> str:
    """Return a request id for callers that have none of their own."""
    return ids.new_id(ids.REQUEST)
