"""The catalogue: every event's stable name, its class, and how stored JSON becomes one.

A name is ``<Class>.v<number>`` and never a Python path. Stored JSON is for ever: a new shape gets
a new version, and an upcaster that lifts the older data to it on reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter

from ledger.errors import LedgerError
from ledger.events import decisions, organisation, requests

Data = (
    requests.Request | decisions.Decision | decisions.RequestParked | organisation.OrganisationFact
)
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class UnknownEventError(LedgerError):
    """An event bears a name that this version of guishu does not know."""

    code = "unknown_event"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"This version of guishu does not know the event {name}.",
            way_out="Upgrade guishu to the version that recorded it, or newer.",
        )
        self.name = name


@dataclass(frozen=True, slots=True)
class EventType:
    """One kind of event: ``kind`` is ``request``, ``decision`` or ``fact``."""

    name: str
    kind: str
    data_class: type[Any]
    adapter: TypeAdapter[Any]
    # Old names to the upcaster that lifts their data to this version.
    upcasters: Mapping[str, Upcaster]


class Catalogue:
    """Looks events up by name when reading and by class when writing."""

    def __init__(self, types: Iterable[EventType]) -> None:
        self.types = tuple(types)
        self._by_class = {each.data_class: each for each in self.types}
        self._by_name: dict[str, EventType] = {}
        self._readers: dict[str, tuple[Callable[[dict[str, Any]], Any], Upcaster | None]] = {}
        for each in self.types:
            # The validator itself: the adapter's method around it takes as long as a small event.
            validate = each.adapter.validator.validate_python
            self._by_name[each.name] = each
            self._readers[each.name] = (validate, None)
            for old_name, upcaster in each.upcasters.items():
                self._by_name[old_name] = each
                self._readers[old_name] = (validate, upcaster)
        self.request_names = frozenset(self._names("request"))
        self.decision_names = frozenset(self._names("decision"))
        self.fact_names = frozenset(self._names("fact"))

    def _names(self, kind: str) -> Iterable[str]:
        return (name for name, each in self._by_name.items() if each.kind == kind)

    def name_of(self, data: Data) -> str:
        """Return the stable name under which ``data`` is recorded."""
        return self._by_class[type(data)].name

    def name_of_class(self, data_class: type[Any]) -> str:
        """Return the stable name under which data of a class are recorded."""
        return self._by_class[data_class].name

    def kind_of(self, name: str) -> str:
        """Return ``request``, ``decision`` or ``fact``; raises UnknownEventError."""
        try:
            return self._by_name[name].kind
        except KeyError:
            raise UnknownEventError(name) from None

    def dump(self, data: Data) -> dict[str, Any]:
        """Return the JSON-ready mapping of ``data``; what is None is left out."""
        dumped: dict[str, Any] = self._by_class[type(data)].adapter.dump_python(
            data, mode="json", exclude_none=True
        )
        return dumped

    def load(self, name: str, data: dict[str, Any]) -> Data:
        """Return the event data that ``data`` (parsed JSON) stands for.

        Raises UnknownEventError; pydantic's ValidationError where the JSON is not of that shape.
        """
        reader = self._readers.get(name)
        if reader is None:
            raise UnknownEventError(name)
        validate, upcaster = reader
        loaded: Data = validate(upcaster(data) if upcaster else data)
        return loaded


def _types(kind: str, classes: Iterable[type[Any]]) -> Iterable[EventType]:
    for data_class in classes:
        yield EventType(
            name=f"{data_class.__name__}.v1",
            kind=kind,
            data_class=data_class,
            adapter=TypeAdapter(data_class),
            upcasters={},
        )


@cache
def catalogue() -> Catalogue:
    """Return the catalogue of this version of guishu; it never changes while the process runs."""
    return Catalogue(
        [
            *_types("request", get_args(requests.Request)),
            *_types("decision", (*get_args(decisions.Decision), decisions.RequestParked)),
            *_types("fact", get_args(organisation.OrganisationFact)),
        ]
    )
