"""The back half of an import: a plan's actions become facts and requests of the ledger.

Every row has ids that follow from the mapping's name and the row's key. What was filed before is
found by its request id and left alone, so a second import changes nothing, and one that was cut
off goes on where it stopped.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from api.imports import actions
from api.imports.actions import Action
from api.imports.planning import Plan
from ledger import building, commands, ids
from ledger import organisation_commands as facts
from ledger.commands import CheckDigitError
from ledger.envelope import Origin, Source
from ledger.errors import BusyError, LedgerError
from ledger.organisation import OrganisationAt
from ledger.policy import Policy
from ledger.recording import Asked, Recorded, Recording
from ledger.store.arrays import text_array

BATCH_ACTIONS = 1_000

_KNOWN = """
SELECT request_id, digest FROM ledger.request_ids WHERE caller = %s AND request_id = ANY(%b)
"""


class ImportChangedError(LedgerError):
    """A row was imported before with other content; it was left as it is in the ledger."""

    code = "row_changed"


@dataclass(slots=True)
class Filed:
    """What filing a plan has brought. ``import_ids`` are all imports under the mapping's name."""

    import_ids: tuple[str, ...] = ()
    recorded: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    check_digit_warnings: int = 0
    # The position behind which everything of this import lies, and its last one.
    last_position: int = 0


@dataclass(frozen=True, slots=True)
class Importer:
    """Who imports: the person who acts, the authenticated principal, and how sure that is."""

    actor: str
    caller: str
    authority: str | None = None


