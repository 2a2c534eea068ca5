"""Tables on a terminal of 80 characters: whatever they hold, no word of it is cut in two."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from api.cli.tables import ID, laid_out

CUSTOMER = "cus_0199a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b"


def shown(columns: list[str], rows: list[list[str]], width: int = 80) -> str:
    out = Console(file=io.StringIO(), width=width, color_system=None)
    out.print(laid_out("of this", columns, rows, width))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_where_there_is_room_it_is_a_table() -> None:
    told = shown([ID, "owner"], [[CUSTOMER, "张伟"]])
    assert f"│ {CUSTOMER} │ 张伟  │" in told


def test_what_is_long_is_broken_between_words_and_what_is_short_is_whole() -> None:
    words = "the customer waits for a request that could not be decided yet"
    told = shown(["customer", "outcome", "why"], [["苏州恒信电子有限公司", "refused", words * 3]])
    assert "│ 苏州恒信电子有限公司 │ refused │" in told
    assert all(cell_len(line) <= 80 for line in told.splitlines())


def test_where_words_would_be_cut_each_row_is_a_block() -> None:
    """Of seven columns beside an id each was three characters wide, from top to bottom."""
    columns = [ID, "from", "to", "ordered", "by", "decided", "wait by now"]
    row = [CUSTOMER, "张伟", "李娜", "2026-03-01 09:00", "林晓燕", "0 moved,\n3 wait", ""]
    told = shown(columns, [row, row]).splitlines()
    assert told[:4] == ["of this", "", f"id           {CUSTOMER}", "from         张伟"]
    assert "decided      0 moved,; 3 wait" in told
    assert len(told) == 1 + 2 * 7


def test_nothing_is_markup() -> None:
    assert "[bold]" in shown(["name"], [["[bold]"]])
    assert "[bold]" in shown(["name"] * 12, [["[bold] and-what-is-long"] * 12])


@given(
    st.lists(
        st.lists(st.text(alphabet="ab 张\n", max_size=60), min_size=4, max_size=4),
        min_size=1,
        max_size=3,
    ),
    st.integers(40, 120),
)
def test_it_is_never_wider_than_the_terminal_and_tells_every_word(
    rows: list[list[str]], width: int
) -> None:
    told = shown(["one", "two", "three", "four"], rows, width)
    assert all(cell_len(line) <= width for line in told.splitlines())
    # Longer ones may be cut anywhere, and Chinese between any two characters.
    whole = {word for row in rows for cell in row for word in cell.split()}
    for word in whole:
        if word.isascii() and len(word) <= 24:
            assert word in told


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_a_title_alone_is_no_matter(width: int) -> None:
    assert "x" in shown(["one"], [["x"]], width)
