"""The one way in: commands are checked, given ids, sealed, and recorded as requests or facts.

A request is recorded at whatever version of its customer's stream comes next, and decided later
by the enforcer. A fact of the organisation is validated against the organisation's state, recorded
at an expected version, and final at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Protocol

import orjson
from psycopg import Connection

from ledger import building, commands, four_eyes, ids, tokens
from ledger import organisation_commands as facts_in
from ledger.canonical import canonical_bytes, instant
from ledger.commands import UnknownIdError as UnknownIdError  # its name for callers of this module
from ledger.deadlines import CLOCK
from ledger.deciders import decider
from ledger.deciding import stream_of
from ledger.envelope import Origin, decode, request_body
from ledger.errors import LedgerError, RequestReusedError, VersionConflictError
from ledger.events import requests
from ledger.events.catalogue import Catalogue, Data
from ledger.events.values import Sealed
from ledger.organisation import Organisation, OrganisationAt
from ledger.organisation_checks import check_facts
from ledger.policy import without_limits
from ledger.sealing import Vault
from ledger.store.appending import Append, Appended, NewEvent, RequestKey, check_append
from ledger.store.arrays import text_array
from ledger.store.reading import read_at, read_stream

ORGANISATION = "organisation"
# A caller and a request id together are a key, for which the store's index has 2,704 bytes.
REQUEST_ID_BYTES_MAX = 2_000
ORIGIN_BYTES_MAX = 500
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_FACT_TRIES_MAX = 20

_KINDS = """
SELECT s.stream, e.body
FROM unnest(%b::text[]) AS s(stream)
CROSS JOIN LATERAL (SELECT body FROM ledger.events e
                    WHERE e.stream = s.stream AND e.name LIKE 'RegistrationRequested.v%%'
                    ORDER BY version LIMIT 1) e
