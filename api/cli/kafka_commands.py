"""Commands about Kafka. kafka-python is imported where it is needed: that takes a while."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.context import Json, caller, console, print_json, print_table, unopened
from api.settings import load_settings
from ledger.store.generations import Generation, read_generations

Position = Annotated[
    int, typer.Argument(help="Up to here everything is kept, as the refusal has named it.", min=0)
]
_COLUMNS = ("number", "from", "server", "timeline", "opened (UTC)", "put back", "given up")


def topics_app() -> typer.Typer:
    """Return the commands about topics."""
    app = typer.Typer(
        help="The topics of an Apache Kafka.", no_args_is_help=True, rich_markup_mode=None
    )
    app.command("apply")(apply)

    @app.callback()
    def topics() -> None:
        """Else a single command would be taken for the whole."""

    return app


def run_kafka(
    demo: Annotated[bool, typer.Option("--demo", help="Make a demo organisation first.")] = False,
) -> None:
    """Run every role as a process of its own, beside an Apache Kafka; until Ctrl-C.

    Kafka is the one that KAFKA_BOOTSTRAP names, else one that is fetched and started here.
    """
    from api.cli.running_kafka import run_roles

    run_roles(demo=demo)


def apply(json: Json = False) -> None:
    """Make the topics that are missing and put their settings in force, as often as you like.

    The number of partitions of a topic is never changed; where another one is asked for, nothing is
    done at all.
    """
    from api.kafka import cluster_of
    from consumers.kafka.topics import apply_topics

    settings = load_settings()
    done = apply_topics(
        cluster_of(settings), settings.kafka_partitions, settings.kafka_replication_factor
    )
    if json:
        print_json(done)
        return
    print_table(
        "topics",
        ("topic", "what was done", "partitions", "copies"),
        [(each.topic, each.did, each.partitions, each.copies) for each in done],
    )
    if any(each.copies < 3 for each in done):
        console().print(
            "with less than three copies a topic is lost with a broker's disk; it is filled again"
            " from the log, but subscribers wait meanwhile",
            soft_wrap=True,
        )


def generations_app() -> typer.Typer:
    """Return the commands about the generations of the log."""
    app = typer.Typer(
        help="Which server wrote what of the log, and what of it was given up.",
        invoke_without_command=True,
        rich_markup_mode=None,
    )
    app.callback()(generations)
    app.command("give-up")(give_up)
    return app


def generations(context: typer.Context, json: Json = False) -> None:
    """List which server wrote what of the log; works also where a start is refused.

    A lost tail that the topic holds is put back at the next start. What cannot be put back is given
    up with give-up.
    """
    if context.invoked_subcommand is not None:
        return
    with unopened() as connection:
        found = list(read_generations(connection))
    if json:
        print_json(found)
        return
    print_table("generations", _COLUMNS, [_row(each) for each in found])


def give_up(position: Position, json: Json = False) -> None:
    """Give up, for ever, all that was recorded behind POSITION and cannot be put back.

    For a server whose start was refused: what can be put back up to there is put back, and a
    generation is opened behind it. Who has been answered or told of what is given up will not find
    it. Whose command it was, and up to where something was known, stays on record.
    """
    from api.kafka import cluster_of
    from consumers.kafka.tail import give_up as give_up_behind

    cluster = cluster_of(load_settings())
    with unopened() as connection:
        opened = give_up_behind(connection, cluster, position, caller())
    if json:
        print_json(opened)
        return
    console().print(
        f"generation {opened.number} begins at position {opened.first_position}; {opened.put_back}"
        f" events were put back; given up is what was recorded {_given_up(opened)}",
        soft_wrap=True,
    )


def _row(each: Generation) -> tuple[object, ...]:
    opened = each.opened.isoformat(" ", "seconds")[:19] if each.opened else ""
    by = f"{_given_up(each)}, by {each.given_up_by}" if each.given_up_by is not None else ""
    put_back = each.put_back or ""
    return (each.number, each.first_position, each.system, each.timeline, opened, put_back, by)


def _given_up(each: Generation) -> str:
    """Return which positions were given up, in words."""
    if each.given_up_upto is None:
        return f"from position {each.first_position} on"
    return f"from position {each.first_position} to {each.given_up_upto}"
