"""Recording several requests at once: in bounded appends, each with its own outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import typer

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import notes, origin, print_json, print_table
from api.cli.following import follow
from api.cli.write_commands import told, words
from api.outcomes import is_refusal
from ledger.commands import CustomerCommand, InvalidRequestError
from ledger.envelope import Event, decode
from ledger.errors import LedgerError
from ledger.recording import Asked, Recorded
from ledger.store.reading import read_decisions

# So many requests are recorded in one append, and their decisions read in one statement.
AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that somebody wants recorded; ``name`` and ``about`` say what it is about."""

    command: CustomerCommand
    customer: str
    name: str
    about: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one of them: what was recorded and decided, or why it was not recorded."""

    wanted: Wanted
    recorded: Recorded | None
    decided: tuple[Event, ...] = ()
    error: LedgerError | None = None

    @property
    def state(self) -> str:
        """``done``, ``refused``, ``undecided`` or ``not recorded``."""
        if self.recorded is None:
            return "not recorded"
        if not self.decided:
            return "undecided"
        return "refused" if any(is_refusal(each.data) for each in self.decided) else "done"


def confirm(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    question: str,
    *,
    yes: bool,
    json: bool,
) -> None:
    """Show what is going to be recorded as a table, and ask, as ``agree`` does."""
    agree(lambda: print_table(title, columns, rows), question, yes=yes, json=json)


def agree(show: Callable[[], None], question: str, *, yes: bool, json: bool) -> None:
    """Show what is going to be recorded, and ask; whoever says no ends the command.

    ``yes`` says that somebody has agreed before; where JSON is wanted there is nobody to ask.
    Raises InvalidRequestError.
    """
    if yes:
        return
    if json:
        raise InvalidRequestError("yes", "with --json nobody can be asked: say --yes as well")
    show()
    typer.confirm(question, abort=True)


def record_each(
    ledger: Ledger, wanted: Sequence[Wanted], actor: str, request_id: str | None
) -> list[Outcome]:
    """Record each of the requests, wait until they are decided, and return what came of each.

    What cannot be recorded keeps none of the others from it. ``request_id`` is that of the whole:
    each request gets an id of its own from it, so that the same again gives the first answers.
    """
    results: list[Recorded | LedgerError] = []
    for page in _pages(wanted):
        asked = [
            Asked(each.command, origin(actor, request_id and f"{request_id}:{each.name}"))
            for each in page
        ]
        try:
            results += ledger.recording.record_many(asked)
        except LedgerError as error:
            results += [error] * len(page)
    last = [each.positions[-1] for each in results if isinstance(each, Recorded)]
    if last:
        follow(ledger, max(last))
    decided = _decided(ledger, [each for each in results if isinstance(each, Recorded)])
    return [
        Outcome(one, None, error=result)
        if isinstance(result, LedgerError)
        else Outcome(one, result, tuple(decided.get(result.positions[-1], ())))
        for one, result in zip(wanted, results, strict=True)
    ]


def _pages(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    left = iter(wanted)
    while page := list(islice(left, AT_ONCE)):
        yield page


def _decided(ledger: Ledger, recorded: Sequence[Recorded]) -> dict[int, list[Event]]:
    """Return the decisions by the position of their request."""
    found: dict[int, list[Event]] = {}
    positions = [each.positions[-1] for each in recorded]
    with ledger.pool.connection() as connection:
        for first in range(0, len(positions), AT_ONCE):
            for stored in read_decisions(connection, positions[first : first + AT_ONCE]):
                event = decode(ledger.catalogue, stored)
                found.setdefault(event.causation or 0, []).append(event)
    return found


def tell(ledger: Ledger, title: str, key: str, outcomes: Sequence[Outcome], *, json: bool) -> None:
    """Print what came of each; where one was refused or not recorded, end with exit status 3.

    ``key`` is what JSON calls the name of each.
    """
    if json:
        print_json([{key: each.wanted.name, **_json(ledger, each)} for each in outcomes])
    else:
        names = resolve.Names(ledger)
        print_table(
            title,
            ("customer", "what", "outcome"),
            [
                (names.customer(each.wanted.customer), each.wanted.about, _words(each, names))
                for each in outcomes
            ],
        )
        counts = Counter(each.state for each in outcomes)
        notes().print(", ".join(f"{state}: {count}" for state, count in sorted(counts.items())))
    if any(each.state in {"refused", "not recorded"} for each in outcomes):
        raise typer.Exit(3)


def _json(ledger: Ledger, outcome: Outcome) -> dict[str, Any]:
    if outcome.recorded is None or outcome.error is not None:
        error = outcome.error
        said = {"code": error.code, "error": str(error), "way_out": error.way_out} if error else {}
        return {"outcome": outcome.state, **said}
    return {"outcome": outcome.state, **told(ledger, outcome.recorded, outcome.decided)}


def _words(outcome: Outcome, names: resolve.Names) -> str:
    if outcome.error is not None:
        return f"not recorded: {outcome.error.code}: {outcome.error}"
    return "\n".join(words(each.data, names) for each in outcome.decided) or "waits to be decided"
