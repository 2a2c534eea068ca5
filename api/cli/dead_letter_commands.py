"""What a consumer could not handle: listed, shown, and set going again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import (
    ID,
    As,
    Json,
    as_json,
    console,
    json_text,
    notes,
    opened,
    print_json,
    print_table,
    progress_bar,
    typed,
)
from api.cli.operations import set_free
from api.dead_letters import KINDS, DeadLetter, Named, Whole, dead_letters, find, named
from ledger.commands import InvalidRequestError
from ledger.errors import LedgerError
from ledger.store.reading import head
from projections.rebuild import rebuild

if TYPE_CHECKING:
    from consumers.kafka.dead_letters import Place

Id = Annotated[str, typer.Argument(metavar="ID", help="As the list has it.")]


class StillDeadError(LedgerError):
    """It was set going again, and could not be handled this time either."""

    code = "still_dead"


def dead_letters_app() -> typer.Typer:
    """Return the commands about what could not be handled."""
    app = typer.Typer(no_args_is_help=False, rich_markup_mode=None)
    app.callback(invoke_without_command=True)(list_)
    app.command("show")(show)
    app.command("replay")(replay)
    app.command("drop")(drop)
    return app


def list_(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option(help=f"Only these: {', '.join(KINDS)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many of a kind.")] = 50,
    json: Json = False,
) -> None:
    """List what a consumer could not handle: requests, streams of read models, Kafka's records."""
    if context.invoked_subcommand is not None:
        return
    wanted = next((each for each in KINDS if each == kind), None)
    if kind is not None and wanted is None:
        raise InvalidRequestError("kind", f"is one of {', '.join(KINDS)}")
    with opened() as ledger, ledger.pool.connection() as connection:
        found = dead_letters(connection, limit, wanted)
    if json:
        print_json(found)
    else:
        _print(found)
    if any(sum(each.kind == kind for each in found) == limit for kind in KINDS):
        notes().print("there may be more: --limit")


def _print(found: list[DeadLetter]) -> None:
    print_table(
        "dead letters",
        (ID, "consumer", "about", "position", "why", "since (UTC)", "behind", "attempts"),
        [
            (
                each.id,
                each.consumer,
                each.about,
                each.position,
                each.code,
                "" if each.since is None else f"{each.since:%Y-%m-%d %H:%M}",
                each.behind,
                each.attempts,
            )
            for each in found
        ],
    )


def show(id_: Id, json: Json = False) -> None:
    """Show one whole: the words of its error, and what could not be handled as it stands there."""
    with opened() as ledger, ledger.pool.connection() as connection:
        found = _found(find(connection, typed(id_, "id")), id_)
    if json:
        print_json(found)
        return
    letter = found.letter
    told = {
        "id": letter.id,
        "consumer": letter.consumer,
        "about": letter.about,
        "why": letter.code,
        "words": found.words,
        "attempts": letter.attempts,
        "since": letter.since,
        **found.details,
    }
    for name, value in as_json(told).items():
        if value is not None:
            text = value if isinstance(value, str) else json_text(value)
            console().print(f"{name}: {text}", markup=False, soft_wrap=True)


def replay(
    id_: Id,
    as_: As = None,
    decider: Annotated[
        int | None,
        typer.Option(help="A request by this version of the decider; by default that in force."),
    ] = None,
    json: Json = False,
) -> None:
    """Set one going again; it comes to the list anew where it cannot be handled still.

    A request is decided after all, with what waits behind it: for an administrator (--as). The read
    model of a stream is made again from the log, which takes as long as guishu rebuild for one. A
    record is read again, and nothing follows from that: the log has what it may have said.
    """
    with opened() as ledger:
        with ledger.pool.connection() as connection:
            _found(find(connection, typed(id_, "id")), id_)
        name = named(id_)
        if name is None:
            raise AssertionError("what was found has a name")
        if name.kind == "request":
            told = _replay_request(ledger, int(name.parts[0]), as_, decider)
        elif name.kind == "stream":
            told = _replay_stream(ledger, id_, name)
        else:
            told = _replay_record(ledger, name)
    _tell(id_, told, json=json)


def _replay_request(ledger: Ledger, position: int, as_: str | None, decider: int | None) -> str:
    version = ledger.recording.organisation().decider if decider is None else decider
    set_free(ledger, position, version, as_)
    with ledger.pool.connection() as connection:
        again = find(connection, f"request:{position}")
    if again is not None:
        raise StillDeadError(
            f"Version {version} of the decider cannot decide the request at {position}, either"
            f" ({again.letter.code}).",
            way_out="Upgrade guishu to a version that can, and replay it again.",
        )
    return f"the request at {position} was decided by version {version} of the decider"


def _replay_stream(ledger: Ledger, id_: str, name: Named) -> str:
    mine = [each for each in ledger.projections if each.name == name.parts[0]]
    if not mine:
        raise resolve.NotFoundError(
            f"This guishu has no read model {name.parts[0]}.",
            way_out="Replay it with the version of guishu that keeps it.",
        )
    with progress_bar("rebuilding") as told, ledger.pool.connection() as connection:
        top = head(connection)
        rebuild(
            lambda: ledger.dedicated("rebuild"),
            mine,
            ledger.catalogue,
            lambda position: told(position, top),
        )
        again = find(connection, id_)
    if again is not None:
        raise StillDeadError(
            f"{name.parts[0]} cannot apply {name.parts[1]} from {again.letter.position} on, either"
            f" ({again.letter.code}).",
            way_out="Upgrade guishu to a version that can, and replay it again.",
        )
    return f"the read model {name.parts[0]} is made again, and has the stream"


def _replay_record(ledger: Ledger, name: Named) -> str:
    from consumers.kafka.dead_letters import read_again  # takes a while, and few need it
    from consumers.kafka.records import Mark

    with ledger.pool.connection() as connection:
        read = read_again(connection, _place(name))
    if read is None:
        return "it is off the list already"
    if isinstance(read, Mark):
        return f"it can be read now: a mark up to position {read.upto}"
    return f"it can be read now: position {read.event.position}, which the log has"


def drop(id_: Id, json: Json = False) -> None:
    """Forget a record that is none of guishu's, and hear of it no more, however often it is met.

    Nothing is lost: the log is in the database. Requests and streams cannot be dropped.
    """
    name = named(id_)
    if name is None or name.kind != "record":
        raise InvalidRequestError("id", "only a record can be dropped; replay what else there is")
    from consumers.kafka.dead_letters import drop as forget

    with opened() as ledger, ledger.pool.connection() as connection:
        if not forget(connection, _place(name)):
            _found(None, id_)
    _tell(id_, "it is dropped", json=json)


def _place(name: Named) -> Place:
    from consumers.kafka.dead_letters import Place  # takes a while, and few need it

    topic, partition, offset = name.parts
    return Place(topic, int(partition), int(offset))


def _found(whole: Whole | None, id_: str) -> Whole:
    if whole is None:
        raise resolve.NotFoundError(
            f"There is no dead letter {id_}.", way_out="guishu dead-letters lists those that are."
        )
    return whole


def _tell(id_: str, told: str, *, json: bool) -> None:
    if json:
        print_json({"id": id_, "told": told})
    else:
        console().print(told, markup=False, soft_wrap=True)
