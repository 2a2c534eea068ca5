"""``guishu bench``: all measurements in one run, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from api.bench import enforcer, hand_over, http, kafka, projections, store, whatif
from api.bench.harness import (
    BenchServer,
    Measure,
    bench_server,
    describe_machine,
    to_document,
    to_table,
)
from api.bench.load import load_tool
from consumers.kafka import fetching
from ledger.errors import LedgerError


class UnknownMeasureError(LedgerError):
    """What was to be measured has no name that is known."""

    code = "unknown_measure"


def suites(*, small: bool) -> dict[str, Callable[[BenchServer], list[Measure]]]:
    """Return what can be measured, by name; ``small`` takes a tenth of the sizes."""
    enforcing = (
        enforcer.Scale(claims=20_000, customers=10_000, reps=100, single_claims=100)
        if small
        else enforcer.Scale()
    )
    storing = (
        store.Scale(
            seconds=1,
            rounds=3,
            old_snapshot_rounds=1,
            old_snapshot_appends=50_000,
            bulk_events=10_000,
            read_events=50_000,
        )
        if small
        else store.Scale()
    )
    projecting = (
        projections.Scale(
            events=100_000,
            more_events=400_000,
            customers=10_000,
            people=100,
            look_up_events=100_000,
            few_look_up_events=1_000,
            look_ups=1_000,
            rounds=3,
            single_claims=100,
        )
        if small
        else projections.Scale()
    )
    deciding_again = (
        whatif.Scale(requests=20_000, customers=5_000, reps=100) if small else whatif.Scale()
    )
    handing_over = hand_over.Scale(customers=5_000) if small else hand_over.Scale()
    serving = (
        http.Scale(
            seconds=4,
            rounds=3,
            customers=5_000,
            events=100_000,
            paged_events=20_000,
            subscribers=100,
            decisions=100,
        )
        if small
        else http.Scale()
    )
    following = (
        kafka.Scale(
            claims=enforcer.Scale(claims=3_000, customers=3_000),
            rounds=1,
            paced_seconds=3,
            events=20_000,
            records=10_000,
        )
        if small
        else kafka.Scale()
    )
    return {
        "store": lambda server: store.measure(server, storing),
        "enforcer": lambda server: enforcer.measure(server, enforcing),
        "projections": lambda server: projections.measure(server, projecting),
        "what-if": lambda server: whatif.measure(server, deciding_again),
        "hand-over": lambda server: hand_over.measure(server, handing_over),
        "http": lambda server: http.measure(server, serving),
        "kafka": lambda server: kafka.measure(server, following),
    }


def run_all(only: Sequence[str], *, small: bool, output: Path) -> None:
    """Measure what ``only`` names (everything where it is empty); write ``output``."""
    names = suites(small=small)
    unknown = [each for each in only if not any(each in name for name in names)]
    if unknown:
        raise UnknownMeasureError(
            f"No measure has {' or '.join(unknown)} in its name.",
            way_out=f"There are {', '.join(names)}.",
        )
    chosen = [name for name in names if not only or any(each in name for each in only)]
    if "http" in chosen:
        # Before an hour of other measures, and not behind it.
        load_tool()
    if "kafka" in chosen:
        fetching.java()
        fetching.libraries()
    console = Console()
    folder = output.parent
    measures: list[Measure] = []
    with bench_server(folder) as server:
        machine = describe_machine(server, folder, "asyncio")
        for name in chosen:
            console.print(f"measuring the {name} …", markup=False)
            found = names[name](server)
            measures += found
            console.print(to_table(found))
    output.write_text(json.dumps(to_document(machine, measures), indent=2), encoding="utf-8")
    console.print(f"written to {output}", markup=False)
