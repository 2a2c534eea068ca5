"""Commands that run, look after and check the ledger."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from psycopg import Connection

from api import demo_today
from api import settings as settings_module
from api.bootstrap import Ledger, open_ledger
from api.cli import checks, resolve, summary
from api.cli.context import (
    As,
    Json,
    caller,
    console,
    json_text,
    notes,
    opened,
    origin,
    print_json,
    print_table,
    progress_bar,
)
from api.cli.policy_commands import must_be_a_decider
from api.database import open_database
from api.demo import close_demo, make_demo
from api.holidays import years_for
from api.imports import planning
from api.imports.driving import askers, checked, directory_of, document, file_plan
from api.imports.filing import Filed, Importer
from api.imports.mapping import load_mapping
from api.imports.planning import Plan, plan
from api.imports.rejects import copy_rejects, shown_text
from api.imports.report import Outcome, Report, report
from api.running import reflected, running, settle
from api.settings import load_settings, masked
from consumers.rebuilding import rebuild_guards
from ledger import commands
from ledger import organisation_commands as facts
from ledger.deciders import LATEST
from ledger.envelope import Event, decode
from ledger.errors import LedgerError, StoreUnavailableError
from ledger.recording import Asked
from ledger.store import migrations
from ledger.store.reading import head, read_after
from projections.rebuild import rebuild as rebuild_projections
from projections.runner import positions


class FoundedBeforeError(LedgerError):
    """The ledger is not empty: it has its organisation."""

    code = "founded_before"


# After a lost database it is tried again so often.
_LOST_SECONDS = 0.5
_SHOW_SECONDS = 0.2


def settings(json: Json = False) -> None:
    """Print the settings in force, secrets masked."""
    in_force = masked(load_settings())
    if json:
        print_json(in_force)
        return
    fields = settings_module.Settings.model_fields
    file = settings_module.settings_file()
    print_table(
        f"settings (environment, then {file or 'no file'}, then defaults)",
        ("name", "value", "what it is"),
        [(name, value, fields[name].description) for name, value in in_force.items()],
    )


def migrate() -> None:
    """Bring the database to this version's schema, as its owner."""
    with open_database(load_settings()) as database:
        applied = migrations.migrate(database.owner_url)
    for each in applied:
        console().print(f"applied {each.number:04d} {each.name}", markup=False)
    if not applied:
        console().print("nothing to do: every migration is applied")


def init(
    name: Annotated[str, typer.Argument(help="The organisation's name.")],
    administrator: Annotated[str, typer.Argument(help="The name of the first administrator.")],
    time_zone: Annotated[str, typer.Option(help="IANA name.")] = "Asia/Shanghai",
    second_administrator: Annotated[
        str | None,
        typer.Option(
            help="The name of another one. What decides over others, such as policies and roles,"
            " is then proposed by one and adopted by the other (four eyes)."
        ),
    ] = None,
) -> None:
    """Found the organisation of an empty ledger, with its first administrator."""
    others = [second_administrator] if second_administrator else []
    with opened() as ledger:
        already = ledger.recording.organisation().name
        if already is not None:
            raise FoundedBeforeError(
                f"This ledger is that of {already} already.",
                way_out="Name another GUISHU_DATA_DIRECTORY or DATABASE_URL for a new one.",
            )
        _found(ledger, name, [administrator, *others], time_zone)
        settle(ledger)
    out = console()
    if others:
        out.print(
            f"{name} is founded; {administrator} and {others[0]} are its administrators",
            markup=False,
        )
        out.print("four eyes are required: what one proposes, the other puts in force")
        return
    out.print(f"{name} is founded; {administrator} is its administrator", markup=False)
    out.print(
        "four eyes are not required: policies and roles are put in force by one person alone, until"
        " guishu four-eyes on",
        soft_wrap=True,
    )


def _found(ledger: Ledger, name: str, administrators: Sequence[str], time_zone: str) -> str:
    """Found the organisation; return the id of the first administrator."""
    stated: list[facts.FactCommand] = [
        commands.parse(facts.FoundOrganisation, {"name": name, "time_zone": time_zone})
    ]
    for each in administrators:
        fields = {"name": each, "roles": ["admin", "manager"]}
        stated.append(commands.parse(facts.AddPerson, fields))
    stated.append(facts.RequireFourEyes(required=len(administrators) > 1))
    stated.append(facts.AdoptDecider(version=LATEST))
    stated += years_for(time_zone, datetime.now(UTC).date())
    recorded = ledger.recording.record_facts(stated, origin("setup"))
    return recorded[1].about or ""


