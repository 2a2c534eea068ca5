"""Commands about Kafka. kafka-python is imported where it is needed: that takes a while."""

from __future__ import annotations

import typer

from api.cli.context import Json, console, print_json, print_table
from api.settings import load_settings


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
