"""The checker against histories that are right, and against each way in which one can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.soak.checker import RULES, violations
from tests.soak.history import Entry, History, Operation, history, told

A, B, HEAD = "per_a", "per_b", "per_head"
CUSTOMER = "cus_1"


def demanded(requester: str, receiver: str) -> Sequence[frozenset[str]]:
    """The head agrees, then the receiver, unless it was the receiver who asked."""
    steps = (frozenset({HEAD}), frozenset({receiver}))
    return steps if requester != receiver else steps[:1]


def asked(position: int, version: int, name: str, actor: str, **data: Any) -> Entry:
    return Entry(
        position,
        f"customer-{CUSTOMER}",
        version,
        name,
        actor,
        f"req_{position}",
        data={"customer": CUSTOMER, **data},
    )


def ruled(
    position: int, version: int, name: str, cause: int, ordinal: int = 0, **data: Any
) -> Entry:
    return Entry(
        position,
        f"ownership-{CUSTOMER}",
        version,
        name,
        causation=cause,
        ordinal=ordinal,
        data={"customer": CUSTOMER, **data},
    )


LOG = [
    asked(1, 1, "RegistrationRequested", HEAD),
    ruled(2, 1, "CustomerAdmitted", 1),
    asked(3, 2, "ClaimFiled", A, claimant=A),
    asked(4, 3, "ClaimFiled", B, claimant=B),
    ruled(5, 2, "OwnershipGranted", 3, owner=A),
    ruled(6, 3, "ClaimRefused", 4, claimant=B),
    asked(7, 4, "TransferRequested", A, transfer="tra_1", receiver=B),
    ruled(8, 4, "ApprovalOpened", 7, approval="tra_1", requester=A, receiver=B, owner=A),
    asked(9, 5, "ApprovalGiven", HEAD, approval="tra_1"),
    ruled(10, 5, "StepAnswered", 9, approval="tra_1", person=HEAD, agreed=True),
    ruled(11, 6, "StepOpened", 9, 1, approval="tra_1"),
    asked(12, 6, "ApprovalGiven", B, approval="tra_1"),
    ruled(13, 7, "StepAnswered", 12, approval="tra_1", person=B, agreed=True),
    ruled(14, 8, "OwnershipTransferred", 12, 1, approval="tra_1", owner=B, former_owner=A),
    ruled(15, 9, "ApprovalClosed", 12, 2, approval="tra_1", outcome="completed"),
    asked(16, 7, "ReleaseRequested", B),
    ruled(17, 10, "OwnershipReleased", 16, owner=B),
]


def write(kind: Any, number: int, at: float, **more: Any) -> Operation:
    """A write that was answered, with the request's position as its decision's cause."""
    given: dict[str, Any] = {
        "client": 1,
        "kind": kind,
        "customer": CUSTOMER,
        "person": A,
        "invoked": at,
        "returned": at + 0.5,
        "outcome": "acknowledged",
        "request_id": f"req_{number}",
        "position": number,
    }
    return Operation(**{**given, **more})


def read(at: float, position: int, owner: str | None, version: int, **more: Any) -> Operation:
    given = {"request_id": None, "owner": owner, "version": version, "returned": at + 0.04, **more}
    return write("read", position, at, **given)


def unknown(kind: Any, position: int, at: float, **more: Any) -> Operation:
    given = {"returned": None, "outcome": "unknown", "position": None, **more}
    return write(kind, position, at, **given)


OPERATIONS = [
    write("claim", 3, 1.0, decisions=((5, "OwnershipGranted"),), is_refused=False, based_on=1),
    write("claim", 4, 1.0, client=2, person=B, decisions=((6, "ClaimRefused"),), is_refused=True),
    read(2.0, 6, A, 3, min_position=6),
    write("transfer", 7, 3.0, receiver=B),
    # Nobody knows whether it was recorded, until it is repeated and gets its first answer.
    unknown("approve", 9, 4.0, person=HEAD, approval="tra_1"),
    write("approve", 9, 4.6, person=HEAD, approval="tra_1", decisions=((10, "StepAnswered"),)),
    unknown("approve", 12, 6.0, person=B, approval="tra_1"),
    unknown("claim", 99, 6.5),
    write("claim", 98, 6.5, outcome="not_recorded", position=None, based_on=2),
    read(6.9, 12, A, 6),
    read(6.95, 12, B, 6),
    write("release", 16, 7.0, person=B, decisions=((17, "OwnershipReleased"),), is_refused=False),
    read(8.0, 17, None, 7, min_position=17),
]


def found(operations: Sequence[Operation], log: Sequence[Entry]) -> list[str]:
    return [each.rule for each in violations(history(operations, log), demanded)]


def test_a_right_history_is_found_right() -> None:
    assert violations(history(OPERATIONS, LOG), demanded) == []


@dataclass(frozen=True)
class Wrong:
    """A way in which a history is wrong: what is changed of the right one, and what finds it."""

    rule: str
    change: Callable[[list[Operation], list[Entry]], None]


def of_log(at: int, **changed: Any) -> Callable[[list[Operation], list[Entry]], None]:
    def change(operations: list[Operation], log: list[Entry]) -> None:
        index = next(number for number, each in enumerate(log) if each.position == at)
        data = changed.get("data", {})
        log[index] = replace(log[index], **{**changed, "data": {**log[index].data, **data}})

    return change


def of_operation(number: int, **changed: Any) -> Callable[[list[Operation], list[Entry]], None]:
    def change(operations: list[Operation], log: list[Entry]) -> None:
        operations[number] = replace(operations[number], **changed)

    return change


def without(*positions: int) -> Callable[[list[Operation], list[Entry]], None]:
    """Take events out of the log, which closes up behind them."""

    def change(operations: list[Operation], log: list[Entry]) -> None:
        log[:] = [each for each in log if each.position not in positions]

    return change


def more_log(*entries: Entry) -> Callable[[list[Operation], list[Entry]], None]:
    return lambda operations, log: log.extend(entries)


def more(*operations: Operation) -> Callable[[list[Operation], list[Entry]], None]:
    return lambda known, log: known.extend(operations)


def both(
    *changes: Callable[[list[Operation], list[Entry]], None],
) -> Callable[[list[Operation], list[Entry]], None]:
    def change(operations: list[Operation], log: list[Entry]) -> None:
        for each in changes:
            each(operations, log)

    return change


WRONG = {
    "a gap in the positions": Wrong("positions_are_dense", without(2)),
    "a position twice": Wrong("positions_are_dense", of_log(6, position=5)),
    "a version twice": Wrong("versions_are_contiguous", of_log(6, version=2)),
    "a version left out": Wrong("versions_are_contiguous", of_log(17, version=11)),
    "a request that nobody decided": Wrong("each_is_decided_once", without(17)),
    "a request that was decided twice": Wrong(
        "each_is_decided_once", more_log(ruled(18, 11, "ClaimRefused", 4, claimant=B))
    ),
    "decisions out of their order": Wrong(
        "each_is_decided_once", both(of_log(10, ordinal=1), of_log(11, ordinal=0))
    ),
    "decisions apart from one another": Wrong(
        "each_is_decided_once",
        both(of_log(11, position=0), of_log(12, position=11), of_log(0, position=12)),
    ),
    "a decision in front of its request": Wrong("each_is_decided_once", of_log(5, causation=7)),
    "two owners": Wrong(
        "nobody_owns_beside_another",
        of_log(6, name="OwnershipGranted", data={"owner": B}),
    ),
    "taken from somebody else": Wrong(
        "nobody_owns_beside_another", of_log(14, data={"former_owner": HEAD})
    ),
    "released by nobody": Wrong("nobody_owns_beside_another", of_log(17, data={"owner": A})),
    "granted to another than the claimant": Wrong(
        "ownership_follows_from_requests", of_log(5, data={"owner": B})
    ),
    "released at the wish of another": Wrong(
        "ownership_follows_from_requests", of_log(16, actor=A)
    ),
    "moved before the receiver agreed": Wrong(
        "transfers_are_approved", of_log(13, name="StepOpened", data={"agreed": False})
    ),
    "moved without the head": Wrong("transfers_are_approved", of_log(10, data={"person": B})),
    "an approval counted that was not given": Wrong(
        "transfers_are_approved", of_log(9, name="ApprovalDenied")
    ),
    "an approval counted that somebody else gave": Wrong(
        "transfers_are_approved", of_log(9, actor=A)
    ),
    "an approval counted that was for something else": Wrong(
        "transfers_are_approved", of_log(9, data={"approval": "tra_0"})
    ),
    "approved by who asked for it": Wrong(
        "transfers_are_approved", of_log(8, data={"requester": HEAD})
    ),
    "moved to another than was approved": Wrong(
        "transfers_are_approved", of_log(8, data={"receiver": HEAD})
    ),
    "moved without an opening": Wrong("transfers_are_approved", of_log(8, name="Noted")),
    "moved after it was closed": Wrong(
        "transfers_are_approved", of_log(11, name="ApprovalClosed", data={"outcome": "expired"})
    ),
    "an acknowledged request that is lost": Wrong(
        "acknowledged_is_in_the_log", more(write("claim", 18, 9.0))
    ),
    "another request at the position that was named": Wrong(
        "acknowledged_is_in_the_log", of_operation(0, position=4)
    ),
    "another decision than was told": Wrong(
        "acknowledged_is_in_the_log", of_operation(0, decisions=((5, "ClaimRefused"),))
    ),
    "told as refused what was granted": Wrong(
        "acknowledged_is_in_the_log", of_operation(0, is_refused=True)
    ),
    "another version than it was based on": Wrong(
        "acknowledged_is_in_the_log", of_operation(0, based_on=0)
    ),
    "a repetition with another answer": Wrong(
        "acknowledged_is_in_the_log", of_operation(5, position=12)
    ),
    "another receiver than was asked for": Wrong(
        "acknowledged_is_in_the_log", of_operation(3, receiver=HEAD)
    ),
    "a request that is there twice": Wrong(
        "each_request_is_there_whole_or_not_at_all", of_log(12, request_id="req_9")
    ),
    "an unknown one that was recorded otherwise": Wrong(
        "each_request_is_there_whole_or_not_at_all", of_operation(6, approval="tra_2")
    ),
    "a request of nobody": Wrong("nobody_else_has_asked", of_log(16, request_id="req_made_up")),
    "recorded, though the answer was no": Wrong(
        "refused_has_changed_nothing", of_operation(11, outcome="not_recorded", position=None)
    ),
    "refused, and granted all the same": Wrong(
        "refused_has_changed_nothing", of_log(11, name="AnswerNotCounted")
    ),
    "asked for after an answer that names a later position": Wrong(
        "real_time_order_holds", both(of_operation(0, invoked=1.6), of_operation(1, returned=1.5))
    ),
    "an unknown one in front of what was answered before it": Wrong(
        "real_time_order_holds", of_operation(6, invoked=7.6)
    ),
    "a read of less than was asked for": Wrong(
        "reads_show_what_was_so", of_operation(2, min_position=7)
    ),
    "a read of an owner of before": Wrong("reads_show_what_was_so", of_operation(12, owner=B)),
    "a read of what nobody had asked for yet": Wrong(
        "reads_show_what_was_so", of_operation(9, owner=None)
    ),
    "a read of less than another has shown": Wrong(
        "reads_never_go_back", more(read(8.5, 15, B, 6))
    ),
    "a read with the version of another position": Wrong(
        "reads_show_what_was_so", of_operation(2, version=4)
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(name: str) -> None:
    operations, log = list(OPERATIONS), list(LOG)
    WRONG[name].change(operations, log)
    assert WRONG[name].rule in found(operations, log)


def test_behind_a_crash_the_read_models_may_begin_a_little_before() -> None:
    operations = [*OPERATIONS, read(8.5, 15, B, 6)]
    assert violations(history(operations, LOG, [(8.1, 8.4)]), demanded) == []
    assert found(operations, LOG) == ["reads_never_go_back"]


def test_each_rule_has_been_seen_to_fail() -> None:
    assert {each.__name__ for each in RULES} == {each.rule for each in WRONG.values()}


def test_a_finding_is_told_with_what_concerns_its_customer_alone() -> None:
    other = asked(18, 1, "ClaimFiled", A)
    whole = History(tuple(OPERATIONS), (*LOG, replace(other, stream="customer-cus_2")))
    text = told(whole, CUSTOMER)
    assert text.count("\n  ") == len(OPERATIONS) + len(LOG)
    assert "cus_2" not in text