# --- running ------------------------------------------------------------------------------------


def run(
    demo: Annotated[bool, typer.Option("--demo", help="Make a demo organisation first.")] = False,
) -> None:
    """Run the ledger: decide and project what is recorded, and show it as it happens."""
    ended = threading.Event()

    def end(*_: object) -> None:
        ended.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    began = time.monotonic()
    # To make all routes takes as long as everything else that a command begins with.
    from api.cli.http_commands import serving_beside, show_address

    with open_ledger(load_settings()) as ledger:
        fresh = demo and make_demo_first(ledger)
        with running(ledger, clock_too=True) as service, serving_beside(ledger, end) as address:
            _patiently(ledger, ended, partial(_wait_for_reflection, ledger, ended))
            if ended.is_set():
                return
            seconds = time.monotonic() - began
            state = "made" if fresh else "in place"
            notes().print(f"ready in {seconds:.1f} s; the ledger's data are {state}")
            _patiently(ledger, ended, partial(summary.show, ledger, try_these=True))
            if address is not None:
                _patiently(ledger, ended, partial(show_address, ledger, address, demo=demo))
            _show_events(ledger, ended, service.stop)
        notes().print("stopped: everything that was recorded is kept")


def serve() -> None:
    """Serve HTTP alone; ``guishu run`` does so too, beside deciding and projecting."""
    from api.cli.http_commands import serve_alone

    serve_alone()


def _patiently(ledger: Ledger, ended: threading.Event, show: Callable[[], None]) -> None:
    """Show something, once the database is there; the embedded one is not waited for."""
    while not ended.is_set():
        try:
            show()
        except (psycopg.OperationalError, StoreUnavailableError):
            # Enforcer and projector say that they lost it, and try again as well. The embedded
            # server is started by whoever comes next, which nobody does who stays.
            if ledger.database.embedded:
                raise
            ended.wait(_LOST_SECONDS)
        else:
            return


def make_demo_first(ledger: Ledger) -> bool:
    """Make the demo where the ledger is empty, or finish one that was cut off; say whether."""
    organisation = ledger.recording.organisation()
    if organisation.name is not None and not any(
        each.name == "demo-history" and not each.closed for each in organisation.imports()
    ):
        return False
    notes().print("making a demo organisation with three months of history …")
    now = summary.demo_now(ledger)
    made = make_demo(ledger.recording, now)
    settle(ledger)
    close_demo(ledger.recording, made)
    demo_today.play(ledger, made, now)
    return True


def _wait_for_reflection(ledger: Ledger, ended: threading.Event) -> None:
    """Wait until the read models are made, and reflect all that is there."""
    with ledger.pool.connection() as connection:
        target = head(connection)
        while not ended.wait(0.05):
            if reflects(ledger, connection, target):
                return


def reflects(ledger: Ledger, connection: Connection[Any], target: int) -> bool:
    """Say whether the read models are made, and show what was decided up to this position."""
    names = {each.name for each in ledger.projections}
    _, decided, projected = reflected(connection)
    return names <= positions(connection).keys() and min(decided, projected) >= target


def _show_events(ledger: Ledger, ended: threading.Event, failed: threading.Event) -> None:
    """Show events until one of both is set; a database that restarts is waited for."""
    after: int | None = None
    names: resolve.Names | None = None
    while not (ended.is_set() or failed.is_set()):
        try:
            names = names or resolve.Names(ledger)
            if after is None:
                with ledger.dedicated("tail") as connection:
                    after = head(connection)
            for events in _follow(ledger, after, ended, failed):
                names.refresh()
                lines = "\n".join(summary.line(event, names) for event in events)
                console().print(lines, markup=False, soft_wrap=True)
                after = events[-1].position
        except psycopg.OperationalError:
            if ledger.database.embedded:
                raise
            ended.wait(_LOST_SECONDS)