"""


_FIRST_ANSWER = """
SELECT first_position, events, digest FROM ledger.request_ids
WHERE caller = %s AND request_id = %s
"""


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
    """A command and where it comes from. ``seed`` makes the ids of what it makes follow from it.

    ``expected`` is the version that its customer's stream must still have; None: any will do.
    """

    command: commands.CustomerCommand
    origin: Origin
    seed: str | None = None
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where a request stands in the log.

    ``customer`` is its customer, ``made`` the id of what it made, such as a follow-up;
    ``repeated`` says that it was recorded before and this is the first answer.
    """

    request_id: str
    positions: tuple[int, ...]
    customer: str
    made: str | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class RecordedFact:
    """Where a fact stands in the log, and the id that it made or is about.

    ``version`` is its place in the organisation's stream; ``repeated`` says that it was recorded
    before and this is the first answer.
    """

    position: int
    about: str | None
    version: int
    repeated: bool = field(default=False, compare=False)


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

    def note_digest(self, subject: str, note: str) -> str:
        if self.keys is None:
            self.subjects[subject] = None
            return ""
        return self.vault.note_digest(self.keys[subject], tokens.folded(note))


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
        built, appends = self._prepare(asked, self.organisation())
        return self._answer(asked, built, self._appender.append_many(appends))

    def refusals(self, asked: Sequence[Asked], opening: str) -> list[LedgerError | None]:
        """Return for each request the error for which ``record_many`` would not record it.

        Nothing is recorded. ``opening`` is the import that will be opened for those that are left.
        """
        built, _ = self._prepare(asked, self.organisation(), opening)
        return [each if isinstance(each, LedgerError) else None for each in built]

    def _prepare(
        self, asked: Sequence[Asked], organisation: OrganisationAt, opening: str | None = None
    ) -> tuple[list[building.Built | LedgerError], list[Append]]:
        """Check requests, and build the appends of those in whose way nothing stands."""
        kinds = self._kinds(asked)
        built: list[building.Built | LedgerError] = []
        made = [building.Ids(each.seed) for each in asked]
        subjects: dict[str, None] = {}
        for each, its_ids in zip(asked, made, strict=True):
            learning = _Sealing(self._vault, each.origin, subjects=subjects)
            try:
                self._check(each, organisation, kinds, opening)
                found = self._build(each, its_ids, learning, kinds)
                if isinstance(each.command, commands.RegisterCustomer):
                    kinds[found.customer] = each.command.kind
                built.append(found)
            except LedgerError as error:
                built.append(error)
        keys = self._vault.keys_for(list(subjects)) if subjects else {}
        appends: list[Append] = []
        for number, each in enumerate(asked):
            done = built[number]
            if isinstance(done, LedgerError):
                continue
            sealing = _Sealing(self._vault, each.origin, keys=keys)
            try:
                built[number] = done = (
                    self._build(each, made[number], sealing, kinds) if subjects else done
                )
                append = self._append_of(each, done)
                check_append(append)
                appends.append(append)
            except LedgerError as error:
                built[number] = error
        return built, appends

    def rehearse(self, asked: Asked) -> building.Built:
        """Check and build one request as ``record`` does, and record nothing.

        Its texts stand empty in it, for sealing them would make keys. Raises InvalidRequestError,
        CheckDigitError and UnknownIdError.
        """
        kinds = self._kinds([asked])
        self._check(asked, self.organisation(), kinds)
        learning = _Sealing(self._vault, asked.origin)
        return self._build(asked, building.Ids(asked.seed), learning, kinds)

    def _build(
        self, asked: Asked, made: building.Ids, sealing: _Sealing, kinds: dict[str, str]
    ) -> building.Built:
        return building.build_request(
            asked.command,
            made,
            sealing.seal,
            self._vault.identifier_digest,
            sealing.note_digest,
            kinds.__getitem__,
        )

    def _append_of(self, asked: Asked, built: building.Built) -> Append:
        stream = stream_of("request", built.data[0])
        events = tuple(
            self._new_event(stream, asked.origin, index, data, asked.expected)
            for index, data in enumerate(built.data)
        )
        origin = asked.origin
        return Append(events, RequestKey(origin.caller, origin.request_id, self.digest(asked)))

    def _new_event(
        self, stream: str, origin: Origin, index: int, data: Data, expected: int | None
    ) -> NewEvent:
        body = request_body(self._catalogue, origin, index, data)
        version = None if expected is None else expected + 1 + index
        return NewEvent(stream, self._catalogue.name_of(data), body, version)

    def digest(self, asked: Asked) -> bytes:
        """Return the keyed digest of the request as the caller sent it."""
        origin = asked.origin
        sent: dict[str, object] = {
            "command": type(asked.command).__name__,
            "fields": asked.command.model_dump(mode="json", exclude_unset=True),
            "actor": origin.actor,
        }
        return self._digest_of(sent, origin)

    def _digest_of(self, sent: dict[str, object], origin: Origin) -> bytes:
        if origin.occurred is not None:
            sent["occurred"] = instant(origin.occurred)
        if origin.on_behalf_of is not None:
            sent["on_behalf_of"] = origin.on_behalf_of
        return self._vault.request_digest(canonical_bytes(sent))

    def _answer(
        self,
        asked: Sequence[Asked],
        built: Sequence[building.Built | LedgerError],
        answers: Sequence[Appended | LedgerError],
    ) -> list[Recorded | LedgerError]:
        results: list[Recorded | LedgerError] = []
        left = iter(answers)
        seeded = all(each.seed is not None for each in asked)
        firsts = {} if seeded else self._first_answers(answers)
        for each, what in zip(asked, built, strict=True):
            answer = what if isinstance(what, LedgerError) else next(left)
            if isinstance(answer, LedgerError) or isinstance(what, LedgerError):
                results.append(answer)  # type: ignore[arg-type]  # an error in either case
                continue
            customer, made = what.customer, what.made
            if answer.repeated and each.seed is None:
                customer, made = firsts[answer.first_position]
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

    def _first_answers(
        self, answers: Sequence[Appended | LedgerError]
    ) -> dict[int, tuple[str, str | None]]:
        """Return by position the ids that repeated requests made when they were recorded first."""
        repeated = [
            each.first_position
            for each in answers
            if not isinstance(each, LedgerError) and each.repeated
        ]
        if not repeated:
            return {}
        with self._connect() as connection:
            stored = read_at(connection, repeated)
        return {each.position: _made(decode(self._catalogue, each).data) for each in stored}

    def _kinds(self, asked: Iterable[Asked]) -> dict[str, str]:
        """Return ``organisation`` or ``individual`` of every customer named that was registered."""
        named: dict[str, None] = {}
        for each in asked:
            command = each.command
            for customer in _customers_named(command):
                named[customer] = None
        if not named:
            return {}
        streams = text_array([f"customer-{customer}" for customer in named])
        with self._connect() as connection:
            rows = connection.execute(_KINDS, (streams,), binary=True).fetchall()
        return {
            stream.removeprefix("customer-"): orjson.loads(body)["data"]["kind"]
            for stream, body in rows
        }

    def _check(
        self,
        asked: Asked,
        organisation: OrganisationAt,
        kinds: dict[str, str],
        opening: str | None = None,
    ) -> None:
        """Raise what stands in the way of recording at all."""
        command, origin = asked.command, asked.origin
        _check_origin(origin, self._now())
        for at in _said(command, "at"):
            commands.occurred_within(at, self._now(), field="at")
        if isinstance(command, commands.ReachDeadline) != (origin.caller == CLOCK):
            raise NotPermittedError(
                "The clock records deadlines, and nothing else; nobody else does.",
                way_out="Wait until the clock has raised the deadline.",
            )
        people = [origin.on_behalf_of, *([] if origin.caller == CLOCK else [origin.actor])]
        people += _said(command, "claimant", "assignee", "receiver", "person", "claim_for", "giver")
        for several in _said(command, "receivers"):
            people += several
        for person in people:
            if person is not None and organisation.person(person) is None:
                raise UnknownIdError("person", person)
        territories = _said(command, "territory")
        for several in _said(command, "territories"):
            territories += several
        for territory in territories:
            if territory is not None and organisation.territory(territory) is None:
                raise UnknownIdError("territory", territory)
        for customer in _customers_named(command):
            if customer not in kinds and not _waits_as_a_person(command, organisation):
                raise UnknownIdError("customer", customer)
        if origin.import_id is not None and origin.import_id != opening:
            opened = organisation.import_(origin.import_id)
            # Of what was recorded before the import was closed, the first answer is still due.
            if opened is None or (opened.closed and not self._is_known(origin)):
                raise UnknownIdError("open import", origin.import_id)
        if isinstance(command, commands.UnparkRequest):
            # A version that this guishu lacks would stop the enforcer.
            decider(command.decider)
            _check_administrator(organisation, origin, self._now())

    def _is_known(self, origin: Origin) -> bool:
        with self._connect() as connection:
            key = (origin.caller, origin.request_id)
            return connection.execute(_FIRST_ANSWER, key).fetchone() is not None

    # --- facts ---------------------------------------------------------------------------------

    def record_fact(self, command: facts_in.FactCommand, origin: Origin) -> RecordedFact:
        """Record one fact; errors as of ``record_facts``."""
        return self.record_facts([command], origin)[0]

    def record_facts(
        self,
        facts: Sequence[facts_in.FactCommand],
        origin: Origin,
        seeds: Sequence[str] | None = None,
        *,
        expected: Collection[int] | None = None,
    ) -> list[RecordedFact]:
        """Record facts of the organisation together, or none of them.

        The adoption of a proposal is recorded together with what it puts in force. ``expected`` are
        versions of the organisation's stream of which one must be the last, whoever else records;
        None: any will do. Raises NotPermittedError, UnknownIdError, InvalidRequestError,
        DeciderMissingError, FourEyesError, ProposalOutdatedError, VersionConflictError, and what
        the committer raises. The same request id again gives the first answer.
        """
        _check_origin(origin, self._now())
        made = [building.Ids(seed) for seed in seeds] if seeds else [building.Ids() for _ in facts]
        key = RequestKey(origin.caller, origin.request_id, self._digest_of_facts(facts, origin))
        first = self._recorded_before(key)
        if first is not None:
            # Before it is judged: what was recorded then may well contradict what holds now.
            return self._fact_answer(first)
        for _ in range(_FACT_TRIES_MAX):
            organisation = self.organisation()
            version = self._organisation.version
            if expected is not None and version not in expected:
                raise VersionConflictError(ORGANISATION)
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
            if answer.repeated:  # by another process, since it was looked for
                return self._fact_answer(answer)
            return [
                RecordedFact(position, about, event.version or 0)
                for position, (_, about), event in zip(answer.positions, built, events, strict=True)
            ]
        raise VersionConflictError(ORGANISATION)

    def _digest_of_facts(self, facts: Sequence[facts_in.FactCommand], origin: Origin) -> bytes:
        sent: dict[str, object] = {
            "facts": [
                [type(each).__name__, each.model_dump(mode="json", exclude_unset=True)]
                for each in facts
            ],
            "actor": origin.actor,
        }
        return self._digest_of(sent, origin)

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

    def _fact_answer(self, answer: Appended) -> list[RecordedFact]:
        """Return where facts stand that were recorded before."""
        with self._connect() as connection:
            stored = read_at(connection, list(answer.positions))
        return [
            RecordedFact(
                each.position, _subject(decode(self._catalogue, each).data), each.version, True
            )
            for each in stored
        ]

    def _build_facts(
        self,
        facts: Sequence[facts_in.FactCommand],
        origin: Origin,
        made: Sequence[building.Ids],
        organisation: OrganisationAt,
    ) -> list[tuple[Any, str | None]]:
        if not four_eyes.only_adopts(facts):
            _check_permission(organisation, origin, self._now())
        pairs = list(four_eyes.expanded(facts, organisation))
        facts, made = [fact for fact, _ in pairs], [made[number] for _, number in pairs]
        number = organisation.policy.number
        rules = without_limits(organisation.policy.policy).as_rules()
        proposers = {each.proposal: each.proposer for each in organisation.proposals()}
        subjects: dict[str, None] = {}
        abouts: list[str | None] = []
        for command, its_ids in zip(facts, made, strict=True):
            learning = _Sealing(self._vault, origin, subjects=subjects)
            context = building.FactContext(number, rules, proposers)
            _, about = building.build_fact(command, its_ids, learning.seal, context)
            abouts.append(about)
        four_eyes.check(facts, organisation, origin.actor, organisation.day(self._now()))
        check_facts(facts, abouts, organisation, self._now())
        keys = self._vault.keys_for(list(subjects)) if subjects else {}
        built = []
        for index, (command, its_ids) in enumerate(zip(facts, made, strict=True)):
            sealing = _Sealing(self._vault, origin, index, keys)
            context = building.FactContext(number, rules, proposers)
            data, about = building.build_fact(command, its_ids, sealing.seal, context)
            number += isinstance(command, facts_in.AdoptPolicy)
            built.append((data, about))
        return built


