"""The back half of an import: a plan's actions become facts and requests of the ledger.

Every row has ids that follow from the mapping's name and the row's key. What was filed before is
found by its request id and left alone, so a second import changes nothing, and one that was cut
off goes on where it stopped. A row that the ledger's door refuses goes to the list of rejects, and
the others are filed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, islice
from typing import Any

from api.imports import actions
from api.imports.actions import Action
from api.imports.naming import RowNames, is_in_ledger
from api.imports.planning import Plan
from api.imports.refusals import column_of, concerns_row, reason_in_words
from ledger import commands, ids
from ledger import organisation_commands as facts
from ledger.commands import CheckDigitError
from ledger.envelope import Origin, Source
from ledger.errors import BusyError, LedgerError
from ledger.four_eyes import ProposedError
from ledger.organisation import Import, OrganisationAt
from ledger.policy import Policy
from ledger.recording import Asked, Recorded, RecordedFact, Recording, new_request_id
from ledger.sealing import Vault
from ledger.store.arrays import text_array

BATCH_ACTIONS = 1_000
# So often a full queue is waited for before the import gives up; it can be started again.
BUSY_TRIES_MAX = 60

_KNOWN = """
SELECT request_id, digest FROM ledger.request_ids WHERE caller = %s AND request_id = ANY(%b)
"""


class ImportChangedError(LedgerError):
    """A row was imported before with other content; it was left as it is in the ledger."""

    code = "row_changed"


@dataclass(slots=True)
class Filed:
    """What filing a plan has brought. ``import_ids`` are all imports under the mapping's name.

    ``recorded`` and ``known`` count actions by kind, ``refused`` rows by the code of the error.
    """

    import_ids: tuple[str, ...] = ()
    recorded: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    check_digit_warnings: int = 0
    # The position behind which everything of this import lies, and its last one.
    last_position: int = 0


@dataclass(frozen=True, slots=True)
class Importer:
    """Who imports: the person who acts, the authenticated principal, and how sure that is.

    ``on_behalf_of`` is the person for whom an integration acts.
    """

    actor: str
    caller: str
    authority: str | None = None
    on_behalf_of: str | None = None


class Filing:
    """Files one plan; ``progress(done, total)`` is called after each batch.

    ``vault`` gives the key of the digests that ids are made of. ``admit`` hears of the imports that
    there are under the mapping's name, and raises where the importer may not file under it.
    """

    def __init__(
        self,
        recording: Recording,
        connect: Callable[[], Any],
        plan: Plan,
        importer: Importer,
        vault: Vault,
        policy: Policy | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        wait: Callable[[float], None] = time.sleep,
        admit: Callable[[OrganisationAt, Sequence[Import]], None] = lambda organisation, mine: None,
    ) -> None:
        self._recording = recording
        self._connect = connect
        self._plan = plan
        self._importer = importer
        self._policy = policy
        self._progress = progress
        self._wait = wait
        self._admit = admit
        self._names = RowNames(plan.name, vault.request_digest)
        self._files = {file.label: file for file in plan.mapping.files}
        self._caller = self._names.caller
        self._opened: str | None = None
        self._filed = Filed()

    def run(self) -> Filed:
        """File everything that was not filed before, and close the import.

        Raises NotPermittedError; ProposedError where somebody else has to open the import first;
        and what the committer raises. Rows that the door refuses are listed in the plan's file of
        rejects.
        """
        self._filed.recorded.update(dict.fromkeys(actions.ACTION_KINDS, 0))
        self._resume()
        facts_left = self._file_facts()
        total, done = len(self._plan), 0
        for batch in _batches(facts_left, BATCH_ACTIONS):
            self._file(batch)
            done += len(batch)
            self._progress(done, total)
        return self._filed

    def close(self) -> None:
        """Close the import, once everything that it filed has been decided."""
        if self._opened is not None:
            closing = facts.CloseImport(import_id=self._opened)
            self._fact(closing, f"import/{self._plan.name}/close/{self._opened}")
            self._opened = None

    # --- the import itself ---------------------------------------------------------------------

    def _mine(self, organisation: OrganisationAt) -> list[Import]:
        return [each for each in organisation.imports() if each.name == self._plan.name]

    def _resume(self) -> None:
        """Go on under the import that was cut off, where there is one."""
        organisation = self._recording.organisation()
        mine = self._mine(organisation)
        # By the very state by which it goes on: nobody can open it in between.
        self._admit(organisation, mine)
        self._filed.import_ids = tuple(each.import_id for each in mine)
        self._opened = next((each.import_id for each in mine if not each.closed), None)

    def _next_import(self) -> str:
        number = len(self._filed.import_ids) + 1
        return ids.derived_id(ids.IMPORT, self._plan.name, str(number))

    def _open(self, import_id: str) -> None:
        """Open the import at the first row that was not filed before."""
        if self._opened is not None:
            return
        fields = {
            "import_id": import_id,
            "name": self._plan.name,
            "time_zone": self._plan.mapping.constants.time_zone,
            "policy": self._policy,
            "cut_over": self._plan.cut_over,
        }
        command = commands.parse(facts.OpenImport, fields)
        if self._recording.organisation().four_eyes:
            raise ProposedError(self._proposal(command), "The import")
        self._fact(command, f"import/{self._plan.name}/open/{import_id}")
        self._opened = import_id
        self._filed.import_ids = (*self._filed.import_ids, import_id)

    def _proposal(self, command: facts.OpenImport) -> str:
        """Return the open proposal to open the import, made where there is none."""
        for each in self._recording.organisation().proposals():
            is_this = each.kind == "import" and each.fact["import_id"] == command.import_id
            if is_this and each.state == "open":
                return each.proposal
        proposing = facts.ProposeFact(fact=command)
        return self._fact(proposing, new_request_id()).about or ""

    def _fact(
        self, command: facts.FactCommand, request_id: str, file: str = "", row: int = 0
    ) -> RecordedFact:
        origin = Origin(
            caller=self._importer.caller,
            request_id=request_id,
            actor=self._importer.actor,
            authority=self._importer.authority,
            on_behalf_of=self._importer.on_behalf_of,
            source=Source(self._plan.name, file or None, row or None),
        )
        for busy in self._tries():
            try:
                recorded = self._recording.record_fact(command, origin)
            except BusyError as error:
                busy.append(error)
            else:
                self._filed.last_position = max(self._filed.last_position, recorded.position)
                return recorded
        raise AssertionError("the tries end with an error, or with what was recorded")

    # --- people and territories ----------------------------------------------------------------

    def _file_facts(self) -> Iterator[Action]:
        """File territories and people; return the actions that remain."""
        managers: dict[str, list[str]] = {}
        heads: dict[str, str] = {}
        territories: dict[str, actions.DefineTerritory] = {}
        for action in self._plan.actions():
            if isinstance(action, actions.DefineTerritory):
                territories[self._names.territory(action.territory)] = action
                if not is_in_ledger(action.territory):
                    self._define_territory(action)
            elif isinstance(action, actions.AddPerson):
                person = self._names.person(action.person)
                for territory in action.manages:
                    managers.setdefault(self._names.territory(territory), []).append(person)
                for territory in action.heads:
                    heads[self._names.territory(territory)] = person
                if not is_in_ledger(action.person):
                    self._add_person(action)
            else:
                break
        self._name_managers(territories, heads, managers)
        facts_filed = (actions.DefineTerritory, actions.AddPerson)
        return (each for each in self._plan.actions() if not isinstance(each, facts_filed))

    def _fact_of_row(
        self,
        action: Action,
        kind: type[facts.DefineTerritory | facts.AddPerson],
        fields: dict[str, Any],
        part: str = "",
    ) -> bool:
        """File what a row says of the organisation; say whether the door took it."""
        request_id = f"import/{self._plan.name}/{self._names.request_id(action.key)}{part}"
        try:
            self._fact(commands.parse(kind, fields), request_id, action.file, action.row)
        except LedgerError as error:
            if not concerns_row(error):
                raise
            self._refuse(action, error)
            return False
        return True

    def _define_territory(self, action: actions.DefineTerritory) -> None:
        territory = self._names.territory(action.territory)
        if self._recording.organisation().territory(territory) is not None:
            self._filed.known[action.kind] += 1
            return
        parent = self._names.territory(action.parent) if action.parent else None
        fields = {"territory": territory, "name": action.name, "parent": parent}
        if self._fact_of_row(action, facts.DefineTerritory, fields):
            self._filed.recorded[action.kind] += 1

    def _add_person(self, action: actions.AddPerson) -> None:
        person = self._names.person(action.person)
        if self._recording.organisation().person(person) is not None:
            self._filed.known[action.kind] += 1
            return
        fields: dict[str, Any] = {
            "person": person,
            "name": action.name,
            "territory": self._names.territory(action.territory) if action.territory else None,
            "roles": action.roles or ("rep",),
            "foreign_ids": self._foreign_ids(action.foreign_id),
            "phone": action.phone,
            "email": action.email,
        }
        if self._fact_of_row(action, facts.AddPerson, fields):
            self._filed.recorded[action.kind] += 1

    def _foreign_ids(self, value: str | None) -> list[dict[str, str]]:
        return [{"system": self._plan.mapping.id_system, "value": value}] if value else []

    def _name_managers(
        self,
        territories: dict[str, actions.DefineTerritory],
        heads: dict[str, str],
        managers: dict[str, list[str]],
    ) -> None:
        """Name heads and managers, where the ledger does not have any for the territory yet."""
        organisation = self._recording.organisation()
        for territory, action in territories.items():
            found = organisation.territory(territory)
            # Who was refused as a person is no manager either.
            people = [each for each in managers.get(territory, []) if organisation.person(each)]
            head = heads.get(territory)
            if head is not None and organisation.person(head) is None:
                head = None
            if found is None or found.managers or not (people or head):
                continue
            fields: dict[str, Any] = {
                "territory": territory,
                "name": found.name,
                "parent": found.parent,
                "head": head,
                "managers": people,
            }
            if found.foreign_ids:
                fields["foreign_ids"] = [
                    {"system": each.system, "value": each.value} for each in found.foreign_ids
                ]
            self._fact_of_row(action, facts.DefineTerritory, fields, "/managers")

    # --- customers and acts --------------------------------------------------------------------

    def _file(self, batch: Sequence[Action]) -> None:
        asked: list[tuple[Action, Asked]] = []
        for action in batch:
            try:
                asked.append((action, self._asked(action)))
            except LedgerError as error:
                if not concerns_row(error):
                    raise
                self._refuse(action, error)
        known = self._known([each.origin.request_id for _, each in asked])
        fresh: list[tuple[Action, Asked]] = []
        for action, each in asked:
            digest = known.get(each.origin.request_id)
            if digest is None:
                fresh.append((action, each))
            elif digest == self._recording.digest(each):
                self._filed.known[action.kind] += 1
            else:
                self._refuse(action, _changed(action))
        import_id = self._opened or self._next_import()
        fresh = [(action, _within(each, import_id)) for action, each in fresh]
        if self._opened is None:
            # Only for something that is really recorded: a second import of rows that the door
            # refuses changes nothing.
            fresh = self._admissible(fresh, import_id)
        if fresh:
            self._open(import_id)
            self._record(fresh)

    def _admissible(
        self, fresh: Sequence[tuple[Action, Asked]], import_id: str
    ) -> list[tuple[Action, Asked]]:
        """Leave out what the door would refuse, and list it."""
        left: list[tuple[Action, Asked]] = []
        refusals = self._recording.refusals([each for _, each in fresh], import_id)
        for (action, each), error in zip(fresh, refusals, strict=True):
            if error is None:
                left.append((action, each))
            elif concerns_row(error):
                self._refuse(action, error)
            else:
                raise error
        return left

    def _record(self, fresh: Sequence[tuple[Action, Asked]]) -> None:
        for busy in self._tries():
            results = self._recording.record_many([each for _, each in fresh])
            again: list[tuple[Action, Asked]] = []
            for (action, each), result in zip(fresh, results, strict=True):
                if isinstance(result, Recorded):
                    self._count(action, each, result)
                elif isinstance(result, BusyError):
                    again.append((action, each))
                    busy.append(result)
                elif concerns_row(result):
                    self._refuse(action, result)
                else:
                    raise result
            fresh = again

    def _tries(self) -> Iterator[list[BusyError]]:
        """Yield lists until one stays empty; between two wait for as long as the first error says.

        Raises BusyError where the queue stays full.
        """
        for left in range(BUSY_TRIES_MAX, -1, -1):
            busy: list[BusyError] = []
            yield busy
            if not busy:
                return
            if not left:
                raise busy[0]
            self._wait(busy[0].retry_after_seconds)

    def _count(self, action: Action, asked: Asked, recorded: Recorded) -> None:
        self._filed.recorded[action.kind] += 1
        self._filed.last_position = max(self._filed.last_position, recorded.positions[-1])
        if getattr(asked.command, "overrides", ()):
            self._filed.check_digit_warnings += 1

    def _known(self, request_ids: Sequence[str]) -> dict[str, bytes]:
        if not request_ids:
            return {}
        with self._connect() as connection:
            rows = connection.execute(
                _KNOWN, (self._caller, text_array(request_ids)), binary=True
            ).fetchall()
        return {request_id: bytes(digest) for request_id, digest in rows}

    def _asked(self, action: Action) -> Asked:
        command, actor = self._command(action)
        names = self._names
        return Asked(
            command,
            Origin(
                caller=self._caller,
                request_id=names.request_id(action.key),
                actor=actor,
                authority=self._importer.authority,
                occurred=self._occurred(action),
                source=Source(self._plan.name, action.file, action.row),
            ),
            seed=(
                names.customer_seed(action.customer)
                if isinstance(action, actions.RegisterCustomer)
                else names.act_seed(action.key)
            ),
        )

    def _occurred(self, action: Action) -> datetime | None:
        if action.at is not None:
            return action.at
        if isinstance(action, actions.RegisterCustomer) and not action.opening_balance:
            return self._plan.earliest or self._plan.cut_over
        return self._plan.cut_over

    def _command(self, action: Action) -> tuple[commands.CustomerCommand, str]:
        """Return the command of an action and the person whose act it is."""
        match action:
            case actions.RegisterCustomer():
                return self._register(action), self._importer.actor
            case actions.FileClaim() | actions.OpenWithOwner():
                person = self._names.person(action.person)
                customer = self._names.customer(action.customer)
                return commands.FileClaim(customer=customer, claimant=person), person
            case actions.FileRelease():
                customer = self._names.customer(action.customer)
                release = commands.ReleaseCustomer(customer=customer, reason_code=action.cause)
                return release, self._names.person(action.person)
            case actions.RecordDeal():
                person = self._names.person(action.person)
                value = action.value
                fields: dict[str, Any] = {
                    "customer": self._names.customer(action.customer),
                    "person": person,
                    "outcome": action.outcome,
                    "value": value and {"amount": value.amount, "currency": value.currency},
                    "product": action.product,
                }
                return commands.parse(commands.RecordDeal, fields), person
            case actions.LogFollowUp():
                return self._follow_up(action)
            case _:
                raise AssertionError(f"{action.kind} is no act")

    def _follow_up(self, action: actions.LogFollowUp) -> tuple[commands.LogFollowUp, str]:
        person = self._names.person(action.person)
        fields: dict[str, Any] = {
            "customer": self._names.customer(action.customer),
            "person": person,
            "channel": "imported",
            "note": action.method,
            "agreed": action.agreed,
            "next_on": action.next_date,
        }
        return commands.parse(commands.LogFollowUp, fields), person

    def _register(self, action: actions.RegisterCustomer) -> commands.RegisterCustomer:
        fields: dict[str, Any] = {
            "name": action.name,
            "kind": action.customer_kind,
            "identifiers": [
                {"system": system, "value": value} for system, value in action.identifiers
            ],
            "foreign_ids": self._foreign_ids(action.foreign_id),
            "parent": self._names.customer(action.parent) if action.parent else None,
            "territory": self._names.territory(action.territory) if action.territory else None,
            "attributes": {each.name: _attribute(each) for each in action.attributes},
            "contacts": [
                {"name": each.name, "phone": each.phone, "email": each.email}
                for each in action.contacts
            ],
            "opening": action.opening_balance,
        }
        command = commands.parse(commands.RegisterCustomer, fields)
        if not _has_wrong_code(command):
            return command
        # A warning only: the row is taken as the file has it, and counted in the report. It is
        # settled before recording, for the acts at the customer stand right behind.
        return commands.parse(commands.RegisterCustomer, {**fields, "overrides": ("check_digit",)})

    def _refuse(self, action: Action, error: LedgerError) -> None:
        """List the row of an action; a row stands in the list once, with the first reason."""
        column = column_of(self._files[action.file], action, error)
        listed = (action.file, action.row, column, error.code, reason_in_words(error))
        if self._plan.reject(*listed):
            self._filed.refused[error.code] += 1


def _attribute(given: actions.Attribute) -> Any:
    match given:
        case actions.DecimalAttribute():
            return {"decimal": given.value}
        case actions.MoneyAttribute():
            return {"money": {"amount": given.value.amount, "currency": given.value.currency}}
        case actions.DateAttribute():
            return {"date": given.value}
        case actions.SetAttribute():
            return {"set": given.value}
        case _:
            return given.value


def _within(asked: Asked, import_id: str) -> Asked:
    origin = asked.origin
    return Asked(
        asked.command,
        Origin(
            caller=origin.caller,
            request_id=origin.request_id,
            actor=origin.actor,
            authority=origin.authority,
            occurred=origin.occurred,
            source=origin.source,
            import_id=import_id,
        ),
        asked.seed,
    )


def _has_wrong_code(command: commands.RegisterCustomer) -> bool:
    for each in command.identifiers:
        try:
            commands.normalised_number(each.system, each.value, ())
        except CheckDigitError:
            return True
        except LedgerError:
            # The door will say what else is wrong.
            continue
    return False


def _changed(action: Action) -> ImportChangedError:
    return ImportChangedError(
        f"The row {action.key} was imported before with other content.",
        way_out="Record the change with guishu change, or import it under another name.",
    )


def _batches(items: Iterable[Action], size: int) -> Iterator[list[Action]]:
    """Yield actions in batches; registrations never share one with the acts at the customers."""
    for _, group in groupby(items, key=lambda each: isinstance(each, actions.RegisterCustomer)):
        while batch := list(islice(group, size)):
            yield batch