def _follow(
    ledger: Ledger, after: int, ended: threading.Event, failed: threading.Event
) -> Iterator[list[Event]]:
    """Yield events behind ``after`` as they are projected, several at once; until ``ended``.

    People read them: where there are many, they come a few times a second and not one by one.
    """
    while not (ended.wait(_SHOW_SECONDS) or failed.is_set()):
        with ledger.pool.connection() as connection:
            _, _, projected = reflected(connection)
            stored = read_after(connection, after, 2_000, max(projected, after))
        if stored:
            yield [decode(ledger.catalogue, each) for each in stored]
            after = stored[-1].position


def events(
    after: Annotated[int, typer.Option(help="Begin behind this position.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as new ones come.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many (without --follow).")] = 50,
    customer: Annotated[str | None, typer.Option(help="Only of this customer.")] = None,
    json: Json = False,
) -> None:
    """Print the log, or follow it."""
    ended = threading.Event()
    with opened() as ledger:
        names = resolve.Names(ledger)
        wanted = resolve.customer(ledger, customer) if customer else None
        shown = 0
        with contextlib.suppress(KeyboardInterrupt):
            for event in _log(ledger, after, ended, follow=follow):
                if wanted is not None and getattr(event.data, "customer", None) != wanted:
                    continue
                if json:
                    sys.stdout.write(_json_line(ledger, event))
                    sys.stdout.flush()
                else:
                    console().print(summary.line(event, names), markup=False, soft_wrap=True)
                shown += 1
                if not follow and shown >= limit:
                    return


def _log(ledger: Ledger, after: int, ended: threading.Event, *, follow: bool) -> Iterator[Event]:
    while True:
        with ledger.pool.connection() as connection:
            stored = read_after(connection, after, 500)
        for each in stored:
            yield decode(ledger.catalogue, each)
            after = each.position
        if not stored:
            if not follow:
                return
            ended.wait(0.2)


def _json_line(ledger: Ledger, event: Event) -> str:
    document = {
        "position": event.position,
        "recorded": event.recorded,
        "stream": event.stream,
        "version": event.version,
        "name": event.name,
        **event.envelope,
        "data": ledger.catalogue.dump(event.data),
    }
    return json_text(document) + "\n"


# --- imports ------------------------------------------------------------------------------------


def import_(
    mapping: Annotated[Path, typer.Argument(help="The mapping: a TOML file (see examples/).")],
    folder: Annotated[Path, typer.Argument(help="The folder that holds the files.")],
    as_: As = None,
    rejects: Annotated[Path, typer.Option(help="Where the unusable rows are listed.")] = Path(
        "var/import-rejects.csv"
    ),
    check: Annotated[bool, typer.Option("--check", help="Only say what would be filed.")] = False,
    json: Json = False,
) -> None:
    """Import files by a mapping, with the historical actor and time."""
    read_mapping = load_mapping(mapping)
    now = datetime.now(UTC)
    with opened() as ledger, tempfile.TemporaryDirectory(prefix="guishu-import-") as workspace:
        organisation = ledger.recording.organisation()
        directory = directory_of(ledger, organisation, read_mapping, now)
        with (
            _reading() as told,
            plan(
                read_mapping,
                folder,
                Path(workspace),
                now=now,
                progress=told,
                directory=directory,
            ) as planned,
        ):
            if not json:
                _show_plan(planned)
            # Before anything is filed: where it cannot be written, nothing is.
            copy_rejects(planned.rejects_path, rejects)
            if check:
                _show_check(planned, rejects, json=json)
                return
            filed = _file(ledger, planned, as_)
            with ledger.pool.connection() as connection:
                brought = report(
                    connection,
                    ledger.catalogue,
                    ledger.recording.organisation(),
                    filed.import_ids,
                )
            copy_rejects(planned.rejects_path, rejects)
        _show_import(ledger, planned, filed, brought, rejects, json=json)


def _file(ledger: Ledger, planned: Plan, as_: str | None) -> Filed:
    organisation = ledger.recording.organisation()
    if organisation.name is None:
        # A new ledger may begin with an import: whoever runs it becomes its administrator.
        user = caller().removeprefix("cli:")
        actor = _found(ledger, planned.name, [user], planned.mapping.constants.time_zone)
        notes().print(
            f"the ledger was empty: {planned.name} is founded, {user} is its administrator",
            markup=False,
            soft_wrap=True,
        )
    else:
        before = _imported_before(ledger, planned.name) if as_ is None else None
        actor = before or resolve.actor(ledger, as_)
    importer = Importer(actor, caller(), "asserted")
    return file_plan(ledger, ledger.recording, planned, importer, progress_bar)


