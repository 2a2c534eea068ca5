"""Clients that do what the plan says over HTTP, and write down each operation as it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from tests.soak.history import Kind, Operation
from tests.soak.plan import CLIENTS, Plan, Step

ANSWER_SECONDS_MAX = 3.0
# Without a server there is nothing to do but to come back.
_REFUSED_SECONDS = 0.1


@dataclass
class Office:
    """What all clients know: where the ledger is, who is there, and what was acknowledged.

    Client 0 is the one that looks when all is over.
    """

    address: str
    customers: Sequence[str]
    people: Sequence[str]
    tokens: Mapping[str, str]
    head: str
    began: float = field(default_factory=time.monotonic)
    _operations: list[Operation] = field(default_factory=list)
    _owners: dict[str, str | None] = field(default_factory=dict)
    _acknowledged: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> float:
        """Return the instant by the clock of all clients."""
        return time.monotonic() - self.began

    @property
    def acknowledged(self) -> int:
        """The highest position that any answer has told of."""
        with self._lock:
            return self._acknowledged

    def write_down(self, operation: Operation) -> None:
        """Keep an operation that is over."""
        told = [operation.position or 0, *(position for position, _ in operation.decisions)]
        with self._lock:
            self._operations.append(operation)
            self._acknowledged = max(self._acknowledged, *told)
            if operation.is_read and operation.outcome == "acknowledged":
                self._owners[operation.customer] = operation.owner
            elif "OwnershipGranted" in (name for _, name in operation.decisions):
                self._owners[operation.customer] = operation.person

    def last_owner(self, customer: str) -> str | None:
        """Return who was the owner when anybody learned of it last."""
        with self._lock:
            return self._owners.get(customer)

    @property
    def operations(self) -> list[Operation]:
        """What was written down so far."""
        with self._lock:
            return list(self._operations)


class Client:
    """One client; used by one thread."""

    def __init__(self, office: Office, number: int, http: httpx.Client) -> None:
        self._office = office
        self._number = number
        self._http = http
        self._requests = 0
        self._versions: dict[str, int] = {}

    def do(self, step: Step) -> None:
        """Do a step, and what belongs to it."""
        customer = self._office.customers[step.customer]
        person = self._office.people[step.person]
        if step.as_owner and step.kind in ("release", "transfer"):
            person = self._office.last_owner(customer) or person
        match step.kind:
            case "read":
                self.read(customer, person, is_fresh=step.is_fresh)
            case "approve" | "refuse":
                self._answer(step, customer)
            case _:
                self._write(step, customer, person)

    def read(self, customer: str, person: str, *, is_fresh: bool) -> Operation:
        """Ask whose a customer is; ``is_fresh``: by no less than was acknowledged to anybody."""
        least = self._office.acknowledged if is_fresh else 0
        asked = Operation(
            self._number,
            *("read", customer, person, self._office.now(), None, "unknown"),
            min_position=least,
        )
        answer = self._call(
            person, "GET", f"/v1/customers/{customer}/ownership", params={"min_position": least}
        )
        done = _told(asked, answer, self._office.now())
        if done.outcome == "acknowledged" and answer is not None and answer.is_success:
            done = replace(
                done,
                position=int(answer.headers["Ledger-Position"]),
                version=int(answer.headers["ETag"].strip('"')),
                owner=answer.json()["owner"],
            )
            self._versions[customer] = done.version or 0
        self._office.write_down(done)
        return done

    def follow_up(self, customer: str, wait_seconds: int) -> Operation:
        """Note a follow-up of the head, once; its decision stands behind all that was asked."""
        asked = self._asked("follow_up", customer, self._office.head)
        return self._send(
            asked, f"/v1/customers/{customer}/follow-ups", {"note": "soak"}, wait_seconds
        )

    # --- writing -------------------------------------------------------------------------------

    def _write(self, step: Step, customer: str, person: str) -> None:
        receiver = self._office.people[step.receiver]
        version = self._versions.get(customer) if step.by_version else None
        asked = self._asked(step.kind, customer, person, based_on=version)
        match step.kind:
            case "claim":
                self._repeat(step, asked, "/v1/claims", {"customer": customer})
            case "release":
                self._repeat(step, asked, f"/v1/customers/{customer}/release", {})
            case _:
                body = {"customer": customer, "receiver": receiver, "reason_code": "workload"}
                self._repeat(step, replace(asked, receiver=receiver), "/v1/transfers", body)

    def _answer(self, step: Step, customer: str) -> None:
        """Answer what awaits approval, as one of those who are asked or as somebody else."""
        head = self._office.head
        filters = {"customer": customer, "status": "open", "limit": 1}
        answer = self._call(head, "GET", "/v1/transfers", params=filters)
        if answer is None or not answer.is_success or not answer.json()["items"]:
            return
        (found,) = answer.json()["items"]
        person = self._office.people[step.person]
        if step.as_owner and found["awaits"]:
            person = found["awaits"][0]
        asked = self._asked(step.kind, customer, person)
        asked = replace(asked, approval=found["approval"])
        self._repeat(step, asked, f"/v1/approvals/{found['approval']}/{step.kind}", {})

    def _asked(
        self, kind: Kind, customer: str, person: str, *, based_on: int | None = None
    ) -> Operation:
        self._requests += 1
        return Operation(
            self._number,
            *(kind, customer, person, self._office.now(), None, "unknown"),
            request_id=f"soak-{self._number}-{self._requests}",
            based_on=based_on,
        )

    def _repeat(self, step: Step, asked: Operation, path: str, body: dict[str, Any]) -> None:
        """Send a request, and again with the same key where nobody knows what became of it."""
        for _ in range(1 + step.repeated):
            done = self._send(asked, path, body, step.wait_seconds)
            if done.outcome != "unknown":
                return
            asked = replace(asked, invoked=self._office.now())

    def _send(
        self, asked: Operation, path: str, body: dict[str, Any], wait_seconds: int
    ) -> Operation:
        headers = {"Idempotency-Key": asked.request_id or "", "Prefer": f"wait={wait_seconds}"}
        if asked.based_on is not None:
            headers["If-Match"] = f'"{asked.based_on}"'
        answer = self._call(asked.person, "POST", path, json=body, headers=headers)
        done = _told(asked, answer, self._office.now())
        if answer is not None and answer.is_success:
            done = _decided(done, answer.json())
        self._office.write_down(done)
        return done

    def _call(
        self,
        person: str,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response | None:
        """Call as somebody; None where no answer came."""
        given = {"Authorization": f"Bearer {self._office.tokens[person]}", **(headers or {})}
        try:
            return self._http.request(method, path, headers=given, **more)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            time.sleep(_REFUSED_SECONDS)
            return httpx.Response(_NOT_SENT)
        except httpx.TransportError:
            return None


# No status of HTTP: the request has not left the client.
_NOT_SENT = 0


def _told(asked: Operation, answer: httpx.Response | None, now: float) -> Operation:
    """Return an operation with what its answer says of its outcome."""
    if answer is None:
        return replace(asked, said="no answer")
    if answer.is_success:
        return replace(asked, returned=now, outcome="acknowledged")
    if answer.status_code == _NOT_SENT:
        return replace(asked, returned=now, outcome="not_recorded", said="not sent")
    said = f"{answer.status_code} {answer.json().get('code')}"
    # Of 5xx nobody says that nothing was recorded.
    is_known = answer.status_code < 500
    return replace(
        asked, returned=now, outcome="not_recorded" if is_known else "unknown", said=said
    )


def _decided(done: Operation, told: Mapping[str, Any]) -> Operation:
    """Return an operation with the position and the decisions that its answer names."""
    status = told["status"]
    is_refused = None if status == "pending" else status == "refused"
    if done.kind == "claim":
        name = {"granted": "OwnershipGranted", "refused": "ClaimRefused"}.get(status)
        decisions: tuple[tuple[int, str], ...]
        decisions = ((told["decided_position"], name),) if name else ()
        position = told["claim"]
    else:
        decisions = tuple(
            (each["position"], each["name"].partition(".")[0]) for each in told["decisions"]
        )
        position = told["request"]
    return replace(done, position=position, decisions=decisions, is_refused=is_refused, said=status)


@contextmanager
def client(office: Office, number: int) -> Iterator[Client]:
    """Open a client."""
    with httpx.Client(base_url=office.address, timeout=ANSWER_SECONDS_MAX) as http:
        yield Client(office, number, http)


@contextmanager
def clients_at_work(office: Office, plan: Plan) -> Iterator[None]:
    """Let all clients work beside the block; raises what ended one of them."""
    over = threading.Event()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with client(office, number) as one:
                for step in plan.steps(number):
                    one.do(step)
                    if over.wait(step.pause_seconds):
                        return
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in range(1, CLIENTS + 1)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in threads:
            each.join()
    if failures:
        raise failures[0]
