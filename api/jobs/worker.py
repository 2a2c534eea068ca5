"""Doing jobs: a thread of every process that serves, which takes one after the other.

The lease is renewed beside the work, by a thread of its own, which also hears that a job is to be
cancelled. The work itself asks at every step of its progress whether it is to go on.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from psycopg_pool import PoolTimeout

from api.bootstrap import Ledger
from api.jobs import importing, table, what_if
from api.jobs.holding import Cancelled, Holding, Lost, Stopped
from api.jobs.table import Job
from api.plain import as_json
from ledger import ids
from ledger.errors import LedgerError

_log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
_TIDY_SECONDS = 3_600.0
# Of these nothing is the job's fault; it is tried again when its lease has ended.
_PASSING = frozenset({"busy", "store_unavailable", "outcome_unknown", "not_followed", "fenced"})

Doing = Callable[[Ledger, Job, Holding], Any]
DOING: Mapping[str, Doing] = {"import": importing.do, "what_if": what_if.do}


class GivenUpError(LedgerError):
    """A job has ended the process of one worker after the other."""

    code = "given_up"

    def __init__(self) -> None:
        super().__init__(
            f"The job was begun {table.ATTEMPTS_MAX} times, and never came to its end.",
            way_out="Tell whoever runs this ledger; the log of its processes has the details.",
        )


class Worker:
    """Does jobs beside the block; a context manager."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        doing: Mapping[str, Doing] = DOING,
        lease_seconds: float = table.LEASE_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._doing = doing
        self._lease_seconds = lease_seconds
        self._name = f"{socket.gethostname()}-{os.getpid()}-{ids.new_id('wrk')}"
        self._stop = threading.Event()
        self._asked = threading.Event()
        self._thread = threading.Thread(target=self._work, name="guishu-jobs", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; the job at hand goes on where it was, in another process or at the next start."""
        self._stop.set()
        self._asked.set()
        self._thread.join()

    def wake(self) -> None:
        """Have it look for jobs at once."""
        self._asked.set()

    # --- the thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        tidied = -_TIDY_SECONDS
        while not self._stop.is_set():
            self._asked.clear()
            try:
                if time.monotonic() - tidied >= _TIDY_SECONDS:
                    with self._ledger.pool.connection() as connection:
                        table.drop_old_files(connection)
                    tidied = time.monotonic()
                if self._take_and_do():
                    continue
            except (psycopg.OperationalError, PoolTimeout) as error:
                _log.warning("jobs: the database is away: %s", str(error).partition("\n")[0])
            except LedgerError as error:
                _log.warning("jobs: %s: %s", error.code, error)
            except Exception:
                # A defect at one job; the others must go on. Its lease ends, and counts.
                _log.exception("jobs: a defect")
            self._asked.wait(LOOK_SECONDS)

    def _take_and_do(self) -> bool:
        with self._ledger.pool.connection() as connection:
            job = table.take(connection, self._name, self._lease_seconds)
        if job is None:
            return False
        holding = Holding(self._name, job.cancelling, self._stop)
        with self._renewing(job, holding):
            self._do(job, holding)
        return True

    def _do(self, job: Job, holding: Holding) -> None:
        state: table.State = "done"
        result: Any = None
        fault: LedgerError | None = None
        try:
            if job.attempts > table.ATTEMPTS_MAX:
                raise GivenUpError
            holding.tell("begun", 0, 0)
            result = self._doing[job.kind](self._ledger, job, holding)
        except Lost:
            _log.warning("job %s is done by another worker now", job.job)
            return
        except Stopped:
            with self._ledger.pool.connection() as connection:
                table.give_back(connection, job.job, self._name)
            return
        except Cancelled:
            state = "cancelled"
        except LedgerError as error:
            if error.code in _PASSING and job.attempts < table.ATTEMPTS_MAX:
                raise
            state, fault = "failed", error
        except (psycopg.OperationalError, PoolTimeout):
            raise
        except Exception:
            _log.exception("job %s: a defect", job.job)
            state, fault = "failed", _defect()
        with self._ledger.pool.connection() as connection:
            table.end(
                connection,
                job.job,
                self._name,
                state,
                holding.progress,
                result=as_json(result),
                error=None if fault is None else _told(fault),
            )

    @contextmanager
    def _renewing(self, job: Job, holding: Holding) -> Iterator[None]:
        """Renew the lease beside the block, and hear of what the job's row says."""
        over = threading.Event()

        def renew() -> None:
            renewed = time.monotonic()
            while not over.wait(self._lease_seconds / 20):
                try:
                    with self._ledger.pool.connection() as connection:
                        cancelling = table.renew(
                            connection, job.job, self._name, self._lease_seconds, holding.progress
                        )
                except (psycopg.Error, PoolTimeout):
                    if time.monotonic() - renewed > self._lease_seconds:
                        holding.lost = True
                    continue
                renewed = time.monotonic()
                holding.lost = cancelling is None
                holding.cancelling = bool(cancelling)

        thread = threading.Thread(target=renew, name="guishu-job-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _told(error: LedgerError) -> dict[str, str]:
    return {
        "code": error.code,
        "sentence": _storable(str(error)),
        "way_out": _storable(error.way_out),
    }


def _storable(text: str) -> str:
    """Return a text without what no JSON of the database holds; files may hold anything."""
    return text.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()


def _defect() -> LedgerError:
    error = LedgerError(
        "This is a defect of guishu.",
        way_out="Tell whoever runs this ledger; its log has the details.",
    )
    error.code = "defect"
    return error
