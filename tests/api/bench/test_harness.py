"""What is made of the samples of a measurement."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from api.bench.harness import Machine, Measure, compare, interleaved, to_document, to_table

MACHINE = Machine("a processor", 2, 2**33, "a system", "3.11", "18.4", "asyncio", 150.0)


def test_samples_are_taken_in_turn() -> None:
    order: list[str] = []

    def sample(name: str) -> float:
        order.append(name)
        return len(order)

    taken = interleaved({"a": lambda: sample("a"), "b": lambda: sample("b")}, rounds=3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert taken == {"a": [1, 3, 5], "b": [2, 4, 6]}


def test_the_ratio_is_the_median_of_neighbours_not_the_ratio_of_medians() -> None:
    """A slow minute of the machine slows both neighbours, and leaves their ratio alone."""
    measure = compare("x", [20, 2, 24], [10, 1, 8], unit="events/s", at_least=2)
    assert measure == Measure("x", ours=20, theirs=8, unit="events/s", ratio=2, at_least=2)
    assert measure.holds


def test_where_less_is_better_the_ratio_says_how_much_less() -> None:
    measure = compare("x", [5], [20], unit="ms", at_least=5, less_is_better=True)
    assert measure.ratio == 4
    assert not measure.holds


def test_rounds_that_do_not_pair_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare("x", [1, 2], [1], unit="events/s", at_least=1)


def test_a_run_as_document_and_as_table() -> None:
    measures = [
        Measure("quick", 12_345.6, 1_000, "events/s", 12.3456, 10),
        Measure("slow", 0.5, 1.0, "ms", 0.5, 0.8),
    ]
    document = to_document(MACHINE, measures)
    assert document["machine"]["cores"] == 2
    assert [each["holds"] for each in document["measures"]] == [True, False]
    output = StringIO()
    Console(file=output, width=120).print(to_table(measures))
    text = output.getvalue()
    assert "12,346" in text
    assert "12.35" in text
    assert text.count("falls short") == 1
