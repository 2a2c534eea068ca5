"""Hand-overs through the real store: in parts, while others go on, killed and resumed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import orjson
import psycopg
import pytest
from psycopg import Connection

from consumers.checking import WouldWaitError, would_decide
from consumers.enforcer import Enforcer, EnforcerLimits
from consumers.feed import Batch, StoreFeed
from consumers.handing_over import UnderWayError
from consumers.rebuilding import compare_guards, rebuild_guards
from ledger import commands, reasons
from ledger import organisation_commands as facts
from ledger.deciders import LATEST, Decider, deciders
from ledger.envelope import Event
from ledger.events import decisions as d
from ledger.events.requests import HandOverRequested
from ledger.handing_over import PART_CUSTOMERS
from ledger.policy import Policy
from ledger.recording import Asked, Recorded
from ledger.store.migrations import shipped_migrations
from ledger.verification import verify_log
from tests.consumers.support import (
    catch_up,
    check,
    count,
    enforcing_process,
    wait_until_blocked,
)
from tests.ledger.test_verification import tampering
from tests.support.database import DatabaseUrls
from tests.support.ledgers import ADMINISTRATOR, TestLedger, open_test_ledger
from tests.support.processes import wait_until

PEOPLE = ["per_a", "per_b", "per_c"]
FREELY = Policy(
    daily_claim_limit=None,
    holding_limit=None,
    protection_days=0,
    cooldown_days=0,
    approval_rules=(),
    conflict_kinds=(),
)
MANY = 2 * PART_CUSTOMERS + 60


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    with open_test_ledger(database) as opened:
        opened.found(PEOPLE, FREELY)
        yield opened


def record(ledger: TestLedger, asked: list[tuple[Any, str]]) -> list[Recorded]:
    found = ledger.recording.record_many(
        [Asked(command, ledger.origin(actor)) for command, actor in asked]
    )
    assert all(isinstance(each, Recorded) for each in found), found
    return [each for each in found if isinstance(each, Recorded)]


def owning(ledger: TestLedger, count: int = MANY) -> list[str]:
    """Have per_a own so many customers, and return them in the order of their ids."""
    names = [f"客户{number}" for number in range(count)]
    asked = [(commands.RegisterCustomer(name=name, claim_for="per_a"), "per_a") for name in names]
    customers = sorted(each.customer for each in record(ledger, asked))
    ledger.decide()
    return customers


def order(ledger: TestLedger, **fields: Any) -> Recorded:
    given = {"giver": "per_a", "receivers": ("per_b",), **fields}
    return ledger.ask(commands.HandOver(**given), ADMINISTRATOR)


def leave(ledger: TestLedger, person: str = "per_a") -> None:
    gone = facts.MarkLeft.model_validate({"person": person, "left_on": "2026-01-01"})
    ledger.recording.record_fact(gone, ledger.origin())


def owners(ledger: TestLedger) -> Counter[str | None]:
    """Return who owns how many, by the log alone."""
    found: dict[str, str | None] = {}
    for event in ledger.log():
        if isinstance(event.data, d.OwnershipGranted | d.OwnershipTransferred):
            before = found.get(event.data.customer)
            former = getattr(event.data, "former_owner", None)
            assert before == former, "moved from somebody who did not own it"
            found[event.data.customer] = event.data.owner
        elif isinstance(event.data, d.OwnershipReleased):
            found[event.data.customer] = None
    return Counter(found.values())


def outcome(ledger: TestLedger, ordered: Recorded) -> Any:
    return ledger.decisions(ordered)[-1].data


@contextmanager
def small_parts() -> Iterator[None]:
    """Let a part be of three customers, for what decides, reads and decides again here."""
    with ExitStack() as stack:
        for module in (
            *("ledger.handing_over", "ledger.settled", "ledger.deciders.handing_over"),
            *("ledger.store.involved", "consumers.handing_over"),
        ):
            stack.enter_context(patch(f"{module}.PART_CUSTOMERS", 3))
        yield


class KilledError(Exception):
    """The process ends here."""


@dataclass
class KilledAfter:
    """Ends an enforcer after so many of its transactions."""

    transactions: int

    def __call__(self) -> None:
        self.transactions -= 1
        if not self.transactions:
            raise KilledError


def enforce(ledger: TestLedger, committed: Callable[[], None], **options: Any) -> None:
    with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
        feed = options.pop("feed", StoreFeed())
        enforcer = Enforcer(connection, feed, ledger.catalogue, committed=committed, **options)
        enforcer.start()
        enforcer.catch_up()


# --- the way through ---------------------------------------------------------------------------


def test_everything_moves_in_parts_and_is_decided_again_the_same(ledger: TestLedger) -> None:
    customers = owning(ledger)
    ordered = order(ledger)
    behind = ledger.claim(customers[0], "per_a")
    ledger.decide()
    assert owners(ledger) == {"per_b": MANY}
    decided = ledger.decisions(ordered)
    assert [each.ordinal for each in decided] == list(range(MANY + 3))
    assert [each.data.behind for each in decided if isinstance(each.data, d.HandOverAdvanced)] == [
        customers[PART_CUSTOMERS - 1],
        customers[2 * PART_CUSTOMERS - 1],
    ]
    assert outcome(ledger, ordered) == d.HandOverCompleted("per_a", ordered.made or "", MANY)
    assert {each.stream for each in decided} >= {"person-per_a", f"ownership-{customers[7]}"}
    (late,) = ledger.decisions(behind)
    assert late.data.reason == reasons.OWNED_BY_ANOTHER
    check(ledger)


def test_the_same_request_again_gets_the_first_answer(ledger: TestLedger) -> None:
    origin = ledger.origin()
    command = commands.HandOver(giver="per_a", receivers=("per_b",))
    first = ledger.recording.record(Asked(command, origin))
    again = ledger.recording.record(Asked(command, origin))
    assert again.repeated
    assert (again.customer, again.made) == ("per_a", first.made)
    assert first.made is not None
    assert first.made.startswith("hov_")


@pytest.mark.parametrize(
    "fields",
    [
        {"receivers": ("per_x",)},
        {"giver": "per_x"},
        {"territories": ("ter_x",)},
        {"customers": ("cus_x",)},
    ],
)
def test_what_nobody_knows_is_refused_at_the_door(
    ledger: TestLedger, fields: dict[str, Any]
) -> None:
    before = len(ledger.log())
    with pytest.raises(commands.UnknownIdError, match="There is no"):
        order(ledger, **fields)
    assert len(ledger.log()) == before


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"receivers": ("per_b", "per_c")}, "takes one receiver"),
        ({"receivers": ()}, "at least 1"),
        ({"receivers": ("per_a",)}, "giver cannot be a receiver"),
        ({"receivers": ("per_b", "per_b"), "plan": "spread"}, "named twice"),
        ({"customers": ("cus_1",), "territories": ("ter_1",)}, "either the customers"),
        ({"plan": "by_lot"}, "all_to_one"),
        ({"customers": tuple(f"cus_{n}" for n in range(1001))}, "at most 1000"),
    ],
)
def test_a_malformed_order_is_refused(fields: dict[str, Any], words: str) -> None:
    given = {"giver": "per_a", "receivers": ("per_b",), **fields}
    with pytest.raises(commands.InvalidRequestError, match=words):
        commands.parse(commands.HandOver, given)


def test_a_thousand_customers_can_be_named(ledger: TestLedger) -> None:
    owning(ledger, 3)
    names = [f"客户{number}" for number in range(997)]
    asked = [(commands.RegisterCustomer(name=name), "per_a") for name in names]
    record(ledger, asked)
    everyone = {each.data.customer for each in ledger.log() if each.name.startswith("Regis")}
    ordered = order(ledger, customers=tuple(everyone))
    ledger.decide()
    assert outcome(ledger, ordered).refused == {reasons.NOT_THE_GIVERS: 997}
    assert owners(ledger) == {"per_b": 3}
    check(ledger)


# --- killed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 2, 3])
def test_killed_between_two_parts_it_goes_on_at_the_next(ledger: TestLedger, after: int) -> None:
    owning(ledger)
    ordered = order(ledger)
    with pytest.raises(KilledError):
        enforce(ledger, KilledAfter(after))
    halfway = verify_log(ledger.connection, ledger.catalogue)
    assert halfway.good, list(halfway.lines())
    assert halfway.undecided == (list(ordered.positions) if after < 3 else [])
    assert compare_guards(ledger.connection, ledger.catalogue) == []
    ledger.decide()
    assert owners(ledger) == {"per_b": MANY}
    check(ledger)


def test_a_process_is_killed_at_work_and_another_goes_on(ledger: TestLedger) -> None:
    owning(ledger)
    ordered = order(ledger)
    with enforcing_process(ledger.urls) as process:
        assert process.ask("start").isdigit()
        process.tell("catch_up")
        advanced = "SELECT count(*) FROM ledger.events WHERE name = 'HandOverAdvanced.v1'"
        wait_until(lambda: count(ledger.urls, advanced) > 0)
        process.kill()
    assert verify_log(ledger.connection, ledger.catalogue).good
    ledger.decide()
    assert outcome(ledger, ordered).moved == MANY
    check(ledger)


def test_an_enforcer_that_is_to_stop_does_so_between_two_parts(ledger: TestLedger) -> None:
    owning(ledger)
    ordered = order(ledger)
    stop = threading.Event()
    with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
        enforcer = Enforcer(connection, StoreFeed(), ledger.catalogue, committed=stop.set)
        enforcer.start()
        enforcer.run(stop, stop.wait)
        assert enforcer.position < ordered.positions[0]
    assert len(ledger.decisions(ordered)) == PART_CUSTOMERS + 1
    ledger.decide()
    assert owners(ledger) == {"per_b": MANY}
    check(ledger)


def test_guards_made_again_in_the_middle_know_how_far_it_has_come(ledger: TestLedger) -> None:
    owning(ledger)
    order(ledger)
    with pytest.raises(KilledError):
        enforce(ledger, KilledAfter(1))
    with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
        rebuild_guards(connection, ledger.catalogue)
    assert compare_guards(ledger.connection, ledger.catalogue) == []
    ledger.decide()
    assert owners(ledger) == {"per_b": MANY}
    check(ledger)


def test_verify_misses_a_part_and_the_outcome(ledger: TestLedger) -> None:
    owning(ledger)
    ordered = order(ledger)
    ledger.decide()
    decided = ledger.decisions(ordered)
    first, second = (each for each in decided if isinstance(each.data, d.HandOverAdvanced))
    with tampering(ledger) as tampered:
        delete = "DELETE FROM ledger.events WHERE position > %s"
        tampered.execute(delete, second.position)
        assert tampered.found() == (ordered.positions[0], "undecided")
    with tampering(ledger) as tampered:
        tampered.execute(delete, second.position - 3)
        assert tampered.found() == (second.position - 2, "decision")
    assert second.position - first.position == PART_CUSTOMERS + 1


# --- others at work ----------------------------------------------------------------------------


@dataclass(frozen=True)
class PartOfTheFeed:
    """The requests of the streams that begin so: as one of several enforcers gets them."""

    streams: str

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        whole = StoreFeed().read(connection, after, limit)
        mine = [each for each in whole.requests if each.stream.startswith(self.streams)]
        return Batch(mine, whole.reached)


class Meanwhile:
    """A hand-over by one enforcer, and customers claimed and released by another between parts."""

    def __init__(self, ledger: TestLedger, count: int = MANY) -> None:
        self.ledger = ledger
        self.customers = owning(ledger, count)
        names = [f"新客户{number}" for number in range(5)]
        asked = [(commands.RegisterCustomer(name=name), "per_a") for name in names]
        self.free = [each.customer for each in record(ledger, asked)]
        ledger.decide()
        position = len(ledger.log())
        ledger.connection.execute(
            "INSERT INTO ledger.consumer_progress VALUES ('other', 0, 0, %s)", (position,)
        )

    def hand_over(self, between: Callable[[], None]) -> Recorded:
        """Order it, and have all that was asked meanwhile decided after each of its parts."""
        ordered = order(self.ledger)

        def committed() -> None:
            between()
            catch_up(self.ledger, feed=PartOfTheFeed("customer-"), consumer="other")

        enforce(self.ledger, committed, feed=PartOfTheFeed("person-"))
        return ordered


def test_customers_are_released_and_claimed_while_they_are_handed_over(
    ledger: TestLedger,
) -> None:
    meanwhile = Meanwhile(ledger)
    waves = [meanwhile.customers[number : number + 40] for number in (0, 200, 400)]
    fates: list[Recorded] = []

    def between() -> None:
        wave = waves.pop(0) if waves else []
        release = [(commands.ReleaseCustomer(customer=each), ADMINISTRATOR) for each in wave]
        claim = [
            (commands.FileClaim(customer=each, claimant="per_c"), "per_c") for each in wave[:20]
        ]
        if wave:
            fates.extend(record(ledger, [*release, *claim]))

    meanwhile.hand_over(between)
    held = owners(ledger)
    assert (held["per_c"], held[None], held["per_a"]) == (60, 60, 0)
    assert held["per_b"] == MANY - 120
    check(ledger)


def test_what_a_giver_who_is_there_claims_meanwhile_is_theirs_or_goes_along(
    ledger: TestLedger,
) -> None:
    meanwhile = Meanwhile(ledger)

    def between() -> None:
        if meanwhile.free:
            ledger.claim(meanwhile.free.pop(), "per_a")

    meanwhile.hand_over(between)
    held = owners(ledger)
    # Their ids are the newest: what is claimed in front of the last part is in it.
    assert held["per_a"] + held["per_b"] == MANY + 3
    assert held["per_a"] == 1
    check(ledger)


def test_what_a_leaver_had_asked_for_brings_nothing_once_the_first_part_is_done(
    ledger: TestLedger,
) -> None:
    """The claim stands in front of the leaving in the log, and is decided behind the first part."""
    meanwhile = Meanwhile(ledger)
    early = ledger.claim(meanwhile.free[0], "per_a")
    leave(ledger)
    meanwhile.hand_over(lambda: None)
    (refused,) = ledger.decisions(early)
    assert refused.data.reason == reasons.CLAIMANT_LEFT
    assert owners(ledger) == {"per_b": MANY}
    back = facts.MarkReturned.model_validate({"person": "per_a", "returned_on": "2026-01-02"})
    ledger.recording.record_fact(back, ledger.origin())
    again = ledger.claim(meanwhile.free[0], "per_a")
    catch_up(ledger, feed=PartOfTheFeed("customer-"), consumer="other")
    assert isinstance(ledger.decisions(again)[0].data, d.OwnershipGranted)
    check(ledger)


def test_a_policy_that_comes_into_force_in_the_middle_is_for_what_is_asked_behind_it(
    ledger: TestLedger,
) -> None:
    meanwhile = Meanwhile(ledger)
    strict = facts.AdoptPolicy(policy=Policy(holding_limit=0))
    ordered = meanwhile.hand_over(lambda: adopt(ledger, strict))
    assert outcome(ledger, ordered).moved == MANY
    behind = ledger.claim(meanwhile.free[0], "per_c")
    catch_up(ledger, feed=PartOfTheFeed("customer-"), consumer="other")
    assert ledger.decisions(behind)[0].data.reason == reasons.HOLDING_LIMIT
    check(ledger)


class Bringing:
    """An import of history, which states when each of its rows happened."""

    def __init__(self, ledger: TestLedger) -> None:
        self.ledger = ledger
        opening = facts.OpenImport(import_id="imp_1", name="crm", time_zone="Asia/Shanghai")
        ledger.recording.record_fact(opening, ledger.origin())

    def row(self, year: int, command: Any, actor: str = "per_a") -> Recorded:
        occurred = datetime(year, 3, 1, tzinfo=UTC)
        origin = self.ledger.origin(actor, import_id="imp_1", occurred=occurred)
        return self.ledger.recording.record(Asked(command, origin))

    def owned(self, name: str, year: int) -> str:
        """Bring a customer that per_a claimed in a year."""
        found = self.row(year, commands.RegisterCustomer(name=name, claim_for="per_a"))
        return found.customer

    def released(self, customer: str, year: int) -> Recorded:
        """Bring a row that says that per_a released the customer in a year."""
        return self.row(year, commands.ReleaseCustomer(customer=customer))


def test_an_import_brings_history_while_somebody_s_customers_are_handed_over_and_afterwards(
    ledger: TestLedger,
) -> None:
    """What it brings in time goes along. A row that is older than the hand-over does nothing."""
    meanwhile = Meanwhile(ledger)
    bringing = Bringing(ledger)
    goes_along = [bringing.owned("旧客户", 2019)]
    too_old: list[Recorded] = []

    def between() -> None:
        if len(goes_along) == 1:
            goes_along.append(bringing.owned("旧客户二", 2020))
            too_old.append(bringing.released(meanwhile.customers[0], 2020))

    ordered = meanwhile.hand_over(between)
    too_old += [bringing.released(each, 2021) for each in goes_along]
    stays = bringing.owned("旧客户三", 2020)
    gone = bringing.owned("旧客户四", 2020)
    bringing.released(gone, 2021)
    catch_up(ledger, feed=PartOfTheFeed("customer-"), consumer="other")
    assert outcome(ledger, ordered).moved == MANY + 2
    told = [ledger.decisions(each)[0].data for each in too_old]
    assert [each.reason for each in told] == [reasons.HISTORY_OUT_OF_ORDER] * 3
    assert owners(ledger) == {"per_b": MANY + 2, "per_a": 1, None: 1}
    check(ledger)

    catch_up(ledger, feed=PartOfTheFeed("person-"))
    again = order(ledger)
    catch_up(ledger, feed=PartOfTheFeed("person-"))
    assert outcome(ledger, again).moved == 1
    assert ledger.decisions(again)[0].data.customer == stays
    check(ledger)


def test_of_somebody_who_has_left_history_is_brought_behind_the_hand_over_and_is_orphaned(
    ledger: TestLedger,
) -> None:
    """They were there when it happened; what they would own today the next hand-over moves."""
    meanwhile = Meanwhile(ledger, 3)
    leave(ledger)
    meanwhile.hand_over(lambda: None)
    Bringing(ledger).owned("旧客户", 2020)
    assert owners(ledger) == {"per_b": 3}
    catch_up(ledger, feed=PartOfTheFeed("customer-"), consumer="other")
    assert owners(ledger) == {"per_a": 1, "per_b": 3}
    again = order(ledger)
    catch_up(ledger, feed=PartOfTheFeed("person-"))
    assert outcome(ledger, again).moved == 1
    check(ledger)


def adopt(ledger: TestLedger, policy: facts.AdoptPolicy) -> None:
    ledger.recording.record_fact(policy, ledger.origin())


def test_two_enforcers_at_the_same_time_and_people_at_work(ledger: TestLedger) -> None:
    """One hands over back and forth, the other decides what is asked about the same customers."""
    customers = owning(ledger, 40)
    position = len(ledger.log())
    ledger.connection.execute(
        "INSERT INTO ledger.consumer_progress VALUES ('other', 0, 0, %s)", (position,)
    )
    chance, stop = random.Random(1), threading.Event()  # noqa: S311 - which ones does not matter
    failures: list[BaseException] = []

    def work(streams: str, consumer: str) -> None:
        try:
            limits = EnforcerLimits(batch_requests_max=7, poll_seconds=0.001)
            with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
                enforcer = Enforcer(
                    connection, PartOfTheFeed(streams), ledger.catalogue, limits, consumer=consumer
                )
                enforcer.start()
                enforcer.run(stop, stop.wait)
                enforcer.catch_up()
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=each)
        for each in (("person-", "enforcer"), ("customer-", "other"))
    ]
    with small_parts():
        for thread in threads:
            thread.start()
        for _ in range(12):
            giver, receiver = chance.sample(PEOPLE, 2)
            order(ledger, giver=giver, receivers=(receiver,), collaborations="give")
            for _ in range(5):
                record(ledger, [_anything(chance, customers) for _ in range(6)])
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        catch_up(ledger, feed=PartOfTheFeed("person-"))
        catch_up(ledger, feed=PartOfTheFeed("customer-"), consumer="other")
        names = Counter(each.name for each in ledger.log())
        assert names["HandOverCompleted.v1"] == 12
        assert names["HandOverAdvanced.v1"] > 12
        check(ledger)


class Midway:
    """A decider that stops in the middle of a batch, all of whose guards are locked."""

    def __init__(self) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()

    def __call__(self, settled: Any, request: Event, organisation: Any) -> Any:
        draft = deciders()[1](settled, request, organisation)
        self.inside.set()
        assert self.go_on.wait(60)
        return draft


HANDING = "handing over"
"""The application name of the enforcer that hands over."""
_BLOCKED_BY = """
SELECT count(*) FROM pg_locks w JOIN pg_stat_activity a USING (pid)
WHERE NOT w.granted AND a.application_name = %s AND cardinality(pg_blocking_pids(pid)) = 1
"""


def hand_over_beside(ledger: TestLedger, claim: Recorded) -> Recorded:
    """Order a hand-over, whose only part begins while another enforcer decides on a claim."""
    ordered, midway = order(ledger), Midway()

    def hand_over() -> None:
        with psycopg.connect(
            ledger.urls.service_url, autocommit=True, application_name=HANDING
        ) as connection:
            enforcer = Enforcer(connection, PartOfTheFeed("person-"), ledger.catalogue)
            enforcer.start()
            enforcer.catch_up()

    with ThreadPoolExecutor(2) as pool:
        try:
            claiming = pool.submit(
                catch_up,
                ledger,
                feed=PartOfTheFeed("customer-"),
                consumer="other",
                versions={1: midway},
            )
            assert midway.inside.wait(60)
            handing = pool.submit(hand_over)
            wait_until_blocked(ledger.urls, HANDING)
            assert count(ledger.urls, _BLOCKED_BY, HANDING) == 1
            assert ledger.decisions(ordered) == []
        finally:
            midway.go_on.set()
        claiming.result()
        handing.result()
    assert isinstance(ledger.decisions(claim)[0].data, d.OwnershipGranted)
    return ordered


def test_a_part_waits_for_who_gives_the_giver_something_and_hands_that_over_too(
    ledger: TestLedger,
) -> None:
    """The part had looked where the giver holds something before the claim was decided."""
    meanwhile = Meanwhile(ledger, 3)
    ordered = hand_over_beside(ledger, ledger.claim(meanwhile.free[0], "per_a"))
    assert outcome(ledger, ordered).moved == 4
    assert owners(ledger) == {"per_b": 4}
    check(ledger)


def test_a_part_waits_for_who_gives_a_receiver_something_and_counts_that_too(
    ledger: TestLedger,
) -> None:
    meanwhile = Meanwhile(ledger, 3)
    adopt(ledger, facts.AdoptPolicy(policy=FREELY.model_copy(update={"holding_limit": 3})))
    ordered = hand_over_beside(ledger, ledger.claim(meanwhile.free[0], "per_b"))
    assert outcome(ledger, ordered).refused == {reasons.HOLDING_LIMIT: 1}
    assert owners(ledger) == {"per_a": 1, "per_b": 3}
    check(ledger)


def _anything(chance: random.Random, customers: list[str]) -> tuple[Any, str]:
    customer, person, other = chance.choice(customers), *chance.sample(PEOPLE, 2)
    return chance.choice(
        [
            (commands.FileClaim(customer=customer, claimant=person), person),
            (commands.ReleaseCustomer(customer=customer), ADMINISTRATOR),
            (commands.RequestTransfer(customer=customer, receiver=other), person),
            (commands.RequestCollaboration(customer=customer, person=person), other),
            (commands.RequestCollaboration(customer=customer, person=person), ADMINISTRATOR),
        ]
    )


def test_members_of_a_group_are_handed_over_with_what_that_brings_at_its_root(
    ledger: TestLedger,
) -> None:
    """Each branch stands below an office of its own: all of these are found in a few rounds."""
    seeing = FREELY.model_copy(update={"conflict_kinds": ("group",)})
    adopt(ledger, facts.AdoptPolicy(policy=seeing))
    ledger.recording.record_fact(facts.AdoptDecider(version=LATEST), ledger.origin())
    root = ledger.register("集团")
    offices = [
        (commands.RegisterCustomer(name=f"分部{n}", parent=root), "per_a") for n in range(80)
    ]
    branches = [
        (
            commands.RegisterCustomer(name=f"网点{n}", parent=each.customer, claim_for="per_a"),
            "per_a",
        )
        for n, each in enumerate(record(ledger, offices))
    ]
    theirs = [each.customer for each in record(ledger, branches)]
    ledger.decide()
    some = commands.HandOver(giver="per_a", receivers=("per_b",), customers=tuple(theirs[:70]))
    asked = Asked(some, ledger.origin())
    checked = would_decide(ledger.connection, ledger.catalogue, ledger.recording, asked)
    first = ledger.recording.record(asked)
    rest = order(ledger)
    ledger.decide()
    (opened,) = (
        each.data for each in ledger.decisions(first) if isinstance(each.data, d.ConflictOpened)
    )
    assert opened in checked.draft.all
    assert (opened.customer, opened.parties) == (root, ("per_b", "per_a"))
    (gone,) = (
        each.data for each in ledger.decisions(rest) if isinstance(each.data, d.ConflictClosed)
    )
    assert (gone.customer, gone.conflict) == (root, opened.conflict)
    assert owners(ledger) == {"per_b": 80}
    check(ledger)


def test_customers_that_were_entered_twice_are_named_by_any_of_their_ids(
    ledger: TestLedger,
) -> None:
    """Also where an earlier part has handed over the customer that exists."""
    ledger.recording.record_fact(facts.AdoptDecider(version=LATEST), ledger.origin())
    number = [{"system": "uscc", "value": "91350100M000100Y43"}]
    first = ledger.register("甲公司", "per_a", claim_for="per_a", identifiers=number)
    others = [ledger.register(f"客户{n}", "per_a", claim_for="per_a") for n in range(4)]
    again = [ledger.register(f"甲公司{n}", "per_a", identifiers=number) for n in range(3)]
    ledger.decide()
    with small_parts():
        command = commands.HandOver(
            giver="per_a", receivers=("per_b",), customers=(*again, *others)
        )
        asked = Asked(command, ledger.origin())
        checked = would_decide(ledger.connection, ledger.catalogue, ledger.recording, asked)
        ordered = ledger.recording.record(asked)
        ledger.decide()
        decided = [each.data for each in ledger.decisions(ordered)]
        foretold = [(type(each), each.customer) for each in checked.draft.all]
        assert foretold == [(type(each), each.customer) for each in decided]
        assert outcome(ledger, ordered).moved == 5
        assert first in {each.customer for each in decided}
        assert owners(ledger) == {"per_b": 5}
        check(ledger)


# --- foretold ----------------------------------------------------------------------------------


def _told(data: Any) -> tuple[Any, ...]:
    """Return what was decided, but for when, and for ids that a request makes."""
    names = ("customer", "approval", "receiver", "person", "reason", "behind", "refused", "steps")
    return type(data), *(getattr(data, name, None) for name in names)


def test_what_is_foretold_is_what_comes(ledger: TestLedger) -> None:
    owning(ledger)
    limit = PART_CUSTOMERS + 7
    policy = Policy(daily_claim_limit=None, holding_limit=limit, protection_days=0)
    ledger.recording.record_fact(facts.AdoptPolicy(policy=policy), ledger.origin())
    mine = ledger.register("丙的客户", claim_for="per_c")
    ledger.ask(commands.RequestCollaboration(customer=mine, person="per_a"), "per_c")
    ledger.decide()
    command = commands.HandOver(giver="per_a", receivers=("per_b",), collaborations="give")
    before = len(ledger.log())
    asked = Asked(command, ledger.origin())
    checked = would_decide(ledger.connection, ledger.catalogue, ledger.recording, asked)
    assert len(ledger.log()) == before
    ordered = ledger.recording.record(asked)
    ledger.decide()
    decided = [each.data for each in ledger.decisions(ordered)]
    assert [_told(each) for each in checked.draft.all] == [_told(each) for each in decided]
    assert outcome(ledger, ordered).waiting == limit


def test_what_is_being_handed_over_cannot_be_foretold(ledger: TestLedger) -> None:
    owning(ledger)
    order(ledger)
    with pytest.raises(KilledError):
        enforce(ledger, KilledAfter(1))
    asked = Asked(commands.HandOver(giver="per_a", receivers=("per_b",)), ledger.origin())
    with pytest.raises(UnderWayError, match="just now"):
        would_decide(ledger.connection, ledger.catalogue, ledger.recording, asked)


# --- parked ------------------------------------------------------------------------------------


def defective(behind: str) -> dict[int, Decider]:
    """Return a decider that fails at the part of a hand-over behind a customer."""
    right = deciders()[1]

    def decide(settled: Any, request: Event, organisation: Any) -> Any:
        if isinstance(request.data, HandOverRequested):
            so_far = settled.hand_over_of(request.data.giver)
            if so_far is not None and so_far.done.behind == behind:
                raise ZeroDivisionError("the words of a defect")
        return right(settled, request, organisation)

    return {1: decide}


def test_a_hand_over_that_cannot_go_on_waits_and_goes_on_where_it_stood(
    ledger: TestLedger,
) -> None:
    customers = owning(ledger)
    ordered = order(ledger)
    second = order(ledger, receivers=("per_c",))
    other = ledger.register("别的客户", claim_for="per_c")
    catch_up(ledger, versions=defective(customers[PART_CUSTOMERS - 1]))
    assert owners(ledger) == {"per_a": MANY - PART_CUSTOMERS, "per_b": PART_CUSTOMERS, "per_c": 1}
    report = verify_log(ledger.connection, ledger.catalogue)
    assert report.good, list(report.lines())
    waiting = [*ordered.positions, *second.positions]
    assert report.undecided == waiting
    assert compare_guards(ledger.connection, ledger.catalogue) == []
    asked = Asked(commands.HandOver(giver="per_a", receivers=("per_b",)), ledger.origin())
    with pytest.raises(WouldWaitError):
        would_decide(ledger.connection, ledger.catalogue, ledger.recording, asked)
    unparking = commands.UnparkRequest(customer="per_a", request=ordered.positions[0], decider=1)
    ledger.ask(unparking)
    with pytest.raises(KilledError):
        enforce(ledger, KilledAfter(1))
    assert verify_log(ledger.connection, ledger.catalogue).good
    assert compare_guards(ledger.connection, ledger.catalogue) == []
    ledger.decide()
    assert outcome(ledger, ordered).moved == MANY
    assert outcome(ledger, second).moved == 0
    assert other not in customers
    check(ledger)


def parked_at(position: int) -> dict[int, Decider]:
    """Return the newest decider, which cannot decide the request at a position."""
    right = deciders()[LATEST]

    def decide(settled: Any, request: Event, organisation: Any) -> Any:
        if request.position == position:
            raise ZeroDivisionError("the words of a defect")
        return right(settled, request, organisation)

    return {**deciders(), LATEST: decide}


def test_a_customer_that_waits_for_a_parked_request_stays_until_that_is_decided(
    ledger: TestLedger,
) -> None:
    """It was handed over all the same. A ledger from before learns from the migration who waits."""
    ledger.recording.record_fact(facts.AdoptDecider(version=LATEST), ledger.origin())
    customers = owning(ledger, 3)
    follow_up = commands.LogFollowUp(customer=customers[1], person="per_a")
    (position,) = ledger.ask(follow_up, "per_a").positions
    catch_up(ledger, versions=parked_at(position))
    forget = "UPDATE ledger.guards SET state = %s WHERE key = %s"
    key = f"customer\x1f{customers[1]}"
    (row,) = ledger.connection.execute(
        "SELECT convert_from(state, 'UTF8')::jsonb - 'parked' FROM ledger.guards WHERE key = %s",
        (key,),
    ).fetchall()
    ledger.connection.execute(forget, (orjson.dumps(row[0]), key))
    assert compare_guards(ledger.connection, ledger.catalogue) == [f"customer {customers[1]}"]
    (migration,) = (each for each in shipped_migrations() if each.name == "parked_customers")
    with psycopg.connect(ledger.urls.superuser_url) as superuser:
        superuser.execute(migration.text)
    assert compare_guards(ledger.connection, ledger.catalogue) == []
    ordered = order(ledger)
    ledger.decide()
    assert outcome(ledger, ordered).refused == {reasons.REQUEST_PARKED: 1}
    assert owners(ledger) == {"per_a": 1, "per_b": 2}
    assert verify_log(ledger.connection, ledger.catalogue).good
    assert compare_guards(ledger.connection, ledger.catalogue) == []
    ledger.ask(commands.UnparkRequest(customer=customers[1], request=position, decider=LATEST))
    again = order(ledger)
    ledger.decide()
    assert outcome(ledger, again).moved == 1
    check(ledger)


# --- what is kept beside the log ---------------------------------------------------------------


def test_who_holds_what_is_compared_with_the_log(ledger: TestLedger) -> None:
    customers = owning(ledger, 3)
    ledger.connection.execute("DELETE FROM ledger.involved WHERE customer = %s", (customers[0],))
    ledger.connection.execute("INSERT INTO ledger.involved VALUES ('per_c', %s)", (customers[1],))
    assert compare_guards(ledger.connection, ledger.catalogue) == [
        f"involved per_a {customers[0]}",
        f"involved per_c {customers[1]}",
    ]
    with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
        rebuild_guards(connection, ledger.catalogue)
    check(ledger)


def test_what_else_the_giver_holds_is_found_and_settled(ledger: TestLedger) -> None:
    theirs = owning(ledger, 2)
    mine = ledger.register("丙的客户", claim_for="per_c")
    ledger.decide()
    asked = commands.RequestCollaboration(customer=mine, person="per_a")
    ledger.ask(asked, "per_c")
    ledger.ask(commands.RequestCollaboration(customer=theirs[0], person="per_c"), "per_a")
    ordered = order(ledger, collaborations="give")
    ledger.decide()
    assert outcome(ledger, ordered).settled == 1
    names = sorted(each.name for each in ledger.decisions(ordered))
    assert names == [
        "CollaborationsEnded.v1",
        "CollaboratorAdded.v1",
        "HandOverCompleted.v1",
        "OwnershipTransferred.v1",
        "OwnershipTransferred.v1",
    ]
    check(ledger)


def test_a_ledger_from_before_learns_who_holds_what_from_its_guards(ledger: TestLedger) -> None:
    theirs = owning(ledger, 3)
    transfer = commands.RequestTransfer(customer=theirs[0], receiver="per_b")
    waiting = Policy(protection_days=0, collaborator_share_max=None)
    policy = facts.AdoptPolicy(policy=waiting)
    ledger.recording.record_fact(policy, ledger.origin())
    ledger.ask(transfer, "per_a")
    ledger.ask(commands.RequestCollaboration(customer=theirs[1], person="per_c"), "per_a")
    ledger.ask(commands.RequestCollaboration(customer=theirs[2], person="per_c"), "per_b")
    ledger.decide()
    rows = ledger.connection.execute("SELECT count(*) FROM ledger.involved").fetchone()
    assert rows == (7,)
    ledger.connection.execute("DELETE FROM ledger.involved")
    (migration,) = (each for each in shipped_migrations() if each.name == "involved")
    with psycopg.connect(ledger.urls.superuser_url) as superuser:
        superuser.execute(migration.text[migration.text.index("INSERT INTO ledger.involved") :])
    check(ledger)
