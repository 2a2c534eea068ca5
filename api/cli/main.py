"""The entry point of the command line, and how errors are told."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from functools import cache

import psycopg
import typer

from api.cli import (
    approval_commands,
    calendar_commands,
    collaboration_commands,
    conflict_commands,
    dead_letter_commands,
    due_commands,
    four_eyes_commands,
    hand_over_commands,
    kafka_commands,
    lag_commands,
    operations,
    orphan_commands,
    people_commands,
    policy_commands,
    read_commands,
    role_commands,
    territory_commands,
    token_commands,
    what_if_commands,
    write_commands,
)
from api.cli.context import notes
from api.settings import load_settings
from ledger.errors import LedgerError


def make_app() -> typer.Typer:
    """Return the command line with all its commands."""
    app = typer.Typer(
        name="guishu",
        help="guishu 归属: who owns a customer, who owned it, and why.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.command("run")(operations.run)
    app.command("run-kafka")(kafka_commands.run_kafka)
    app.command("serve")(operations.serve)
    app.command("relay")(role_commands.relay)
    app.command("enforce")(role_commands.enforce)
    app.command("project")(role_commands.project)
    app.command("clock")(role_commands.clock)
    app.add_typer(kafka_commands.topics_app(), name="topics")
    app.command("lag")(lag_commands.lag)
    app.add_typer(kafka_commands.generations_app(), name="generations")
    app.command("migrate")(operations.migrate)
    app.command("init")(operations.init)
    app.command("import")(operations.import_)
    app.command("register")(write_commands.register)
    app.command("change")(write_commands.change)
    app.command("customers")(read_commands.customers)
    app.command("whois")(read_commands.whois)
    app.command("history")(read_commands.history)
    app.command("claim")(write_commands.claim)
    app.command("release")(write_commands.release)
    app.command("assign")(write_commands.assign)
    app.command("transfer")(approval_commands.transfer)
    app.command("withdraw")(approval_commands.withdraw)
    app.command("approve")(approval_commands.approve)
    app.command("refuse")(approval_commands.refuse)
    app.command("inbox")(approval_commands.inbox)
    app.command("transfers")(approval_commands.transfers)
    app.command("hand-over")(hand_over_commands.hand_over)
    app.command("hand-overs")(hand_over_commands.hand_overs)
    app.command("due")(due_commands.due)
    app.add_typer(collaboration_commands.collaborate_app(), name="collaborate")
    app.command("conflicts")(conflict_commands.conflicts)
    app.command("rule")(conflict_commands.rule)
    app.command("review")(conflict_commands.review)
    app.add_typer(due_commands.recycle_app(), name="recycle")
    app.add_typer(orphan_commands.orphans_app(), name="orphans")
    app.command("follow-up")(write_commands.follow_up)
    app.command("deal")(write_commands.deal)
    app.add_typer(people_commands.people_app(), name="people")
    app.add_typer(territory_commands.territories_app(), name="territories")
    app.add_typer(policy_commands.policy_app(), name="policy")
    app.add_typer(four_eyes_commands.proposals_app(), name="proposals")
    app.command("adopt")(four_eyes_commands.adopt)
    app.command("four-eyes")(four_eyes_commands.four_eyes)
    app.add_typer(calendar_commands.calendar_app(), name="calendar")
    app.add_typer(token_commands.token_app(), name="token")
    app.command("what-if")(what_if_commands.what_if)
    app.command("events")(operations.events)
    app.command("rebuild")(operations.rebuild)
    app.command("verify")(operations.verify)
    app.command("unpark")(operations.unpark)
    app.add_typer(dead_letter_commands.dead_letters_app(), name="dead-letters")
    app.command("bench")(operations.bench)
    app.command("doctor")(operations.doctor)
    app.command("settings")(operations.settings)
    return app


@cache
def command() -> Callable[[], object]:
    """Return what runs the command line; made once, for that takes longer than many a command."""
    return typer.main.get_command(make_app())


def run() -> None:
    """Run the command line; errors end with status 1 and say what to do."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows its number, rather than end the command
        # after what it asked for was recorded.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        command()()
    except LedgerError as error:
        notes().print(f"{error.code}: {error}\n{error.way_out}", markup=False, soft_wrap=True)
        sys.exit(1)
    except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable):
        notes().print(
            "read_models_outdated: A read model is not of this version of guishu.\n"
            "Run guishu rebuild; guishu doctor says which it is.",
            markup=False,
            soft_wrap=True,
        )
        sys.exit(1)
    except psycopg.OperationalError as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        notes().print(
            f"store_unavailable: The database does not answer: {first_line}\n{_way_to_database()}",
            markup=False,
            soft_wrap=True,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _way_to_database() -> str:
    """Return what to do where the database does not answer."""
    if load_settings().database_url is not None:
        return "See that it runs, and that DATABASE_URL is right (guishu settings)."
    return (
        "Give the command again, which starts the embedded server; what was recorded is kept. "
        "Then guishu doctor looks for trouble."
    )