def _imported_before(ledger: Ledger, name: str) -> str | None:
    """Return who last imported under this mapping's name, if it was this user of the machine.

    So the very command that began an import, also on an empty ledger, can be given again.
    """
    organisation = ledger.recording.organisation()
    mine = [each for each in organisation.imports() if each.name == name]
    if not mine:
        return None
    with ledger.pool.connection() as connection:
        asked = askers(connection, ledger.catalogue, organisation, mine[-1:])
    opened_by = asked[mine[-1].import_id]
    return opened_by.actor if opened_by.caller == caller() else None


@contextlib.contextmanager
def _reading() -> Iterator[Any]:
    with progress_bar("reading") as told:

        def tell(progress: planning.Progress) -> None:
            told(progress.rows, progress.rows)

        yield tell


def _show_plan(planned: Plan) -> None:
    rows = [(file.file, f"{file.rows:,}", f"{file.rejects:,}") for file in planned.files]
    print_table(f"read by the mapping {planned.name}", ("file", "rows", "rejected"), rows)


def _show_check(planned: Plan, rejects: Path, *, json: bool) -> None:
    if json:
        print_json(checked(planned))
        return
    print_table(
        "what would be filed",
        ("what", "in the files", *_found_column(planned)),
        [
            (kind.replace("_", " "), f"{count:,}", *_found_in_ledger(planned, kind))
            for kind, count in planned.counts.items()
            if count or kind in planned.found
        ],
    )
    _show_rejects(planned.rejects, rejects)


def _found_column(planned: Plan) -> tuple[str, ...]:
    """Return the title for those of whom the files speak and whom others had brought, if any."""
    return ("found in the ledger",) if planned.found else ()


def _found_in_ledger(planned: Plan, kind: str) -> tuple[str, ...]:
    if not planned.found:
        return ()
    return (f"{planned.found[kind]:,}" if kind in planned.found else "",)


def _show_rejects(left_out: dict[str, int], rejects: Path) -> None:
    print_table(
        f"rows that could not be used: {sum(left_out.values()):,}"
        f" (listed in {shown_text(str(rejects))})",
        ("reason", "rows"),
        [(code, f"{count:,}") for code, count in sorted(left_out.items())],
    )


def _show_import(
    ledger: Ledger,
    planned: Plan,
    filed: Filed,
    brought: Report,
    rejects: Path,
    *,
    json: bool,
) -> None:
    if json:
        print_json(document(planned, filed, brought))
        return
    print_table(
        "what was filed",
        ("what", "in the files", "recorded now", "recorded before", *_found_column(planned)),
        [
            (
                kind.replace("_", " "),
                *(f"{each:,}" for each in (count, filed.recorded[kind], filed.known[kind])),
                *_found_in_ledger(planned, kind),
            )
            for kind, count in planned.counts.items()
            if count or kind in planned.found
        ],
    )
    names = resolve.Names(ledger)
    columns = [("all together", brought.total)]
    columns += [
        (names.territory(territory) if territory else "no territory", outcome)
        for territory, outcome in sorted(
            brought.by_territory.items(), key=lambda each: names.territory(each[0])
        )
    ]
    print_table(
        "what was decided, by the territory of whoever acted",
        ("", *(title for title, _ in columns)),
        list(_outcome_rows([outcome for _, outcome in columns])),
    )
    left_out = {**planned.rejects}
    for code, count in filed.refused.items():
        left_out[code] = left_out.get(code, 0) + count
    _show_rejects(left_out, rejects)
    if filed.check_digit_warnings:
        notes().print(
            f"{filed.check_digit_warnings:,} credit codes fail their check digit; "
            "they were taken as the files have them"
        )


