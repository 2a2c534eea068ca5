"""A customer's history: given requests and decisions, then entries and sentences."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import get_args

import pytest

from ledger.events import decisions, requests
from ledger.events.catalogue import catalogue
from ledger.events.values import Identifier, Money
from ledger.handing_over import OF_PERSON
from projections import telling, timeline
from projections.rebuild import compare
from projections.timeline import Timeline, TimelineEntry
from tests.projections.failing import FailsOnce
from tests.projections.history import History, OpenUnsealer
from tests.projections.models import Models

USCC = "91310000MA1K35X28B"
NAMES: dict[str, str | None] = {"per_1": "张伟", "per_2": "李娜", "ter_1": "华东", "per_3": None}


@pytest.fixture
def models(models: Models) -> Models:
    """Only the read model of histories."""
    models.projections = [Timeline(OpenUnsealer())]
    return models


def staffed() -> History:
    """Return a history with three people."""
    history = History().found()
    history.territory("ter_1")
    for number in (1, 2, 3):
        history.join(f"per_{number}", "ter_1")
    return history


def entries(models: Models, customer: str = "cus_1") -> list[TimelineEntry]:
    return timeline.history(models.connection, customer)


def events(models: Models, customer: str) -> list[str]:
    return [each.event for each in entries(models, customer)]


def sentences(models: Models, customer: str = "cus_1") -> list[str]:
    return [telling.sentence(each, NAMES) for each in entries(models, customer)]


def test_requests_and_decisions_stand_in_the_order_of_the_log(models: Models) -> None:
    history = staffed()
    first = history.request(requests.RegistrationRequested("cus_1", "organisation", "鼎盛"))
    claim = history.request(requests.ClaimFiled("cus_1", "per_1"), actor="per_1")
    history.register("cus_2")
    admitted = history.decide(first)
    granted = history.decide(claim)
    models.project(history)
    assert [(each.position, each.event, each.request) for each in entries(models)] == [
        (first, "RegistrationRequested", None),
        (claim, "ClaimFiled", None),
        (admitted, "CustomerAdmitted", first),
        (granted, "OwnershipGranted", claim),
    ]
    claimed, ruled = entries(models)[1], entries(models)[3]
    assert (claimed.actor, claimed.person) == ("per_1", "per_1")
    assert (ruled.actor, ruled.person) == ("enforcer", "per_1")


def test_times_are_those_of_the_act_and_of_its_recording(models: Models) -> None:
    history = staffed()
    history.register("cus_1")
    stated = datetime(2025, 12, 24, 8, tzinfo=UTC)
    history.follow_up("cus_1", "per_1", occurred=stated)
    models.project(history)
    logged, noted = entries(models)[2:]
    assert logged.effective == stated
    assert logged.recorded > stated
    assert noted.effective == history.event(noted.position).effective


def test_what_was_asked_of_a_duplicate_stands_where_it_was_decided(models: Models) -> None:
    """A claim in the same append as the registration is filed before anybody knows of the other."""
    history = staffed()
    history.register("cus_1", uscc=USCC)
    again = history.request(
        requests.RegistrationRequested("cus_2", "organisation", "鼎盛", _identifiers())
    )
    together = history.request(requests.ClaimFiled("cus_2", "per_1"))
    history.decide(again)
    history.decide(together)
    later = history.claim("cus_2", "per_2")
    models.project(history, batch=1)
    assert events(models, "cus_2") == ["RegistrationRequested", "RegistrationRefused"]
    at_first = entries(models)
    assert [each.position for each in at_first if each.event == "ClaimFiled"] == [together, later]
    assert [each.event for each in at_first[2:]] == [
        "ClaimFiled",
        "RegistrationRefused",
        "OwnershipGranted",
        "ClaimFiled",
        "ClaimRefused",
    ]
    hit = at_first[3]
    assert hit.details["duplicate"] == "cus_2"
    assert telling.sentence(hit, NAMES) == "The customer was entered a second time, as cus_2."


def _identifiers() -> tuple[Identifier, ...]:
    return (Identifier("uscc", USCC),)


def test_an_undecided_request_stands_where_it_was_asked(models: Models) -> None:
    history = staffed()
    history.request(requests.ClaimFiled("cus_1", "per_1"))
    models.project(history)
    assert events(models, "cus_1") == ["ClaimFiled"]


def test_text_is_opened_and_erased_text_says_so(models: Models) -> None:
    history = staffed()
    history.register("cus_1")
    history.ask(
        requests.FollowUpLogged(
            "cus_1",
            "fup_1",
            "per_1",
            "visit",
            history.seal("cus_1", "note", "介绍了新产品\n客户要报价单\t\\"),
            history.seal("con_1", "agreed", "下周演示"),
            date(2026, 2, 1),
        ),
        actor="per_1",
    )
    models.projections = [Timeline(OpenUnsealer(["key_con_1"]))]
    models.project(history)
    logged = entries(models)[2]
    assert logged.words == {"note": "介绍了新产品\n客户要报价单\t\\", "agreed": None}
    assert telling.sentence(logged, NAMES) == (
        "张伟 followed up by visit, next on 2026-02-01."
        " (note: 介绍了新产品\n客户要报价单\t\\; agreed: (erased))"
    )


def test_every_act_has_its_sentence(models: Models) -> None:
    history = staffed()
    history.register("cus_1", "鼎盛", territory="ter_1")
    history.claim("cus_1", "per_1")
    history.claim("cus_1", "per_2")
    deal = history.deal("cus_1", "per_2", value="1054.50")
    history.ask(
        requests.DealCorrected("cus_1", deal, "typo", value=Money(Decimal("99.00"), "CNY")),
        actor="per_2",
    )
    history.ask(requests.DealVoided("cus_1", deal, "returned"), actor="per_3")
    history.release("cus_1")
    history.assign("cus_1", "per_2")
    history.ask(requests.CustomerChangeRequested("cus_1", "鼎盛集团", attributes={"size": 5}))
    models.project(history)
    assert sentences(models) == [
        "per_admin registered the customer as 鼎盛.",
        "The customer was admitted to the pool in 华东.",
        "张伟 claimed the customer.",
        "张伟 owns the customer.",
        "李娜 claimed the customer.",
        "The claim of 李娜 was refused: The customer belongs to somebody else. The owner is 张伟.",
        "李娜 won a deal worth 1054.50 CNY.",
        "It was noted: The deal was made by somebody who does not own the customer."
        " The owner is 张伟.",
        "李娜 asked to correct a deal (typo): worth 99.00 CNY.",
        "It was noted.",
        "per_3 asked to void a deal (returned).",
        "The correction was refused: Only who recorded it, or a manager over the customer,"
        " may correct it.",
        "per_admin asked to release the customer (no need).",
        "张伟 no longer owns the customer (no need); it is in the pool in 华东.",
        "per_admin asked to assign the customer to 李娜.",
        "李娜 owns the customer, assigned by per_admin.",
        "per_admin asked to change the customer: the name to 鼎盛集团, attribute size.",
        "The change holds; the customer is in 华东.",
    ]


def test_the_ids_that_sentences_name_are_told(models: Models) -> None:
    history = staffed()
    history.register("cus_1", territory="ter_1")
    history.claim("cus_1", "per_1")
    history.claim("cus_1", "per_2")
    models.project(history)
    assert telling.ids_named(entries(models)) == {
        "per_admin",
        "enforcer",
        "per_1",
        "per_2",
        "ter_1",
    }


def test_the_history_is_paged_by_position_from_either_end(models: Models) -> None:
    history = staffed()
    history.register("cus_1")
    for _ in range(5):
        history.claim("cus_1", "per_1")
    models.project(history)
    everything = entries(models)
    pages: list[TimelineEntry] = []
    while page := timeline.history(
        models.connection, "cus_1", after=pages[-1].position if pages else 0, limit=5
    ):
        pages.extend(page)
    assert pages == everything
    backwards: list[TimelineEntry] = []
    before = history.position + 1
    while page := timeline.latest(models.connection, "cus_1", before=before, limit=5):
        backwards.extend(page)
        before = page[-1].position
    assert backwards == everything[::-1]


def test_every_request_and_decision_of_the_catalogue_is_taken_and_said() -> None:
    """A new event must not be missing in the history of a customer without anybody noticing."""
    events_ = catalogue()
    of_people = {f"{each.__name__}.v1" for each in (requests.HandOverRequested, *OF_PERSON)}
    of_customers = (events_.request_names | events_.decision_names) - of_people
    assert Timeline(OpenUnsealer()).handles == of_customers
    for name in Timeline(OpenUnsealer()).handles:
        entry = TimelineEntry(
            1,
            "cus_1",
            name.partition(".")[0],
            "per_1",
            datetime(2026, 1, 1, tzinfo=UTC),
            datetime(2026, 1, 1, tzinfo=UTC),
            None,
            None,
            None,
            None,
            {"request": 7, "decider": 1, "error": "KeyError"},
            {},
        )
        said = telling.sentence(entry, {})
        assert said.rstrip(".") != entry.event, said
        assert said.endswith(".") or name == "RequestParked.v1"
    every_kind = len(get_args(requests.Request)) + len(get_args(decisions.Decision)) + 1
    assert every_kind - len(of_people) == len(Timeline(OpenUnsealer()).handles)


def eventful() -> History:
    history = staffed()
    open_requests: list[int] = []
    for number in range(8):
        customer = f"cus_{number}"
        open_requests.append(
            history.request(
                requests.RegistrationRequested(
                    customer, "organisation", "鼎盛", _identifiers() if number % 3 else ()
                )
            )
        )
        open_requests.append(history.request(requests.ClaimFiled(customer, "per_1")))
    for request in open_requests:
        history.decide(request)
    for number in range(8):
        history.follow_up(f"cus_{number}", "per_2")
        history.deal(f"cus_{number}", "per_1", "lost")
    return history


@pytest.mark.parametrize("batch", [1, 3, 20])
def test_rows_are_the_same_whatever_the_batches(models: Models, batch: int) -> None:
    history = eventful()
    models.project(history, batch=batch)
    assert models.parked() == []
    assert compare(models.connect, models.projections, catalogue()) == []
    # Every decision stands at its customer, beside its request.
    for each in (each for each in history.events if each.causation is not None):
        positions = [entry.position for entry in entries(models, each.data.customer)]
        assert each.position in positions
        assert each.causation in positions


def test_a_failed_batch_leaves_nothing_behind_and_is_applied_again(models: Models) -> None:
    models.projections = [FailsOnce(Timeline(OpenUnsealer()))]
    models.project(eventful())
    assert models.parked() == []
    assert compare(models.connect, models.projections, catalogue()) == []
