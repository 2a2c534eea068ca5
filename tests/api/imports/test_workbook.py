"""Reading Excel workbooks: what people see in a sheet is what comes out."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.utils.datetime import CALENDAR_MAC_1904
from openpyxl.worksheet.worksheet import Worksheet
from openpyxl.xml.constants import SHARED_STRINGS

from api.imports.cells import CellFault
from api.imports.errors import (
    ColumnMissingError,
    FileEmptyError,
    HeaderMissingError,
    NotAWorkbookError,
    SheetMissingError,
)
from api.imports.reading import BrokenRow, Row, TableFormat, read_rows
from api.imports.rejects import RejectReason

SHEET_PART = "xl/worksheets/sheet1.xml"
STRINGS_PART = "xl/sharedStrings.xml"
TYPES_PART = "[Content_Types].xml"
MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def make(path: Path, fill: Callable[[Worksheet], object], *, mac: bool = False) -> Path:
    book = openpyxl.Workbook()
    if mac:
        book.epoch = CALENDAR_MAC_1904
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    fill(sheet)
    book.save(path)
    return path


def table(*rows: Sequence[Any]) -> Callable[[Worksheet], None]:
    def fill(sheet: Worksheet) -> None:
        for row in rows:
            sheet.append(list(row))

    return fill


def replace_part(path: Path, part: str, change: Callable[[str], str]) -> Path:
    """Change a part of the package by hand: what Excel writes and openpyxl does not."""
    with zipfile.ZipFile(path) as package:
        parts = {name: package.read(name) for name in package.namelist()}
    parts[part] = change(parts.get(part, b"").decode()).encode()
    with zipfile.ZipFile(path, "w") as package:
        for name, data in parts.items():
            package.writestr(name, data)
    return path


def with_sheet(path: Path, rows: str, *, strings: str = "", merged: str = "") -> Path:
    """Make a workbook whose sheet holds just these <row> elements."""
    make(path, table(["x"]))
    sheet = f"<worksheet {MAIN}><sheetData>{rows}</sheetData>{merged}</worksheet>"
    replace_part(path, SHEET_PART, lambda _: sheet)
    # openpyxl writes strings into the cells; Excel keeps them in a part of their own.
    override = f'<Override PartName="/{STRINGS_PART}" ContentType="{SHARED_STRINGS}"/></Types>'
    replace_part(path, TYPES_PART, lambda types: types.replace("</Types>", override))
    return replace_part(path, STRINGS_PART, lambda _: f"<sst {MAIN}>{strings}</sst>")


def read(
    path: Path, columns: Sequence[str] = (), *, sheet: str | None = None, header_row: int = 1
) -> list[Row | BrokenRow]:
    return list(read_rows(path, TableFormat(None, None, sheet, header_row), columns))


def cells(rows: list[Row | BrokenRow]) -> list[dict[str, object]]:
    return [dict(row.cells) for row in rows if isinstance(row, Row)]


def test_text_numbers_and_dates(tmp_path: Path) -> None:
    path = make(
        tmp_path / "客户.xlsx",
        table(
            ["客户名称", "金额", "日期", "时刻", "钟点", "是"],
            [
                "远山贸易",
                1054,
                date(2024, 2, 29),
                datetime.fromisoformat("2024-03-01 14:05:09"),
                time(8, 30),
                True,
            ],
            [None, 0.1, None, None, None, False],
        ),
    )
    assert cells(read(path, ["客户名称", "金额"])) == [
        {
            "客户名称": "远山贸易",
            "金额": 1054,
            "日期": datetime.fromisoformat("2024-02-29"),
            "时刻": datetime.fromisoformat("2024-03-01 14:05:09"),
            "钟点": time(8, 30),
            "是": True,
        },
        {"客户名称": "", "金额": Decimal("0.1"), "日期": "", "时刻": "", "钟点": "", "是": False},
    ]


def test_date_system_of_1904(tmp_path: Path) -> None:
    path = make(
        tmp_path / "mac.xlsx", table(["when"], [datetime.fromisoformat("2024-02-29")]), mac=True
    )
    with zipfile.ZipFile(path) as package:
        serial = re.search(rb"<v>(\d+)</v>", package.read(SHEET_PART))
    assert serial is not None
    # 1,462 days fewer than in the system of 1900.
    assert int(serial[1]) == 45351 - 1462
    assert cells(read(path)) == [{"when": datetime.fromisoformat("2024-02-29")}]


@pytest.mark.parametrize(
    ("stored", "number"),
    [
        ("0.30000000000000004", Decimal("0.3")),
        ("1054.0999999999999", Decimal("1054.1")),
        ("1.1000000000000001", Decimal("1.1")),
        ("1234567.89", Decimal("1234567.89")),
        ("1054.0", 1054),
        ("1.3800138001E10", 13800138001),
        ("1E+20", 10**20),
        ("2.5E-3", Decimal("0.0025")),
        ("-12.50", Decimal("-12.5")),
        ("12345678901234567", 12345678901234567),
    ],
)
def test_numbers_have_no_tail_of_a_float(
    tmp_path: Path, stored: str, number: Decimal | int
) -> None:
    """Excel shows 15 digits and stores 17; whole numbers of other programs stay exact."""
    path = with_sheet(
        tmp_path / "numbers.xlsx",
        '<row r="1"><c r="A1" t="inlineStr"><is><t>n</t></is></c></row>'
        f'<row r="2"><c r="A2"><v>{stored}</v></c></row>',
    )
    (found,) = cells(read(path))
    assert found == {"n": number}
    assert type(found["n"]) is type(number)


def test_shared_strings_with_runs_guides_and_escapes(tmp_path: Path) -> None:
    path = with_sheet(
        tmp_path / "strings.xlsx",
        '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c></row>'
        '<row r="2"><c r="A2" t="s"><v>2</v></c><c r="B2" t="s"><v>3</v></c></row>'
        '<row r="3"><c r="A3" t="s"><v>4</v></c><c r="B3" t="s"><v>2</v></c></row>',
        strings="<si><t>name</t></si><si><t>note</t></si>"
        "<si><r><t>远山</t></r><r><rPr><b/></rPr><t>贸易</t></r><rPh><t>ユェン</t></rPh></si>"
        "<si><t>a_x000D_b_x0007__xD83D__xDE00_</t></si><si><t>_xD800_</t></si>",
    )
    assert cells(read(path, ["name"])) == [
        {"name": "远山贸易", "note": "a\rb\x07😀"},
        {"name": "\ud800", "note": "远山贸易"},
    ]


def test_cells_and_rows_without_references_follow_each_other(tmp_path: Path) -> None:
    path = with_sheet(
        tmp_path / "plain.xlsx",
        '<row><c t="str"><v>a</v></c><c t="str"><v>b</v></c></row>'
        '<row r="4"><c r="B4"><v>2</v></c></row><row><c><v>3</v></c></row>',
    )
    rows = read(path)
    assert cells(rows) == [{"a": "", "b": 2}, {"a": 3, "b": ""}]
    assert [row.number for row in rows] == [4, 5]


def test_formulas_count_by_their_cached_value(tmp_path: Path) -> None:
    path = make(tmp_path / "f.xlsx", table(["a", "b", "c"], ["=1+1", '=""', "=NOW()"]))

    def calculated(sheet: str) -> str:
        sheet = sheet.replace("<f>1+1</f><v />", "<f>1+1</f><v>2</v>")
        return sheet.replace('r="B2"><f>""</f><v />', 'r="B2" t="str"><f>""</f><v></v>')

    replace_part(path, SHEET_PART, calculated)
    assert cells(read(path)) == [
        {"a": 2, "b": "", "c": CellFault(RejectReason.FORMULA_WITHOUT_VALUE, "")}
    ]


def test_error_cells_are_faults(tmp_path: Path) -> None:
    path = make(tmp_path / "e.xlsx", table(["a", "b"], ["#N/A", "x"]))
    assert cells(read(path)) == [{"a": CellFault(RejectReason.CELL_ERROR, "#N/A"), "b": "x"}]


def test_dates_that_only_excel_knows_or_that_are_none(tmp_path: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        sheet.append(["a", "b", "c"])
        sheet.append([60, 99_999_999, 61])
        for cell in sheet[2]:
            cell.number_format = "yyyy-mm-dd"

    assert cells(read(make(tmp_path / "d.xlsx", fill))) == [
        {
            "a": CellFault(RejectReason.DATE_DOES_NOT_EXIST, "1900-02-29"),
            "b": CellFault(RejectReason.DATE_OUT_OF_RANGE, "99999999"),
            "c": datetime.fromisoformat("1900-03-01"),
        }
    ]


def test_merged_cells_count_for_every_cell_of_the_range(tmp_path: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        sheet.append(["负责人", "客户", "省份"])
        sheet.append(["李明", "甲", "浙江"])
        sheet.append([None, "乙", None])
        sheet.append([None, "丙", "广东"])
        sheet.append(["王芳", "丁", "x"])
        sheet.append(["same", None, "y"])
        sheet.merge_cells("A2:A4")
        sheet.merge_cells("C2:C3")
        sheet.merge_cells("A6:B6")

    rows = cells(read(make(tmp_path / "m.xlsx", fill), ["负责人", "客户"]))
    assert [tuple(row.values()) for row in rows] == [
        ("李明", "甲", "浙江"),
        ("李明", "乙", "浙江"),
        ("李明", "丙", "广东"),
        ("王芳", "丁", "x"),
        ("same", "same", "y"),
    ]


def test_row_that_merges_alone_fill_is_the_tall_row_above_it(tmp_path: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        sheet.append(["a", "b"])
        sheet.append(["1", "2"])
        sheet.append([None, None])
        sheet.append(["3", "4"])
        sheet.merge_cells("A2:A3")
        sheet.merge_cells("B2:B3")

    rows = read(make(tmp_path / "m.xlsx", fill))
    assert [row.number for row in rows] == [2, 4]


def test_header_merged_over_two_rows(tmp_path: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        sheet.append(["name", "contact", None])
        sheet.append([None, "phone", "mail"])
        sheet.append(["x", "1", "2"])
        sheet.merge_cells("A1:A2")
        sheet.merge_cells("B1:C1")

    rows = read(make(tmp_path / "m.xlsx", fill), ["name", "mail"], header_row=2)
    assert cells(rows) == [{"name": "x", "phone": "1", "mail": "2"}]


def test_what_a_merge_covers_is_not_shown(tmp_path: Path) -> None:
    """Other programs leave values below a merge; Excel shows the first one only."""
    path = with_sheet(
        tmp_path / "covered.xlsx",
        '<row r="1"><c r="A1" t="str"><v>a</v></c><c r="B1" t="str"><v>b</v></c></row>'
        '<row r="2"><c r="A2"><v>1</v></c><c r="B2"><v>5</v></c></row>'
        '<row r="3"><c r="A3"><v>2</v></c><c r="B3"><v>6</v></c></row>',
        merged='<mergeCells count="1"><mergeCell ref="A2:A3"/></mergeCells>',
    )
    assert cells(read(path)) == [{"a": 1, "b": 5}, {"a": 1, "b": 6}]


def test_many_merged_ranges_over_a_chunk_of_the_file(tmp_path: Path) -> None:
    """The ranges are searched in chunks of the file; none may be lost or seen twice."""
    count = 40_000

    def fill(sheet: Worksheet) -> None:
        sheet.append(["a", "b"])
        sheet.append(["first", 0])

    path = make(tmp_path / "many.xlsx", fill)
    rows = "".join(
        f'<row r="{2 * n}"><c r="A{2 * n}"><v>{n}</v></c><c r="B{2 * n}"><v>1</v></c></row>'
        f'<row r="{2 * n + 1}"><c r="B{2 * n + 1}"><v>2</v></c></row>'
        for n in range(1, count + 1)
    )
    merged = "".join(f'<mergeCell ref="A{2 * n}:A{2 * n + 1}"/>' for n in range(1, count + 1))

    def change(sheet: str) -> str:
        head = sheet[: sheet.index('<row r="2">')]
        return f"{head}{rows}</sheetData><mergeCells>{merged}</mergeCells></worksheet>"

    replace_part(path, SHEET_PART, change)
    found = [row["a"] for row in cells(read(path))]
    assert found == [n for n in range(1, count + 1) for _ in range(2)]


def test_hidden_rows_are_rows_and_empty_ones_are_none(tmp_path: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        for row in (["a", "b"], ["1", "2"], [None, None], ["", None], ["3", "4"]):
            sheet.append(list(row))
        sheet.row_dimensions[5].hidden = True
        sheet.row_dimensions[7].height = 30

    rows = read(make(tmp_path / "h.xlsx", fill))
    assert [row.number for row in rows] == [2, 5]


def test_cells_beside_the_table_do_not_break_its_rows(tmp_path: Path) -> None:
    path = make(
        tmp_path / "b.xlsx", table(["a", "b", None], ["1", None, None, "a note"], [None, "2"])
    )
    assert cells(read(path)) == [{"a": "1", "b": ""}, {"a": "", "b": "2"}]


def test_sheets_are_chosen_by_name_else_the_first_visible_one(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    first = book.active
    assert isinstance(first, Worksheet)
    first.title = "notes"
    first.append(["x"])
    first.sheet_state = "hidden"
    for name in ("华东", "华南"):
        sheet = book.create_sheet(name)
        sheet.append(["name"])
        sheet.append([name])
    book.save(tmp_path / "s.xlsx")
    path = tmp_path / "s.xlsx"
    assert cells(read(path)) == [{"name": "华东"}]
    assert cells(read(path, sheet="华南")) == [{"name": "华南"}]
    with pytest.raises(SheetMissingError, match="'华南'"):
        read(path, sheet="华北")


def test_empty_sheet_and_missing_header(tmp_path: Path) -> None:
    with pytest.raises(FileEmptyError):
        read(make(tmp_path / "e.xlsx", table()))
    with pytest.raises(HeaderMissingError):
        read(make(tmp_path / "t.xlsx", table([None], ["name"])))
    with pytest.raises(ColumnMissingError):
        read(make(tmp_path / "c.xlsx", table(["name"])), ["nmae"])


def test_workbook_is_known_by_its_bytes_whatever_its_name(tmp_path: Path) -> None:
    path = make(tmp_path / "export.csv", table(["a"], ["x"]))
    assert cells(read(path)) == [{"a": "x"}]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"a,b\n1,2\n", "no Excel workbook", id="text"),
        pytest.param(b"PK\x03\x04 and nothing more", "damaged", id="cut off"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "password", id="old"),
    ],
)
def test_file_that_is_no_workbook(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "x.xlsx"
    path.write_bytes(data)
    with pytest.raises(NotAWorkbookError, match=says) as caught:
        read(path)
    assert caught.value.way_out


def test_zip_that_is_no_workbook(tmp_path: Path) -> None:
    path = tmp_path / "x.xlsx"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("readme.txt", "hello")
    with pytest.raises(NotAWorkbookError):
        read(path)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda sheet: sheet[: len(sheet) // 2], id="cut off"),
        pytest.param(lambda sheet: sheet.replace('r="2"', 'r="1"'), id="rows out of order"),
        pytest.param(lambda sheet: sheet.replace('r="2"', 'r="2000000"'), id="row too far"),
        pytest.param(lambda sheet: sheet.replace('"A2"', '"XFE2"'), id="column too far"),
        pytest.param(
            lambda sheet: sheet.replace('t="inlineStr"><is><t>x</t></is>', 't="s"><v>99</v>'),
            id="no such string",
        ),
    ],
)
def test_damaged_sheet(tmp_path: Path, damage: Callable[[str], str]) -> None:
    path = make(tmp_path / "x.xlsx", table(["a"], ["x"], ["y"]))
    replace_part(path, SHEET_PART, damage)
    with pytest.raises(NotAWorkbookError):
        read(path)


def test_dates_in_iso_form(tmp_path: Path) -> None:
    """Some programs store dates as text of their own type; a duration is no date."""
    cell = '<c t="d"><v>{}</v></c>'
    values = ("2024-02-29", "2024-02-29T14:05:06", "08:30:00", "PT1H", "soon")
    path = with_sheet(
        tmp_path / "iso.xlsx",
        "<row>" + "".join(f'<c t="str"><v>{name}</v></c>' for name in "abcde") + "</row>"
        "<row>" + "".join(map(cell.format, values)) + "</row>",
    )
    assert cells(read(path)) == [
        {
            "a": date(2024, 2, 29),
            "b": datetime.fromisoformat("2024-02-29 14:05:06"),
            "c": time(8, 30),
            "d": CellFault(RejectReason.DATE_UNREADABLE, "PT1H"),
            "e": CellFault(RejectReason.DATE_UNREADABLE, "soon"),
        }
    ]


def test_numbers_that_are_none(tmp_path: Path) -> None:
    path = with_sheet(
        tmp_path / "n.xlsx",
        '<row><c t="str"><v>a</v></c><c t="str"><v>b</v></c></row>'
        "<row><c><v>NaN</v></c><c><v>1,5</v></c></row>",
    )
    assert cells(read(path)) == [
        {
            "a": CellFault(RejectReason.NUMBER_UNREADABLE, "NaN"),
            "b": CellFault(RejectReason.NUMBER_UNREADABLE, "1,5"),
        }
    ]


def test_durations_are_numbers_and_not_dates(tmp_path: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        sheet.append(["hours"])
        sheet.append([1.5])
        sheet["A2"].number_format = "[h]:mm:ss"

    assert cells(read(make(tmp_path / "d.xlsx", fill))) == [{"hours": Decimal("1.5")}]
