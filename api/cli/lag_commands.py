"""How far everything that follows the log has come: for people, and for what watches over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.context import Json, console, notes, opened, print_json, print_table
from api.lag import Lag, count_requests, lags
from api.settings import Settings
from ledger.commands import InvalidRequestError
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from consumers.kafka.groups import GroupLag

_BEHIND = 4


def lag(
    consumer: Annotated[
        list[str] | None, typer.Option(help="Only this consumer; several times for several.")
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(min=0, help="End with status 4 where anything waits for more seconds."),
    ] = None,
    json: Json = False,
) -> None:
    """Show of every consumer and partition how far it has come, what is left, and since when.

    With KAFKA_BOOTSTRAP also what groups of consumers have committed of this ledger's topics.
    """
    with opened() as ledger, ledger.pool.connection() as connection:
        found = count_requests(connection, lags(connection, ledger.settings.kafka_topic_prefix))
        settings = ledger.settings
    if consumer:
        found = replace(found, consumers=_named(found.consumers, consumer))
    groups = None if consumer else _groups(settings)
    if json:
        print_json(
            {"at": found.at, "head": found.head, "consumers": found.consumers} | {"groups": groups}
        )
    else:
        _print(found.head, found.consumers, groups)
    late = [
        each for each in found.consumers if fail_above is not None and each.seconds > fail_above
    ]
    if late:
        names = ", ".join(_name(each) for each in late)
        notes().print(f"behind by more than {fail_above:g} s: {names}", markup=False)
        raise typer.Exit(_BEHIND)


def _named(consumers: Sequence[Lag], wanted: Sequence[str]) -> list[Lag]:
    known = {each.consumer for each in consumers}
    for each in wanted:
        if each not in known:
            listed = ", ".join(sorted(known))
            raise InvalidRequestError("consumer", f"there is no {each!r}; there are {listed}")
    return [each for each in consumers if each.consumer in wanted]


def _groups(settings: Settings) -> list[GroupLag] | None:
    """Return what groups have committed; None where there is no Kafka, or it does not answer."""
    if settings.kafka_bootstrap is None:
        return None
    from api.kafka import cluster_of, quiet_client
    from consumers.kafka.groups import group_lags

    try:
        with quiet_client():
            return group_lags(cluster_of(settings))
    except LedgerError as error:
        notes().print(f"{error.code}: {error}\n{error.way_out}", markup=False, soft_wrap=True)
        return None


def _print(head: int, consumers: Sequence[Lag], groups: Sequence[GroupLag] | None) -> None:
    print_table(
        f"the log ends at position {head}",
        ("consumer", "partition", "reached", "left", "waiting", "since (UTC)", "for"),
        [
            (
                each.consumer,
                each.partition,
                each.reached,
                each.left,
                f"{each.waiting:,} {each.kind}" if each.waiting else "",
                "" if each.oldest is None else f"{each.oldest:%Y-%m-%d %H:%M:%S}",
                "" if each.oldest is None else str(timedelta(seconds=round(each.seconds))),
            )
            for each in consumers
        ],
    )
    if groups is not None:
        console().print()
        print_table(
            "committed to Kafka",
            ("group", "topic", "partition", "committed", "end", "left"),
            [
                (each.group, each.topic, each.partition, each.committed, each.end, each.left)
                for each in groups
            ],
        )


def _name(lag: Lag) -> str:
    return lag.consumer if lag.partition is None else f"{lag.consumer} {lag.partition}"
