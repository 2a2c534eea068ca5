"""Jobs: asked for once, done by whoever is there, and never lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api.bootstrap import Ledger
from api.jobs import table
from api.jobs.holding import Holding
from api.jobs.table import Asked, Job, TooManyJobsError
from api.jobs.worker import Worker
from ledger.errors import BusyError, LedgerError, RequestReusedError
from tests.support.database import DatabaseUrls
from tests.support.processes import start, wait_until

Work = Callable[[Ledger, Job, Holding], Any]
ASKED = Asked("what_if", "person:per_1", "per_1", False, "key-1", b"d" * 32, {"since": "then"})


def ask(
    ledger: Ledger, key: str = "key-1", files: Iterable[tuple[str, list[bytes]]] = (), **more: Any
) -> Job:
    with ledger.pool.connection() as connection:
        job, _ = table.ask(connection, replace(ASKED, request_id=key, **more), files)
    return job


def look(ledger: Ledger, job: Job) -> Job:
    with ledger.pool.connection() as connection:
        found = table.find(connection, job.job)
    assert found is not None
    return found


def until(ledger: Ledger, job: Job, *states: str) -> Job:
    wait_until(lambda: look(ledger, job).state in states)
    return look(ledger, job)


def working(ledger: Ledger, work: Work, lease_seconds: float = 20) -> Worker:
    return Worker(ledger, doing={"what_if": work}, lease_seconds=lease_seconds)


def answering(ledger: Ledger, job: Job, holding: Holding) -> Any:
    holding.tell("counting", 3, 4)
    return {"since": job.parameters["since"], "attempts": job.attempts}


def endless(ledger: Ledger, job: Job, holding: Holding) -> Any:
    while True:
        holding.tell("half", 1, 2)
        threading.Event().wait(0.01)


def test_a_job_is_done_and_keeps_its_result(ledger: Ledger) -> None:
    job = ask(ledger)
    assert (job.state, job.began, job.result) == ("waiting", None, None)
    with working(ledger, answering):
        done = until(ledger, job, "done")
    assert done.result == {"since": "then", "attempts": 1}
    assert (done.progress, done.done, done.total) == ("counting", 3, 4)
    assert done.began is not None
    assert done.ended is not None
    assert done.error is None


def test_the_same_key_again_gets_the_first_job(ledger: Ledger) -> None:
    job = ask(ledger, files=[("uploaded:a", [b"1"])])
    assert ask(ledger, files=[("uploaded:a", [b"1"])]) == job
    with pytest.raises(RequestReusedError):
        ask(ledger, digest=b"e" * 32)
    assert ask(ledger, caller="person:per_2").job != job.job


def test_two_who_ask_at_once_under_one_key_get_one_job(ledger: Ledger) -> None:
    gate = threading.Barrier(4)
    got: list[str] = []

    def one() -> None:
        gate.wait()
        got.append(ask(ledger).job)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(got) == 4
    assert len(set(got)) == 1


def test_nobody_has_more_than_some_jobs_under_way(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [ask(ledger, f"key-{each}") for each in range(table.OPEN_OF_CALLER_MAX)]
    with pytest.raises(TooManyJobsError):
        ask(ledger, "key-more", [("uploaded:a", [b"1"])])
    # What was asked for before is answered all the same.
    assert ask(ledger, "key-0") == jobs[0]
    monkeypatch.setattr(table, "OPEN_MAX", len(jobs))
    with pytest.raises(BusyError):
        ask(ledger, "key-1", caller="person:per_2")
    with ledger.pool.connection() as connection:
        table.cancel(connection, jobs[0].job)
        assert table.file_names(connection, jobs[0].job) == []
    assert ask(ledger, "key-more").state == "waiting"


def test_a_job_that_waits_is_cancelled_at_once_with_what_was_uploaded(ledger: Ledger) -> None:
    job = ask(ledger, files=[("uploaded:a", [b"1", b"2"])])
    with ledger.pool.connection() as connection:
        assert list(table.pieces_of(connection, job.job, "uploaded:a")) == [b"1", b"2"]
        table.cancel(connection, job.job)
        assert table.file_names(connection, job.job) == []
    assert look(ledger, job).state == "cancelled"
    later = ask(ledger, "key-2")
    with working(ledger, answering):
        until(ledger, later, "done")
    assert look(ledger, job).state == "cancelled"


def test_a_job_that_runs_is_cancelled_and_the_next_one_is_done(ledger: Ledger) -> None:
    first = ask(ledger)

    def work(ledger: Ledger, job: Job, holding: Holding) -> Any:
        return (endless if job.job == first.job else answering)(ledger, job, holding)

    with working(ledger, work, lease_seconds=1):
        wait_until(lambda: look(ledger, first).progress == "half")
        with ledger.pool.connection() as connection:
            table.cancel(connection, first.job)
            table.cancel(connection, first.job)
        ended = until(ledger, first, "cancelled")
        assert (ended.done, ended.total, ended.result) == (1, 2, None)
        second = ask(ledger, "key-2")
        until(ledger, second, "done")


def test_whoever_is_stopped_lets_another_go_on(ledger: Ledger) -> None:
    job = ask(ledger)
    with working(ledger, endless):
        until(ledger, job, "running")
    left = look(ledger, job)
    assert (left.state, left.attempts) == ("waiting", 0)
    with working(ledger, answering):
        until(ledger, job, "done")


def test_a_job_survives_the_killing_of_its_process(
    ledger: Ledger, database: DatabaseUrls, tmp_path: Path
) -> None:
    job = ask(ledger, files=[("uploaded:a", [b"1"])])
    module = "tests.api.jobs.working_process"
    process = start(sys.executable, "-m", module, database.service_url, tmp_path)
    try:
        wait_until(lambda: look(ledger, job).progress == "half")
        process.kill()
    finally:
        process.wait()
    assert look(ledger, job).state == "running"
    with working(ledger, answering):
        assert until(ledger, job, "done").result["attempts"] == 2


def test_whoever_has_lost_a_job_writes_nothing_of_it_any_more(ledger: Ledger) -> None:
    job = ask(ledger, files=[("uploaded:a", [b"1"])])
    nothing = ("", 0, 0)
    with ledger.pool.connection() as connection:
        taken = table.take(connection, "first", 0)
        assert taken is not None
        assert taken.job == job.job
        again = table.take(connection, "second", 60)
        assert again is not None
        assert again.attempts == 2
        assert table.take(connection, "third", 60) is None
        assert table.renew(connection, job.job, "first", 60, nothing) is None
        assert table.renew(connection, job.job, "second", 60, nothing) is False
        table.put_file(connection, job.job, "first", table.REJECTS, [b"old"])
        table.give_back(connection, job.job, "first")
        assert not table.end(connection, job.job, "first", "failed", nothing)
        assert table.file_names(connection, job.job) == ["uploaded:a"]
        table.put_file(connection, job.job, "second", table.REJECTS, [b"one", b"two"])
        table.put_file(connection, job.job, "second", table.REJECTS, [b"new"])
        assert table.end(connection, job.job, "second", "done", nothing, result={})
        assert table.file_names(connection, job.job) == [table.REJECTS]
        assert list(table.pieces_of(connection, job.job, table.REJECTS)) == [b"new"]
    assert look(ledger, job).state == "done"


def test_a_worker_whose_lease_went_to_another_stops(ledger: Ledger) -> None:
    job = ask(ledger)
    stopped = threading.Event()

    def work(ledger: Ledger, job: Job, holding: Holding) -> Any:
        try:
            return endless(ledger, job, holding)
        finally:
            stopped.set()

    with working(ledger, work, lease_seconds=2):
        until(ledger, job, "running")
        with ledger.pool.connection() as connection:
            connection.execute(
                "UPDATE api.jobs SET worker = 'other', lease_until = 'infinity' WHERE job = %s",
                (job.job,),
            )
        assert stopped.wait(60)
    assert look(ledger, job).state == "running"


def test_a_job_that_ends_every_process_is_given_up(ledger: Ledger) -> None:
    job = ask(ledger)
    with ledger.pool.connection() as connection:
        for number in range(table.ATTEMPTS_MAX):
            assert table.take(connection, f"dead-{number}", 0) is not None
    with working(ledger, answering):
        failed = until(ledger, job, "failed")
    assert failed.error is not None
    assert failed.error["code"] == "given_up"


def test_an_error_ends_a_job_and_a_defect_does_and_the_others_are_done(ledger: Ledger) -> None:
    class RefusedError(LedgerError):
        code = "file_refused"

    def work(ledger: Ledger, job: Job, holding: Holding) -> Any:
        match job.request_id:
            case "refused":
                raise RefusedError("\0\ud800 cannot be read.", way_out="Save it again.")
            case "defect":
                raise ZeroDivisionError
            case _:
                return {}

    jobs = [ask(ledger, each) for each in ("refused", "defect", "good")]
    with working(ledger, work):
        refused, defect, _ = [until(ledger, each, *table.OVER) for each in jobs]
    assert (refused.state, refused.error) == (
        "failed",
        {
            "code": "file_refused",
            "sentence": "\\u0000\\ud800 cannot be read.",
            "way_out": "Save it again.",
        },
    )
    assert defect.error is not None
    assert (defect.state, defect.error["code"]) == ("failed", "defect")
    assert look(ledger, jobs[2]).state == "done"


def test_what_a_job_made_goes_some_weeks_later(ledger: Ledger, database: DatabaseUrls) -> None:
    jobs = [ask(ledger, each) for each in ("old", "new")]
    with ledger.pool.connection() as connection:
        for job in jobs:
            assert table.take(connection, "me", 60) is not None
            table.put_file(connection, job.job, "me", table.REJECTS, [b"x"])
            table.end(connection, job.job, "me", "done", ("", 0, 0))
    with psycopg.connect(database.owner_url) as owner:
        owner.execute(
            "UPDATE api.jobs SET ended = ended - interval '31 days' WHERE job = %s", (jobs[0].job,)
        )
    with working(ledger, answering), ledger.pool.connection() as connection:
        wait_until(lambda: table.file_names(connection, jobs[0].job) == [])
        assert table.file_names(connection, jobs[1].job) == [table.REJECTS]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE api.jobs SET parameters = '{}'",
        "UPDATE api.jobs SET caller = 'person:per_2'",
        "DELETE FROM api.jobs",
        "UPDATE api.job_files SET content = ''",
        "TRUNCATE api.jobs CASCADE",
    ],
)
def test_the_service_changes_nothing_of_what_was_asked(ledger: Ledger, statement: str) -> None:
    ask(ledger)
    with (
        ledger.pool.connection() as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())
