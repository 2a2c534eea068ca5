"""Deciding a batch of requests in memory, on settled state that is loaded and locked. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from consumers.parking import Row
from ledger.deciders import Decider, DeciderMissingError
from ledger.deciders.drafts import Draft
from ledger.deciding import apply_parking, decision_events, is_hand_over, parking_event
from ledger.envelope import Event
from ledger.events.catalogue import Catalogue
from ledger.events.decisions import RequestParked
from ledger.events.requests import RequestUnparked
from ledger.organisation import Organisation
from ledger.settled import Key, NotLoadedError, Settled, subject
from ledger.store.appending import NewEvent

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to decide. ``event`` None: it cannot be read, for the reason in ``defect``.

    ``row`` is where it is parked at present. ``version`` is the decider that an unparking named,
    None the one in force.
    """

    position: int
    customer: str
    event: Event | None
    defect: str = ""
    row: Row | None = None
    version: int | None = None

    @property
    def hands_over(self) -> bool:
        """Whether this is decided in parts."""
        return self.event is not None and is_hand_over(self.event)

    @property
    def unparks(self) -> bool:
        """Whether this sets a parked request free; it never waits itself."""
        return self.event is not None and isinstance(self.event.data, RequestUnparked)


class Made(NamedTuple):
    """A draft that is to be recorded: by which version of the decider, and on what it was made.

    ``before`` are the versions that the streams of its customers had.
    """

    request: Event
    draft: Draft
    version: int
    before: dict[str, int]


@dataclass(slots=True)
class Decided:
    """What deciding a batch has brought, before anything is written.

    ``is_last`` False says that a part of a hand-over was decided, and the next is to follow. With
    ``missing`` all the rest is void: these guards are to be locked, and all decided again.
    """

    # In the order of the log; a parking is an event at once.
    recorded: list[Made | NewEvent] = field(default_factory=list)
    parked: list[Row] = field(default_factory=list)
    freed: list[int] = field(default_factory=list)
    missing: set[Key] = field(default_factory=set)
    # Whether nothing is left of what is decided in parts.
    is_last: bool = True


class DefectError(Exception):
    """A decision could not be folded or recorded, when others were decided on it: begin anew."""

    def __init__(self, position: int, words: str) -> None:
        super().__init__(words)
        self.position = position
        self.words = words


def words_of(error: Exception) -> str:
    """Return what is kept of an error beside the log, for whoever mends it."""
    return f"{type(error).__name__}: {error}"


class BatchDecider:
    """Decides batches by the versions of the decider that there are."""

    def __init__(
        self, catalogue: Catalogue, versions: Mapping[int, Decider], organisation: Organisation
    ) -> None:
        self._catalogue = catalogue
        self._versions = versions
        self._organisation = organisation

    def decide(
        self,
        batch: Sequence[Asked],
        settled: Settled,
        waiting: set[str],
        defects: Mapping[int, str],
    ) -> Decided:
        """Decide a batch in order, each request on what those before it have brought.

        ``waiting`` are the customers that wait for a parked request; those of the batch that cannot
        be decided join them. ``defects`` are the positions that are to be parked at once, and why.
        Raises DeciderMissingError; DefectError for a position that is to be among the defects.
        """
        decided = Decided()
        for asked in batch:
            try:
                customer = asked.customer if asked.event is None else subject(settled, asked.event)
            except NotLoadedError as lacking:
                decided.missing.add(lacking.key)
                continue
            row = asked.row
            if customer in waiting and not asked.unparks:
                self._wait(asked, customer, decided)
            elif row is not None and row.error is not None and asked.version is None:
                waiting.add(customer)  # nobody has set it free: it stays, and so does all behind it
            elif not self._decide_one(asked, customer, settled, defects, decided):
                waiting.add(customer)
        return decided

    def events_of(self, decided: Decided) -> tuple[NewEvent, ...]:
        """Return the events that record what was decided.

        To write them out takes two thirds of what deciding does, and the server can work
        meanwhile. Raises DefectError for a position that is to be among the defects.
        """
        events: list[NewEvent] = []
        for each in decided.recorded:
            if isinstance(each, NewEvent):
                events.append(each)
                continue
            request, draft, version, before = each
            try:
                events += decision_events(self._catalogue, request, draft, version, before)
            except MemoryError:
                raise
            except Exception as error:
                _log.exception("what was decided at %d cannot be recorded", request.position)
                raise DefectError(request.position, words_of(error)) from error
        return tuple(events)

    def _wait(self, asked: Asked, customer: str, decided: Decided) -> None:
        row = asked.row
        if row is not None and row.customer == customer:
            return
        if row is not None:
            decided.freed.append(row.position)
        error = row.error if row is not None else None
        decided.parked.append(Row(asked.position, customer, error))

    def _decide_one(
        self,
        asked: Asked,
        customer: str,
        settled: Settled,
        defects: Mapping[int, str],
        decided: Decided,
    ) -> bool:
        """Decide one request; return False where it could not be, and was parked instead."""
        request, defect = asked.event, defects.get(asked.position, asked.defect)
        if request is None or defect:
            return self._park(asked, customer, defect, settled, decided)
        organisation = self._organisation.at(request.position)
        version = asked.version or organisation.decider
        decide = self._versions.get(version)
        if decide is None:
            raise DeciderMissingError(version)
        try:
            draft = decide(settled, request, organisation)
        except NotLoadedError as lacking:
            # Nothing of this round is kept; the others are still decided, to find all that lacks.
            decided.missing.add(lacking.key)
            return True
        except MemoryError:  # of this machine, and not of this request
            raise
        except Exception as error:  # a defect of one request must not stop the rest
            if decided.missing:
                return True  # what is decided on half a state may well fail; the next round tells
            _log.exception("the request at %d cannot be decided", request.position)
            return self._park(asked, customer, words_of(error), settled, decided)
        before = {data.customer: settled.version(data.customer) for data in draft.all}
        try:
            for data in draft.all:
                settled.apply(request, data, draft.effective, organisation)
        except NotLoadedError as lacking:
            decided.missing.add(lacking.key)
            return True
        except MemoryError:
            raise
        except Exception as error:
            if decided.missing:
                return True
            _log.exception("the decision on the request at %d cannot be folded", request.position)
            raise DefectError(request.position, words_of(error)) from error
        decided.recorded.append(Made(request, draft, version, before))
        decided.is_last = draft.is_last
        if asked.row is not None and draft.is_last:
            decided.freed.append(asked.row.position)
        return True

    def _park(
        self, asked: Asked, customer: str, words: str, settled: Settled, decided: Decided
    ) -> bool:
        if customer not in settled.customers:
            decided.missing.add(("customer", customer))
            return True
        # In the log only the error's kind: its words may be those of the request.
        parked = RequestParked(customer, asked.position, words.split(":", 1)[0])
        decided.recorded.append(parking_event(self._catalogue, parked, settled))
        apply_parking(settled, parked)
        if asked.row is not None:
            decided.freed.append(asked.row.position)
        decided.parked.append(Row(asked.position, customer, words))
        return False
