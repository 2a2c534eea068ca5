"""What the routes work with: the parts of the HTTP interface, wired around an open ledger."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request, Response
from psycopg import Connection

from api.bootstrap import Ledger
from api.http.callers import Gate, TokenVerifier, Verifier
from api.http.decisions import Decisions
from api.http.directory import Directory
from api.http.intake import Intake
from api.http.oidc import Issuer, OidcVerifier
from api.http.reflection import Reflection
from api.http.rehearsing import Rehearsing
from api.http.tail import Tail
from api.http.throttle import Throttle
from api.jobs.worker import Worker
from api.settings import Settings
from ledger.recording import Recording

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """The parts of the HTTP interface of one process."""

    ledger: Ledger
    directory: Directory
    gate: Gate
    reflection: Reflection
    intake: Intake = field(repr=False)
    decisions: Decisions = field(repr=False)
    tail: Tail = field(repr=False)
    throttle: Throttle = field(repr=False)
    rehearsing: Rehearsing = field(repr=False)
    jobs: Worker = field(repr=False)

    def end_waits(self) -> None:
        """Let those go who follow the log, or wait for decisions: the server is to stop."""
        self.tail.end_all()
        self.decisions.end_waits()

    @contextmanager
    def reading(self, reads: Reads) -> Iterator[Connection[Any]]:
        """Give a connection whose read models reflect what the caller asks for, and say what.

        ``Ledger-Position`` is a position that all of them reflect. Raises NotReflectedError.
        """
        with self.reflection.reading(reads.min_position) as (connection, reached):
            reads.reached = reached
            reads.response.headers["Ledger-Position"] = str(reached)
            yield connection


@contextmanager
def open_services(ledger: Ledger) -> Iterator[Services]:
    """Wire the parts around an open ledger, and end them with the block."""
    connect = ledger.pool.connection
    # A recording is used by one thread at a time, and the intake's is one more.
    parts = (ledger.committer, connect, ledger.vault, ledger.catalogue)
    recording, rehearsing = Recording(*parts), Rehearsing(*parts)
    near, url = ledger.notifier, ledger.database.service_url
    with ExitStack() as stack:
        directory = stack.enter_context(Directory(connect, ledger.catalogue))
        gate = Gate(directory, (TokenVerifier(connect), *_issuers(ledger.settings, directory)))
        yield Services(
            ledger=ledger,
            directory=directory,
            gate=gate,
            reflection=Reflection(connect, [each.name for each in ledger.projections]),
            intake=stack.enter_context(Intake(recording)),
            decisions=stack.enter_context(Decisions(url, connect, ledger.catalogue, near)),
            tail=stack.enter_context(Tail(url, connect, near)),
            throttle=Throttle(ledger.settings.requests_per_second_max),
            rehearsing=rehearsing,
            jobs=stack.enter_context(Worker(ledger)),
        )


def _issuers(settings: Settings, directory: Directory) -> Iterator[Verifier]:
    """Yield the verifier of the issuer that the settings name, if they do."""
    if settings.oidc_issuer is not None and settings.oidc_audience is not None:
        issuer = Issuer(
            settings.oidc_issuer,
            settings.oidc_audience,
            settings.oidc_jwks_url,
            settings.oidc_claim,
            settings.oidc_system,
        )
        yield OidcVerifier(issuer, directory.organisation)


def services_of(request: Request) -> Services:
    """Return the parts that the application was made with."""
    services: Services = request.app.state.services
    return services


class Reads:
    """What a read is asked to reflect (``min_position``), and the answer's headers.

    ``reached`` is a position that it reflects, once it reads.
    """

    def __init__(
        self,
        response: Response,
        min_position: Annotated[
            int,
            Query(
                ge=0,
                description="Answer by no earlier position of the log than this one, such as that"
                " of an own write; waits for it for a moment.",
            ),
        ] = 0,
    ) -> None:
        self.response = response
        self.min_position = min_position
        self.reached = 0


def made_of(kind: Callable[..., T]) -> Callable[..., Awaitable[T]]:
    """Return a dependency that makes ``kind`` of what its constructor names.

    It is a coroutine, for FastAPI makes a class in another thread, at each request.
    """

    async def make(**given: Any) -> T:
        return kind(**given)

    make.__signature__ = inspect.signature(kind, eval_str=True)  # type: ignore[attr-defined]
    return make


async def _services(request: Request) -> Services:
    # A coroutine, for FastAPI runs anything else in another thread.
    return services_of(request)


InServices = Annotated[Services, Depends(_services)]
InReads = Annotated[Reads, Depends(made_of(Reads))]