def _made(data: Any) -> tuple[str, str | None]:
    """Return the customer of a request (of a hand-over the giver), and the id that it made."""
    match data:
        case requests.FollowUpLogged():
            return data.customer, data.follow_up
        case requests.DealRecorded():
            return data.customer, data.deal
        case requests.TransferRequested():
            return data.customer, data.transfer
        case requests.CollaborationRequested():
            return data.customer, data.collaboration
        case requests.HandOverRequested():
            return data.giver, data.hand_over
        case requests.StandInRequested():
            return data.customer, data.stand_in
        case _:
            return data.customer, None


def _customers_named(command: commands.CustomerCommand) -> Iterator[str]:
    for customer in _said(command, "customer", "parent"):
        if customer is not None:
            yield customer
    for several in _said(command, "customers"):
        yield from several


def _said(command: commands.CustomerCommand, *names: str) -> list[Any]:
    """Return what a command says in those of the fields that it has."""
    return [getattr(command, name) for name in _fields_of(type(command), names)]


@cache
def _fields_of(kind: type[commands.CustomerCommand], names: tuple[str, ...]) -> tuple[str, ...]:
    # To ask a model for what it lacks takes twenty times as long as for what it has.
    return tuple(name for name in names if name in kind.model_fields)


def _waits_as_a_person(command: commands.CustomerCommand, organisation: OrganisationAt) -> bool:
    """Say whether it sets a hand-over free, for which its giver waits in place of a customer."""
    return (
        isinstance(command, commands.UnparkRequest)
        and organisation.person(command.customer) is not None
    )


