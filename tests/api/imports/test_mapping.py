"""Mappings: the examples are valid, and faults are named with their place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.imports.errors import FileUnreadableError, MappingInvalidError
from api.imports.mapping import Mapping, load_mapping, parse_mapping

EXAMPLES = Path(__file__).parents[3] / "examples"

HEAD = """
name = "test"
[constants]
time_zone = "Asia/Shanghai"
currency = "CNY"
cut_over = 2024-01-01
"""


def fault(text: str) -> str:
    with pytest.raises(MappingInvalidError) as caught:
        parse_mapping(text)
    assert caught.value.way_out
    return "\n".join(str(problem) for problem in caught.value.problems)


def with_file(text: str) -> str:
    return f'{HEAD}\n[[files]]\nfile = "a.csv"\n{text}'


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*/mapping.toml")), ids=lambda path: path.parent.name
)
def test_examples_are_valid(path: Path) -> None:
    assert load_mapping(path).name == path.parent.name


def test_columns_are_all_that_the_mapping_names() -> None:
    mapping = parse_mapping(
        with_file(
            """
            key = ["id", "line"]
            replace.stage = { a = "b" }
            [files.opportunity]
            agent = { column = "who", by = "id" }
            customer = "客户（名称）"
            engaged = "e"
            closed = "c"
            stage = { column = "stage", won = "Won", open = ["x", "y"] }
            [files.customer]
            name = "客户（名称）"
            kind = { column = "kind", individual = "个体" }
            identifiers = { uscc = "code" }
            attributes.size = { column = "s", type = "set", separator = "、" }
            [[files.customer.contacts]]
            phone = "tel"
            """
        )
    )
    assert sorted(mapping.files[0].columns()) == sorted(
        ["id", "line", "stage", "who", "客户(名称)", "e", "c", "kind", "code", "s", "tel"]
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('nmae = "x"', "There is no key 'nmae'; did you mean 'name'?"),
        (
            with_file('[files.customer]\nname = "a"\nattribtes.x = "y"'),
            "[[files]] number 1 (a.csv), [files.customer]: There is no key 'attribtes'; "
            "did you mean 'attributes'?",
        ),
        (
            with_file('[files.custommer]\nname = "a"'),
            "[[files]] number 1 (a.csv): There is no key 'custommer'; did you mean 'customer'?",
        ),
        (
            with_file('[files.deal]\nagent = "a"\ncustomer = "b"\nat = "c"'),
            "[[files]] number 1 (a.csv), [files.deal], key outcome: It is missing.",
        ),
        (
            with_file('[files.deal]\nagent = "a"\ncustomer = "b"\nat = "c"\noutcome = "maybe"'),
            "[files.deal], key outcome: Input should be 'won' or 'lost'.",
        ),
        (
            with_file("[files.customer]\nname = 3"),
            "[files.customer], key name: It names a column of the file, as text.",
        ),
        (
            with_file('[files.customer]\nname = "a"\nkind = { column = "k", individual = 3 }'),
            "[files.customer.kind], key individual: It is a text, or a list of texts",
        ),
        (
            with_file(
                '[files.customer]\nname = "a"\nattributes.x = { column = "k", type = "txt" }'
            ),
            "[files.customer.attributes.x], key type: Input should be 'text',",
        ),
        (
            with_file('[files.customer]\nname = "a"\nattributes."Größe" = "k"'),
            "[files.customer.attributes]: 'Größe': names here are a-z, 0-9 and _",
        ),
        (
            with_file('[files.customer]\nname = "a"\n[[files.customer.contacts]]'),
            "A contact needs at least one of name, phone, email.",
        ),
        (with_file(""), "It says not what a row means: add one of [files.person]"),
        (
            with_file('[files.person]\nname = "a"\nmanager = "b"'),
            "A manager manages the row's territory, so territory is needed.",
        ),
        (
            with_file(
                '[files.opportunity]\nagent = "a"\ncustomer = "b"\nengaged = "c"\nclosed = "d"'
            ),
            "[files.opportunity]: closed and stage belong together",
        ),
        (
            with_file(
                '[files.opportunity]\nagent = "a"\ncustomer = "b"\nengaged = "c"\nclosed = "d"\n'
                'stage = { column = "s", won = "X", lost = "x" }'
            ),
            "[files.opportunity.stage]: 'x' stands for won and for lost.",
        ),
        (with_file('key = ""\n[files.customer]\nname = "a"'), "key key: It names a column"),
        (
            with_file('encoding = "utf-9"\n[files.customer]\nname = "a"'),
            "key encoding: 'utf-9' is no known encoding",
        ),
        (
            with_file('delimiter = ";;"\n[files.customer]\nname = "a"'),
            "key delimiter: A delimiter is one character",
        ),
        (
            with_file('date_formats = ["%d.%m.%y"]\n[files.customer]\nname = "a"'),
            "years of two digits, which leave the century open",
        ),
        (
            HEAD + '[[files]]\nfile = "../a.csv"\n[files.customer]\nname = "a"',
            "must be a file inside the folder",
        ),
        (
            HEAD + '[[files]]\nfile = "/etc/passwd"\n[files.customer]\nname = "a"',
            "inside the folder",
        ),
        (
            HEAD + '[[files]]\nfile = "a\\u0007.csv"\n[files.customer]\nname = "a"',
            "'a\\x07.csv' holds a control character; rename it",
        ),
        (
            HEAD + '[[files]]\nfile = "a\\u0000.csv"\n[files.customer]\nname = "a"',
            "'a\\x00.csv' holds a control character; rename it",
        ),
        (
            HEAD + '[[files]]\nfile = "a.xlsx"\nsheet = "b\\u0000"\n[files.customer]\nname = "a"',
            "key sheet: 'b\\x00' holds a control character",
        ),
        (
            with_file('[files.customer]\nname = "a"') * 1
            + '\n[[files]]\nfile = "a.csv"\n[files.person]\nname = "a"',
            "a.csv stands in two [[files]]: give one all the meanings.",
        ),
        (HEAD.replace("Shanghai", "Shangai"), "[constants], key time_zone: 'Asia/Shangai' is no"),
        (HEAD.replace('"CNY"', '"yuan"'), "[constants], key currency: 'yuan' is no currency"),
        (
            HEAD.replace("2024-01-01", '"2024-01-01"'),
            "[constants], key cut_over: It is a day or a moment, written without quotes",
        ),
        (HEAD + 'date_formats = ["%Q"]', "'%Q' holds '%Q'; the known parts are"),
        (HEAD, "key files: It is missing."),
        (
            with_file('[files.owner]\ncustomer = "a"\nowner = "b"').replace("cut_over", "#"),
            "(a.csv) is an opening balance, which needs [constants] cut_over",
        ),
        (
            with_file(
                '[files.deal]\nagent = "a"\ncustomer = "b"\nat = "c"\noutcome = "won"\nvalue = "v"'
            ).replace("currency", "#"),
            "(a.csv) holds money, which needs [constants] currency.",
        ),
        (HEAD.replace('"test"', '"My Test"'), "key name: 'My Test': a name is a-z, 0-9 and -"),
        ("name = ", "It is not valid TOML"),
    ],
)
def test_faults_name_their_place_and_the_way_out(text: str, says: str) -> None:
    assert says in fault(text)


def test_all_faults_are_listed_at_once() -> None:
    text = fault(
        HEAD
        + """
        [[files]]
        file = "a.csv"
        [files.customer]
        nam = "a"
        [[files]]
        file = "b.csv"
        [files.person]
        nam = "a"
        """
    )
    assert "number 1 (a.csv)" in text
    assert "number 2 (b.csv)" in text


def test_cut_over_is_a_moment_of_the_time_zone() -> None:
    def cut_over(stated: str, zone: str = "Asia/Shanghai") -> datetime | None:
        text = HEAD.replace("2024-01-01", stated).replace("Asia/Shanghai", zone)
        file = '[[files]]\nfile = "a.csv"\n[files.customer]\nname = "a"'
        return parse_mapping(text + file).constants.cut_over_instant()

    assert cut_over("2024-01-01") == datetime(2023, 12, 31, 16, tzinfo=UTC)
    assert cut_over("2024-01-01T08:00:00") == datetime(2024, 1, 1, tzinfo=UTC)
    assert cut_over("2024-01-01T08:00:00+01:00") == datetime(2024, 1, 1, 7, tzinfo=UTC)
    assert "time_in_gap" in fault(
        HEAD.replace("2024-01-01", "2024-03-10T02:30:00").replace(
            "Asia/Shanghai", "America/New_York"
        )
        + '[[files]]\nfile = "a.csv"\n[files.customer]\nname = "a"'
    )


def test_mapping_file_with_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    text = with_file('[files.customer]\nname = "客户名称"').replace("\n", "\r\n")
    path = tmp_path / "mapping.toml"
    path.write_bytes(text.encode("utf-8-sig"))
    mapping = load_mapping(path)
    assert isinstance(mapping, Mapping)
    assert mapping.files[0].columns() == ["客户名称"]


def test_mapping_file_in_another_encoding_or_missing(tmp_path: Path) -> None:
    path = tmp_path / "mapping.toml"
    path.write_bytes('name = "x"\n# 客户\n'.encode("gb18030"))
    with pytest.raises(MappingInvalidError, match="line 2: It is not UTF-8"):
        load_mapping(path)
    with pytest.raises(FileUnreadableError):
        load_mapping(tmp_path / "nothing.toml")
