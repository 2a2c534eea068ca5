"""Offices for the tests of the command line: each is staffed once a session, and then copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.api.cli.test_commands import BOSS, Shell
from tests.support.database import DatabaseUrls, Templates

Staffed = Callable[[Shell, Path], None]
"""Gives the commands that staff an office; takes an empty folder as well."""

Office = Callable[[Staffed], DatabaseUrls]


@pytest.fixture
def office(
    templates: Templates,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[Office]:
    """Call it with what staffs an office, for the database of a new one that is staffed so.

    Such commands take longer than those of many a test, and bring the same each time.
    """
    with ExitStack() as stack:

        def copy(staffed: Staffed) -> DatabaseUrls:
            def prepare(urls: DatabaseUrls) -> None:
                staffed(Shell(monkeypatch, capsys, urls.owner_url), tmp_path)

            return stack.enter_context(templates.copy(staffed, prepare))

        yield copy


def _found(shell: Shell, folder: Path) -> None:
    shell("init", "东方智造", "陈建国")
    shell("territories", "define", "华东", "--head", "陈建国", *BOSS)
    shell("people", "add", "李娜", "--territory", "华东", *BOSS)


@pytest.fixture
def founded(office: Office) -> DatabaseUrls:
    """An organisation with its administrator, who heads the one territory, and a rep there."""
    return office(_found)