def _subject(data: Any) -> str | None:
    for name in ("proposal", "person", "territory", "import_id", "number", "year"):
        found = getattr(data, name, None)
        if found is not None:
            return str(found)
    return None


def _check_origin(origin: Origin, now: datetime) -> None:
    """Raise InvalidRequestError for what can stand in no event, or be no key of the store."""
    commands.occurred_within(origin.occurred, now)
    for name in ("caller", "request_id", "actor", "on_behalf_of", "authority", "correlation"):
        text = getattr(origin, name)
        if text is None:
            continue
        if not text or _UNPRINTABLE.search(text):
            raise commands.InvalidRequestError(name, "is empty, or holds a control character")
        if len(text.encode()) > (
            REQUEST_ID_BYTES_MAX if name == "request_id" else ORIGIN_BYTES_MAX
        ):
            raise commands.InvalidRequestError(name, "is too long")


def _check_permission(organisation: OrganisationAt, origin: Origin, now: datetime) -> None:
    """Let administrators state facts, and before there is one whoever sets the ledger up."""
    if any(organisation.bearers("admin")):
        _check_administrator(organisation, origin, now)


def _check_administrator(organisation: OrganisationAt, origin: Origin, now: datetime) -> None:
    actor = organisation.person(origin.actor)
    if actor is None or "admin" not in actor.roles or actor.has_left(organisation.day(now)):
        raise NotPermittedError(
            "Only an administrator who has not left may do this.",
            way_out="Act as a person with the role admin.",
        )


def new_request_id() -> str:
    """Return a request id for callers that have none of their own."""
    return ids.new_id(ids.REQUEST)
