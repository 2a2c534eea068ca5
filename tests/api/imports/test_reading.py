"""Reading CSV: encodings, delimiters, headers, and rows that are broken."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.imports.errors import (
    BytesInvalidError,
    ColumnMissingError,
    EncodingUnclearError,
    FileEmptyError,
    FileUnreadableError,
    HeaderDuplicateError,
    HeaderMissingError,
    LineTooLongError,
    NotAWorkbookError,
    QuoteOpenError,
)
from api.imports.reading import LINE_CHARACTERS_MAX, BrokenRow, Row, TableFormat, read_rows
from api.imports.rejects import RejectReason

CHINESE = "客户名称,负责人\r\n远山贸易有限公司,李明\r\n海风“一号”店,王芳\r\n"
CHINESE_CELLS = [
    {"客户名称": "远山贸易有限公司", "负责人": "李明"},
    {"客户名称": "海风“一号”店", "负责人": "王芳"},
]


def read(
    folder: Path,
    content: str | bytes,
    columns: Sequence[str] = (),
    *,
    name: str = "rows.csv",
    encoding: str | None = None,
    delimiter: str | None = None,
    header_row: int = 1,
) -> list[Row | BrokenRow]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    table_format = TableFormat(encoding, delimiter, None, header_row)
    return list(read_rows(path, table_format, columns))


def cells(rows: list[Row | BrokenRow]) -> list[dict[str, object]]:
    assert all(isinstance(row, Row) for row in rows)
    return [dict(row.cells) for row in rows if isinstance(row, Row)]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(CHINESE.encode(), id="utf-8"),
        pytest.param(CHINESE.encode("utf-8-sig"), id="utf-8 with mark"),
        pytest.param(CHINESE.encode("utf-16"), id="utf-16 with mark"),
        pytest.param(b"\xfe\xff" + CHINESE.encode("utf-16-be"), id="utf-16-be with mark"),
        pytest.param(CHINESE.encode("utf-16-le"), id="utf-16-le without mark"),
        pytest.param(CHINESE.encode("utf-16-be"), id="utf-16-be without mark"),
        pytest.param(CHINESE.encode("utf-32"), id="utf-32 with mark"),
        pytest.param(CHINESE.encode("gb18030"), id="gb18030"),
        pytest.param(("\ufeff" + CHINESE).encode("gb18030"), id="gb18030 with mark"),
    ],
)
def test_encoding_is_found_without_being_named(tmp_path: Path, data: bytes) -> None:
    assert cells(read(tmp_path, data, ["客户名称", "负责人"])) == CHINESE_CELLS


@pytest.mark.parametrize(
    ("named", "codec"),
    [
        ("utf-8", "utf-8-sig"),
        ("GBK", "gbk"),
        ("gb2312", "gb18030"),
        ("utf-16", "utf-16-le"),
        ("utf-16", "utf-16-be"),
        ("UTF-16LE", "utf-16-le"),
    ],
)
def test_encoding_named_by_the_mapping(tmp_path: Path, named: str, codec: str) -> None:
    data = CHINESE.encode(codec)
    assert cells(read(tmp_path, data, ["客户名称"], encoding=named)) == CHINESE_CELLS


def test_other_encodings_are_read_when_named_and_never_guessed(tmp_path: Path) -> None:
    """Both decode as GB18030 without an error, into other characters."""
    big5 = "客戶名稱,負責人\r\n遠山貿易有限公司,李明\r\n".encode("big5")
    western = "name,town\r\nMüller,Lübbecke\r\nJörg,Köln\r\n".encode("cp1252")
    for data in (big5, western):
        data.decode("gb18030")
        with pytest.raises(EncodingUnclearError):
            read(tmp_path, data)
    assert cells(read(tmp_path, western, encoding="cp1252"))[0] == {
        "name": "Müller",
        "town": "Lübbecke",
    }
    assert cells(read(tmp_path, big5, encoding="big5"))[0]["負責人"] == "李明"


def test_utf_8_with_one_broken_byte_names_the_line_instead_of_turning_into_chinese(
    tmp_path: Path,
) -> None:
    lines = ["name,town"] + [f"公司{number},城市" for number in range(50)]
    lines[30] = "X\udcb9\udcab,y"
    data = "\n".join(lines).encode("utf-8", "surrogateescape")
    with pytest.raises(BytesInvalidError, match="Line 31 ") as caught:
        read(tmp_path, data)
    assert (caught.value.line, caught.value.encoding) == (31, "utf-8")
    assert caught.value.way_out


def test_gb18030_with_one_broken_byte_names_the_line(tmp_path: Path) -> None:
    data = "名称,城市\r\n甲乙丙丁,北京\r\n戊己庚辛,上海\r\n".encode("gb18030")
    broken = data.replace("上海".encode("gb18030"), "上".encode("gb18030") + b"\xff\xff")
    with pytest.raises(BytesInvalidError) as caught:
        read(tmp_path, broken)
    assert (caught.value.line, caught.value.encoding) == (3, "gb18030")


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le", "gb18030"])
def test_invalid_bytes_of_a_named_encoding_name_the_line(
    tmp_path: Path, codec: str, line_break: str
) -> None:
    good = line_break.join(["a,b"] + ["1,2"] * 400_000 + ["3,"]).encode(codec)
    bad = {"utf-8": b"\xff", "utf-16-le": b"\x00\xdc\x41\x00", "gb18030": b"\xff\xff"}[codec]
    with pytest.raises(BytesInvalidError) as caught:
        read(tmp_path, good + bad, encoding=codec)
    assert caught.value.line == 400_002


def test_encoded_surrogates_are_invalid(tmp_path: Path) -> None:
    with pytest.raises(BytesInvalidError):
        read(tmp_path, b"\xef\xbb\xbfa,b\n\xed\xa0\x80,1\n")


def test_unknown_encoding_name(tmp_path: Path) -> None:
    for name in ("utf-9", "rot13", "unicode_escape", "idna"):
        with pytest.raises(EncodingUnclearError, match="no known encoding"):
            read(tmp_path, "a,b\n1,2\n", encoding=name)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiter_is_found_by_the_columns_that_are_asked_for(
    tmp_path: Path, delimiter: str
) -> None:
    """The other characters stand in the header as well, and oftener."""
    other = ";" if delimiter == "," else ","
    text = f'"a{other * 9}"{delimiter}b\r\n1{delimiter}2\r\n'
    assert cells(read(tmp_path, text, [f"a{other * 9}", "b"])) == [{f"a{other * 9}": "1", "b": "2"}]


def test_delimiter_named_by_the_mapping(tmp_path: Path) -> None:
    assert cells(read(tmp_path, "a|b,c\n1|2,3\n", ["b,c"], delimiter="|")) == [
        {"a": "1", "b,c": "2,3"}
    ]


def test_note_to_excel_about_the_delimiter_is_obeyed_and_counted(tmp_path: Path) -> None:
    rows = read(tmp_path, "sep=;\r\na;b\r\n1,5;2\r\n", ["a"], header_row=2)
    assert cells(rows) == [{"a": "1,5", "b": "2"}]
    assert rows[0].number == 3


@pytest.mark.parametrize("text", ["", "\ufeff", "\r\n\r\n", " \n"])
def test_empty_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(FileEmptyError):
        read(tmp_path, text)


def test_header_only_gives_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "a,b", ["a"]) == []
    assert read(tmp_path, "a,b\r\n\r\n,\r\n", ["a"]) == []


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadableError):
        list(read_rows(tmp_path / "nothing.csv", TableFormat(), ()))
    with pytest.raises(FileUnreadableError):
        list(read_rows(tmp_path, TableFormat(), ()))


def test_sheet_of_a_file_that_has_none(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(NotAWorkbookError, match="'Sheet1'"):
        list(read_rows(tmp_path / "rows.csv", TableFormat(sheet="Sheet1"), ()))


def test_rows_are_counted_as_a_spreadsheet_shows_them(tmp_path: Path) -> None:
    """Blank lines count, and a field with line breaks makes no further row."""
    rows = read(tmp_path, 'a,b\r\n\r\n"1\r\n1",2\r\n,\r\n3,4\r\n')
    assert [row.number for row in rows] == [3, 5]
    assert cells(rows)[0]["a"] == "1\r\n1"


def test_header_below_a_title(tmp_path: Path) -> None:
    text = "Report of May,,\n\nname,town,\nx,y,\n"
    rows = read(tmp_path, text, ["town"], header_row=3)
    assert cells(rows) == [{"name": "x", "town": "y"}]
    assert rows[0].number == 4
    with pytest.raises(HeaderMissingError, match="Row 2"):
        read(tmp_path, text, ["town"], header_row=2)
    with pytest.raises(HeaderMissingError, match="Row 9"):
        read(tmp_path, text, ["town"], header_row=9)


def test_header_names_are_compared_by_width_and_spaces(tmp_path: Path) -> None:
    text = "电话（手机）,  Full \t Name ,ＩＤ\n1,2,3\n"
    expected = [{"电话(手机)": "1", "Full Name": "2", "ID": "3"}]
    assert cells(read(tmp_path, text, ["电话(手机)", "Full Name", "ID"])) == expected


def test_missing_columns_are_all_named_with_near_misses(tmp_path: Path) -> None:
    with pytest.raises(ColumnMissingError) as caught:
        read(tmp_path, "acount,town\nx,y\n", ["account", "town", "zzz"])
    assert caught.value.columns == ("account", "zzz")
    assert "did you mean 'acount'?" in str(caught.value)
    assert "'zzz'" in str(caught.value)


def test_duplicate_header_matters_only_where_it_is_used(tmp_path: Path) -> None:
    text = "name,note,note,,\nx,1,2,,\n"
    with pytest.raises(HeaderDuplicateError, match="columns 2, 3"):
        read(tmp_path, text, ["name", "note"])
    assert cells(read(tmp_path, text, ["name"])) == [{"name": "x"}]


def test_lines_with_too_many_or_too_few_fields_are_broken_rows(tmp_path: Path) -> None:
    rows = read(tmp_path, "a,b\n1\n1,2,3\n1,2,,\n1,2\n", ["a"])
    assert [(row.number, getattr(row, "reason", None)) for row in rows] == [
        (2, RejectReason.TOO_FEW_FIELDS),
        (3, RejectReason.TOO_MANY_FIELDS),
        (4, None),
        (5, None),
    ]
    assert isinstance(rows[1], BrokenRow)
    assert rows[1].shown == "1 | 2 | 3"


def test_stray_quote_breaks_its_own_row_only(tmp_path: Path) -> None:
    rows = read(tmp_path, 'a,b\n"x"y,1\n2,3\n5" pipe,4\n')
    assert [(row.number, getattr(row, "reason", None)) for row in rows] == [
        (2, RejectReason.QUOTING_BROKEN),
        (3, None),
        (4, None),
    ]


@pytest.mark.parametrize(
    "tail", ["", '"next",row\n', 'other "quoted" text\n', '\n"' + "z" * 200_000 + '"x\n']
)
def test_quote_that_swallows_rows_is_an_error_that_names_its_line(
    tmp_path: Path, tail: str
) -> None:
    """Such rows would otherwise vanish into one field without anybody noticing."""
    with pytest.raises(QuoteOpenError) as caught:
        read(tmp_path, 'a,b\n1,2\n"open,3\n4,5\n' + tail)
    assert caught.value.line == 3


def test_long_fields(tmp_path: Path) -> None:
    text = "字" * 100_000
    rows = read(tmp_path, f"a,b\n{text},1\n{text * 2},2\nx,3\n")
    assert isinstance(rows[0], Row)
    assert rows[0].cells["a"] == text
    assert isinstance(rows[1], BrokenRow)
    assert rows[1].reason is RejectReason.FIELD_TOO_LONG
    assert isinstance(rows[2], Row)


def test_file_of_one_endless_line(tmp_path: Path) -> None:
    with pytest.raises(LineTooLongError) as caught:
        read(tmp_path, "a,b\n1,2\n" + "x" * (LINE_CHARACTERS_MAX + 1))
    assert caught.value.line == 3


def test_control_characters_and_nul_come_back_as_they_are(tmp_path: Path) -> None:
    assert cells(read(tmp_path, "a,b\nx\x00y,\x07\n")) == [{"a": "x\x00y", "b": "\x07"}]


ENCODINGS = [
    pytest.param("utf-8", None, id="utf-8"),
    pytest.param("utf-8-sig", None, id="utf-8 with mark"),
    pytest.param("utf-16", None, id="utf-16 with mark"),
    pytest.param("utf-8", "utf-8", id="utf-8 named"),
    pytest.param("utf-16-le", "utf-16-le", id="utf-16-le named"),
    pytest.param("utf-16-be", "utf-16-be", id="utf-16-be named"),
    pytest.param("gb18030", "gb18030", id="gb18030 named"),
]
TABLES = st.lists(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=3, max_size=3).filter(any),
    max_size=8,
)


@pytest.mark.parametrize(("codec", "named"), ENCODINGS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@given(table=TABLES, line_break=st.sampled_from(["\n", "\r\n", "\r"]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_written_as_csv_comes_back_the_same(
    tmp_path: Path,
    codec: str,
    named: str | None,
    delimiter: str,
    line_break: str,
    table: list[list[str]],
) -> None:
    text = io.StringIO(newline="")
    # Before Python 3.13 the writer leaves \r bare among lines that end in \n, and the reverse.
    quoting: Literal[0, 1] = csv.QUOTE_MINIMAL if line_break == "\r\n" else csv.QUOTE_ALL
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_break, quoting=quoting)
    writer.writerow(["a", "b", "c"])
    writer.writerows(table)
    rows = read(tmp_path, text.getvalue().encode(codec), ["a", "c"], encoding=named)
    assert [list(row.values()) for row in cells(rows)] == table
    assert [row.number for row in rows] == list(range(2, len(table) + 2))


@given(
    names=st.lists(
        st.text(
            st.sampled_from("客户名称负责人远山贸易有限公司海风一号店李明王芳北京上海 ()-1a"),
            min_size=1,
        ),
        min_size=1,
    ),
    codec=st.sampled_from(["utf-8", "gb18030", "utf-16-le", "utf-16-be"]),
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_chinese_names_come_back_the_same_without_naming_the_encoding(
    tmp_path: Path, names: list[str], codec: str
) -> None:
    """A short GB18030 text may be UTF-8 by chance; a table of customers is not."""
    lines = [
        "客户名称,负责人,电话",
        "远山贸易有限公司,李明,1",
        *(f"{name},王芳,2" for name in names),
    ]
    rows = read(tmp_path, "\n".join(lines).encode(codec), ["客户名称", "负责人", "电话"])
    assert [row["客户名称"] for row in cells(rows)] == ["远山贸易有限公司", *names]