def _outcome_rows(outcomes: list[Outcome]) -> Iterator[tuple[str, ...]]:
    def row(title: str, *numbers: int) -> tuple[str, ...]:
        return (title, *(f"{number:,}" for number in numbers))

    yield row("claims", *(each.claims for each in outcomes))
    yield row("  granted", *(each.granted for each in outcomes))
    for reason in sorted({reason for each in outcomes for reason in each.refused}):
        yield row(f"  refused: {reason}", *(each.refused[reason] for each in outcomes))
    yield row("ownerships ended", *(each.ended for each in outcomes))
    yield row("deals", *(each.deals for each in outcomes))
    yield row("  by people who did not own", *(each.deals_by_non_owners for each in outcomes))
    yield row("follow-ups", *(each.follow_ups for each in outcomes))
    yield row(
        "grants that today's limits refuse",
        *(each.grants_with_limits_waived for each in outcomes),
    )
    for reason in sorted({reason for each in outcomes for reason in each.limits_waived}):
        yield row(f"  {reason}", *(each.limits_waived[reason] for each in outcomes))
    if any(each.out_of_order for each in outcomes):
        yield row("older than the history", *(each.out_of_order for each in outcomes))


# --- looking after ------------------------------------------------------------------------------


def rebuild(
    only_guards: Annotated[
        bool, typer.Option("--guards", help="Make the enforcer's guards again from the log.")
    ] = False,
) -> None:
    """Make the read models again from the log, beside the live ones, and swap them."""
    with opened() as ledger:
        if only_guards:
            with ledger.dedicated("rebuild-guards") as connection:
                rebuild_guards(connection, ledger.catalogue)
            console().print("the guards are made again")
            return
        with progress_bar("rebuilding") as told, ledger.pool.connection() as connection:
            top = head(connection)
            rebuild_projections(
                lambda: ledger.dedicated("rebuild"),
                ledger.projections,
                ledger.catalogue,
                lambda position: told(position, top),
            )
        console().print("every read model is made again")


def verify(json: Json = False) -> None:
    """Decide the log again, rebuild every read model aside, and compare; names what differs."""
    with opened() as ledger:
        with progress_bar("verifying") as told:
            found = checks.verify(ledger, told)
        if json:
            print_json(found)
        else:
            for each in found.lines:
                console().print(each, markup=False)
    if not found.good:
        raise typer.Exit(4)


def unpark(
    position: Annotated[int, typer.Argument(help="The position of the parked request.")],
    decider: Annotated[int, typer.Option(help="The version of the decider to decide it with.")],
    as_: As = None,
) -> None:
    """Have a parked request decided after all, and those of its customer that waited behind it."""
    with opened() as ledger:
        set_free(ledger, position, decider, as_)
    console().print(f"the request at {position} was given to version {decider} of the decider")


def set_free(ledger: Ledger, position: int, decider: int, as_: str | None) -> None:
    """Have a parked request decided by a version of the decider, and wait until that is done.

    Raises InvalidRequestError, NotFoundError, NotPermittedError.
    """
    must_be_a_decider(decider, "decider")
    actor = resolve.actor(ledger, as_)
    customer = checks.customer_of_parked(ledger, position)
    command = commands.UnparkRequest(customer=customer, request=position, decider=decider)
    ledger.recording.record(Asked(command, origin(actor)))
    settle(ledger)


def doctor(json: Json = False) -> None:
    """Look for trouble, and say the way out: database, disk, lag, read models, what is parked."""
    with opened() as ledger:
        found = checks.examine(ledger)
    if json:
        print_json(found)
    else:
        mark = {True: "ok", False: "TROUBLE"}
        print_table(
            "doctor",
            ("", "what", "found"),
            [(mark[each.good], each.what, each.found) for each in found],
        )
        for each in found:
            if each.way_out:
                console().print(f"{each.what}: {each.way_out}", markup=False, soft_wrap=True)
    if not all(each.good for each in found):
        raise typer.Exit(4)


def bench(
    only: Annotated[list[str], typer.Option(help="Only the measures whose name has this.")] = [],  # noqa: B006 - typer copies it
    small: Annotated[bool, typer.Option("--small", help="A tenth of the sizes.")] = False,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path("var/bench.json"),
) -> None:
    """Measure, each figure beside its yardstick in one run; prints a table and writes JSON."""
    from api.bench.main import run_all

    run_all(only, small=small, output=output)