class Filing:
    """Files one plan; ``progress(done, total)`` is called after each batch."""

    def __init__(
        self,
        recording: Recording,
        connect: Callable[[], Any],
        plan: Plan,
        importer: Importer,
        policy: Policy | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._recording = recording
        self._connect = connect
        self._plan = plan
        self._importer = importer
        self._policy = policy
        self._progress = progress
        self._caller = f"import:{plan.name}"
        self._opened: str | None = None
        self._filed = Filed()

    def run(self) -> Filed:
        """File everything that was not filed before, and close the import.

        Raises NotPermittedError and what the committer raises; rows that the door refuses are
        listed in the plan's file of rejects.
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
            self._fact(facts.CloseImport(import_id=self._opened), f"close/{self._opened}")
            self._opened = None

    # --- the import itself ---------------------------------------------------------------------

    def _mine(self, organisation: OrganisationAt) -> list[Any]:
        return [each for each in organisation.imports() if each.name == self._plan.name]

    def _resume(self) -> None:
        """Go on under the import that was cut off, where there is one."""
        mine = self._mine(self._recording.organisation())
        self._filed.import_ids = tuple(each.import_id for each in mine)
        self._opened = next((each.import_id for each in mine if not each.closed), None)

    def _open(self) -> str:
        """Return the open import; made at the first row that was not filed before."""
        if self._opened is None:
            number = len(self._filed.import_ids) + 1
            import_id = ids.derived_id(ids.IMPORT, self._plan.name, str(number))
            command = facts.OpenImport(
                import_id=import_id,
                name=self._plan.name,
                time_zone=self._plan.mapping.constants.time_zone,
                policy=self._policy,
                cut_over=self._plan.cut_over,
            )
            self._fact(command, f"open/{import_id}")
            self._opened = import_id
            self._filed.import_ids = (*self._filed.import_ids, import_id)
        return self._opened

    def _fact(self, command: facts.FactCommand, key: str, file: str = "", row: int = 0) -> None:
        origin = Origin(
            caller=self._importer.caller,
            request_id=f"import/{self._plan.name}/{key}",
            actor=self._importer.actor,
            authority=self._importer.authority,
            source=Source(self._plan.name, file or None, row or None),
        )
        recorded = self._recording.record_fact(command, origin)
        self._filed.last_position = max(self._filed.last_position, recorded.position)

    # --- people and territories ----------------------------------------------------------------

    def _file_facts(self) -> Iterator[Action]:
        """File territories and people; return the actions that remain."""
        managers: dict[str, list[str]] = {}
        heads: dict[str, str] = {}
        names: dict[str, actions.DefineTerritory] = {}
        for action in self._plan.actions():
            if isinstance(action, actions.DefineTerritory):
                names[self._territory(action.territory)] = action
                self._define_territory(action)
            elif isinstance(action, actions.AddPerson):
                person = self._person(action.person)
                for territory in action.manages:
                    managers.setdefault(self._territory(territory), []).append(person)
                for territory in action.heads:
                    heads[self._territory(territory)] = person
                self._add_person(action)
            else:
                break
        self._name_managers(names, heads, managers)
        facts_filed = (actions.DefineTerritory, actions.AddPerson)
        return (each for each in self._plan.actions() if not isinstance(each, facts_filed))

    def _define_territory(self, action: actions.DefineTerritory) -> None:
        territory = self._territory(action.territory)
        if self._recording.organisation().territory(territory) is not None:
            self._filed.known[action.kind] += 1
            return
        parent = self._territory(action.parent) if action.parent else None
        command = facts.DefineTerritory(territory=territory, name=action.name, parent=parent)
        self._fact(command, action.key, action.file, action.row)
        self._filed.recorded[action.kind] += 1

    def _add_person(self, action: actions.AddPerson) -> None:
        person = self._person(action.person)
        if self._recording.organisation().person(person) is not None:
            self._filed.known[action.kind] += 1
            return
        foreign = action.foreign_id
        fields: dict[str, Any] = {
            "person": person,
            "name": action.name,
            "territory": self._territory(action.territory) if action.territory else None,
            "roles": action.roles or ("rep",),
            "foreign_ids": [{"system": self._plan.name, "value": foreign}] if foreign else (),
            "phone": action.phone,
            "email": action.email,
        }
        try:
            command = commands.parse(facts.AddPerson, fields)
        except LedgerError as error:
            self._refuse(action, error)
            return
        self._fact(command, action.key, action.file, action.row)
        self._filed.recorded[action.kind] += 1

    def _name_managers(
        self,
        names: dict[str, actions.DefineTerritory],
        heads: dict[str, str],
        managers: dict[str, list[str]],
    ) -> None:
        """Name heads and managers, where the ledger does not have any for the territory yet."""
        organisation = self._recording.organisation()
        for territory, action in names.items():
            found = organisation.territory(territory)
            if found is None or found.managers or territory not in heads.keys() | managers.keys():
                continue
            people = [each for each in managers.get(territory, []) if organisation.person(each)]
            command = facts.DefineTerritory(
                territory=territory,
                name=found.name,
                parent=found.parent,
                head=heads.get(territory),
                managers=tuple(people),
            )
            self._fact(command, f"{action.key}/managers", action.file, action.row)

    # --- customers and acts --------------------------------------------------------------------

    def _territory(self, reference: str) -> str:
        return ids.derived_id(ids.TERRITORY, self._plan.name, reference)

    def _person(self, reference: str) -> str:
        return ids.derived_id(ids.PERSON, self._plan.name, reference)

    def _customer_seed(self, reference: str) -> str:
        return f"{self._plan.name}/{reference}"

    def _customer(self, reference: str) -> str:
        return building.Ids(self._customer_seed(reference)).make(ids.CUSTOMER)

    def _file(self, batch: Sequence[Action]) -> None:
        asked: list[tuple[Action, Asked]] = []
        for action in batch:
            try:
                asked.append((action, self._asked(action)))
            except LedgerError as error:
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
        if fresh:
            import_id = self._open()
            self._record([(action, _within(each, import_id)) for action, each in fresh])

    def _record(self, fresh: Sequence[tuple[Action, Asked]]) -> None:
        results = self._recording.record_many([each for _, each in fresh])
        again: list[tuple[Action, Asked]] = []
        for (action, each), result in zip(fresh, results, strict=True):
            if isinstance(result, Recorded):
                self._filed.recorded[action.kind] += 1
                self._filed.last_position = max(self._filed.last_position, result.positions[-1])
            elif isinstance(result, CheckDigitError):
                # A warning: the row is taken as the file has it, and counted in the report.
                self._filed.check_digit_warnings += 1
                again.append((action, _overridden(each)))
            elif isinstance(result, BusyError):
                again.append((action, each))
            elif result.code in {"invalid_request", "unknown_id", "entry_too_large"}:
                self._refuse(action, result)
            else:
                raise result
        if again:
            self._record(again)

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
        reference = getattr(action, "customer", action.key)
        is_registration = isinstance(action, actions.RegisterCustomer)
        return Asked(
            command,
            Origin(
                caller=self._caller,
                request_id=action.key,
                actor=actor,
                authority=self._importer.authority,
                occurred=self._occurred(action),
                source=Source(self._plan.name, action.file, action.row),
            ),
            seed=self._customer_seed(reference if is_registration else action.key),
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
                person = self._person(action.person)
                customer = self._customer(action.customer)
                return commands.FileClaim(customer=customer, claimant=person), person
            case actions.FileRelease():
                customer = self._customer(action.customer)
                release = commands.ReleaseCustomer(customer=customer, reason_code=action.cause)
                return release, self._person(action.person)
            case actions.RecordDeal():
                person = self._person(action.person)
                value = action.value
                fields: dict[str, Any] = {
                    "customer": self._customer(action.customer),
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
        person = self._person(action.person)
        fields: dict[str, Any] = {
            "customer": self._customer(action.customer),
            "person": person,
            "channel": "imported",
            "note": action.method,
            "agreed": action.agreed,
            "next_on": action.next_date,
        }
        return commands.parse(commands.LogFollowUp, fields), person

    def _register(self, action: actions.RegisterCustomer) -> commands.RegisterCustomer:
        foreign = action.foreign_id
        fields: dict[str, Any] = {
            "name": action.name,
            "kind": action.customer_kind,
            "identifiers": [
                {"system": system, "value": value} for system, value in action.identifiers
            ],
            "foreign_ids": [{"system": self._plan.name, "value": foreign}] if foreign else (),
            "parent": self._customer(action.parent) if action.parent else None,
            "territory": self._territory(action.territory) if action.territory else None,
            "attributes": {each.name: _attribute(each) for each in action.attributes},
            "contacts": [
                {"name": each.name, "phone": each.phone, "email": each.email}
                for each in action.contacts
            ],
            "opening": action.opening_balance,
        }
        return commands.parse(commands.RegisterCustomer, fields)

    def _refuse(self, action: Action, error: LedgerError) -> None:
        self._filed.refused[error.code] += 1
        _append_reject(self._plan.rejects_path, action, error)


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


def _overridden(asked: Asked) -> Asked:
    fields = asked.command.model_dump(exclude_unset=True) | {"overrides": ("check_digit",)}
    return Asked(commands.parse(type(asked.command), fields), asked.origin, asked.seed)


def _changed(action: Action) -> ImportChangedError:
    return ImportChangedError(
        f"The row {action.key} was imported before with other content.",
        way_out="Record the change with guishu change, or import it under another name.",
    )


def _append_reject(path: Path, action: Action, error: LedgerError) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow([action.file, action.row, "", error.code, str(error)])


def _batches(items: Iterable[Action], size: int) -> Iterator[list[Action]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
