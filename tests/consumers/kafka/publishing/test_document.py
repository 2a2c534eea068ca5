"""The AsyncAPI document: by the project's own parser, and beside what is really told."""

from __future__ import annotations

import re
from pathlib import Path

import orjson

from consumers.kafka.publishing.document import asyncapi
from consumers.kafka.publishing.messages import Current, Transferred
from consumers.kafka.publishing.telling import PUBLIC
from tests.consumers.kafka.publishing.support import check_body
from tests.support.node import program, with_packages
from tests.support.processes import run

ROOT = Path(__file__).parents[4]


def test_it_is_valid_for_the_parser_of_asyncapi(tmp_path: Path) -> None:
    checking = with_packages(ROOT / "tests" / "asyncapi", tmp_path / "asyncapi")
    checked = run(program("node"), checking / "check.mjs", ROOT / "docs" / "asyncapi.json")
    complaints = [each for each in checked.stdout.splitlines() if not _is_advice(each)]
    assert (complaints, checked.stderr) == (["valid 3.0.0"], "")


def _is_advice(line: str) -> bool:
    return line.startswith(("information ", "hint "))


def test_it_has_every_type_that_is_told_with_words_for_each_field() -> None:
    components = asyncapi()["components"]
    names = {each["name"] for each in components["messages"].values()}
    assert names == {Current.type, *(each.type for each in PUBLIC.values())}
    for title, schema in components["schemas"].items():
        assert schema["description"], title
        for name, field in schema["properties"].items():
            told_by_its_own = "$ref" in field or field.get("type") == "array"
            assert field.get("description") or told_by_its_own, f"{title}.{name}"


def test_the_example_for_subscribers_is_what_would_be_told() -> None:
    page = (ROOT / "docs" / "kafka.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    check_body(Transferred.type, orjson.loads(example))
