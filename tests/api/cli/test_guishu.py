"""The command line as people use it: real processes, an embedded server of the test's own."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from ledger.store.embedded import embedded_server
from tests.support.database import DatabaseUrls
from tests.support.folders import data_folder
from tests.support.processes import run, wait_until

_GUISHU = [sys.executable, "-c", "from api.cli.main import run; run()"]


class Terminal:
    """Runs guishu in a folder, on the ledger that is kept there."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.output = folder / "run.log"
        left_out = {"DATABASE_URL", "GUISHU_MASTER_KEY", "GUISHU_SETTINGS", "KAFKA_BOOTSTRAP"}
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in left_out},
            "GUISHU_DATA_DIRECTORY": str(folder / "data"),
            "COLUMNS": "200",
            # Others may be using the usual one.
            "GUISHU_HTTP_PORT": "0",
            **environment,
        }

    def guishu(self, *arguments: str, status: int = 0) -> str:
        """Run a command to its end and return what it printed; its exit status is checked."""
        done = subprocess.run(  # noqa: S603 - our own interpreter and arguments
            [*_GUISHU, *arguments],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status in (0, 3) else done.stdout + done.stderr

    def json(self, *arguments: str, status: int = 0) -> Any:
        """Run a command with --json and return what it said."""
        return json.loads(self.guishu(*arguments, "--json", status=status))

    def events(self) -> list[dict[str, Any]]:
        """Return all events of the log, as JSON."""
        lines = self.guishu("events", "--limit", "100000", "--json").splitlines()
        return [json.loads(line) for line in lines]

    def run(
        self, *options: str, command: str = "run", until: str = "Ctrl-C stops"
    ) -> subprocess.Popen[bytes]:
        """Start ``guishu run``, or another command, and wait until it shows what to try."""
        with self.output.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                [*_GUISHU, command, *options],
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: process.poll() is not None or until in self.shown())
        assert process.poll() is None, self.shown()
        return process

    def begin(self, role: str) -> subprocess.Popen[bytes]:
        """Start a role; ``role``.log is what it says, and ``role``.alive is there with it."""
        with (self.folder / f"{role}.log").open("wb") as output:
            return subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                [*_GUISHU, role],
                cwd=self.folder,
                env={
                    **self._environment,
                    "GUISHU_ALIVE_FILE": str(self.folder / f"{role}.alive"),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def shown(self) -> str:
        """Return what ``run`` has shown so far."""
        return self.output.read_text(encoding="utf-8")

    def to_try(self) -> list[list[str]]:
        """Return the commands that ``run`` suggests, as words, without the program's name."""
        return [
            line.split()[1:] for line in self.shown().splitlines() if ".venv/bin/guishu" in line
        ]


@pytest.fixture
def terminal(servers_folder: Path) -> Terminal:
    return Terminal(servers_folder)


@pytest.fixture(scope="module")
def served() -> Iterator[Terminal]:
    """An office with an administrator, whose server runs meanwhile: no command starts it anew.

    For tests that can share it. Not in tmp_path, for the reason that servers_folder gives.
    """
    with data_folder() as folder:
        terminal = Terminal(folder)
        terminal.guishu("init", "东方智造", "陈建国")
        with embedded_server(terminal.folder / "data"):
            yield terminal


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """The folder of a ledger whose demo was made, and which was stopped."""
    with data_folder() as folder:
        terminal = Terminal(folder)
        running = terminal.run("--demo")
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0, terminal.shown()
        yield terminal.folder


@pytest.fixture
def demo(made: Path, servers_folder: Path) -> Terminal:
    """A terminal in a folder of its own, in which the demo was made a moment ago."""
    # With its owner: the server does not run as root.
    done = run("cp", "-a", str(made / "data"), str(servers_folder / "data"))
    assert done.returncode == 0, done.stderr
    return Terminal(servers_folder)


def test_run_shows_what_other_terminals_do_and_keeps_it(demo: Terminal) -> None:
    terminal = demo
    running = terminal.run("--demo")
    try:
        claim, follow_up, whois = terminal.to_try()
        assert "granted: " in terminal.guishu(*claim)
        terminal.guishu(*follow_up)
        name, person = claim[1], claim[3]
        assert f"{name} belongs to {person}" in terminal.guishu(*whois)
        wait_until(lambda: f"granted: {name} belongs to {person}" in terminal.shown())

        kinds = {each["conflict"]["kind"] for each in terminal.json("conflicts", "--open")}
        assert kinds == {"follow_up", "deal", "group", "identifier"}
        (asked,) = terminal.json("collaborate", "list")
        assert asked["status"] == "asked"

        # Some are warned of within minutes of the start, and others in the days behind.
        soon = [each["kind"] for each in terminal.json("due", "--days", "1")]
        events = terminal.events()
        warned = [each for each in events if each["name"] == "RecycleWarned.v1"]
        assert soon.count("recycle_warning") + len(warned) >= 4
        (foretold,) = re.findall(r"(\d+) customers go back to the pool", terminal.shown())
        assert 10 <= int(foretold) <= 60
        noted = [each["data"].get("remark") for each in events]
        assert noted.count("token_follow_up") == 2

        refused = terminal.json("claim", name, "--as", "陈建国", status=3)
        assert refused["decisions"][0]["reason"] == "owned_by_another"
        told = terminal.json("history", name)["entries"]
        assert [each["event"] for each in told][-2:] == ["ClaimFiled", "ClaimRefused"]
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0, terminal.shown()
    assert f"{name} belongs to {person}" in terminal.guishu(*whois)


def test_run_serves_http_and_what_it_prints_works(demo: Terminal) -> None:
    terminal = demo
    running = terminal.run("--demo")
    try:
        wait_until(lambda: terminal.shown().count("curl -sS") == 3)
        tried = re.findall(r"^  (curl -sS .*)$", terminal.shown(), re.MULTILINE)
        answers = [json.loads(given(each)) for each in tried]
        assert len(answers[0]["items"]) == 3
        assert answers[1]["state"] == "free"
        assert answers[2]["status"] == "granted"
        assert answers[2]["customer"] == answers[1]["customer"]
        # Else the README's example would come out otherwise for whoever tries these first.
        others = terminal.guishu("customers", terminal.to_try()[0][1], "--ids")
        assert "cus_" in others
        assert answers[1]["customer"] not in others
        tokens = terminal.folder / "data" / "demo-tokens.json"
        assert tokens.stat().st_mode & 0o077 == 0
        said, got = page_statuses(terminal)
        assert got == said
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0, terminal.shown()
    elsewhere = Terminal(terminal.folder, GUISHU_HTTP_HOST="0.0.0.0")  # noqa: S104 - it refuses
    assert "demo_tokens" in elsewhere.guishu("serve", status=1)


def page_statuses(terminal: Terminal) -> tuple[list[str], list[str]]:
    """Run the examples of docs/http.md in a shell; return what they should answer, and what came.

    A comment in front of each curl command says which status it gets.
    """
    page = (Path(__file__).parents[3] / "docs" / "http.md").read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    # Each of them tells its status on standard error, besides.
    told = "curl() { command curl -w '%{stderr}\\nstatus %{http_code}\\n' \"$@\"; }\n"
    tokens = list(json.loads((terminal.folder / "data/demo-tokens.json").read_text()).values())
    (address,) = re.findall(r"HTTP is served on (\S+)", terminal.shown())
    done = subprocess.run(  # noqa: S603 - our own page
        ["bash", "-euo", "pipefail", "-c", told + script],  # noqa: S607 - a developer's machine has it
        cwd=terminal.folder,
        env={**os.environ, "GUISHU": address, "ADMIN": tokens[0], "REP": tokens[-1]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^# (\d{3})$", script, re.MULTILINE), re.findall(
        r"^status (\d{3})$", done.stderr, re.MULTILINE
    )


def given(command: str) -> str:
    """Return what a curl command gets, sent by a client of ours."""
    words = shlex.split(command)
    headers = [words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H"]
    body = next((words[at + 1] for at, word in enumerate(words) if word == "-d"), None)
    (url,) = [word for word in words if word.startswith("http://")]
    method = "GET" if body is None else "POST"
    answer = httpx.request(method, url, headers=dict(headers), content=body, timeout=20)
    assert answer.is_success, answer.text
    return answer.text


def test_run_in_an_empty_folder_says_how_to_begin(terminal: Terminal) -> None:
    """It ended as read_models_outdated: it asked read models that were not made yet."""
    running = terminal.run()
    try:
        assert "guishu init ORGANISATION ADMINISTRATOR" in terminal.shown()
        terminal.guishu("init", "恒信集团", "王芳")
        wait_until(lambda: "恒信集团" in terminal.shown())
        terminal.guishu("register", "远大电子", "--as", "王芳")
        wait_until(lambda: "王芳 enters 远大电子" in terminal.shown())
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0, terminal.shown()


def test_the_demo_shows_each_of_what_there_is(demo: Terminal) -> None:
    terminal = demo
    """All that a leaver had was orphaned; nothing was ruled on, handed over, or soon recycled."""
    running = terminal.run("--demo")
    try:
        outcomes = [each["outcome"] for each in terminal.json("transfers")]
        assert {None, "completed", "refused"} <= set(outcomes)
        assert terminal.json("inbox", "--as", "林晓燕") or terminal.json("inbox", "--as", "黄丽华")
        ruled = [each["conflict"]["outcome"] for each in terminal.json("conflicts")]
        assert {None, "keep"} <= set(ruled)
        assert len(terminal.json("hand-overs")) == 2
        orphans = terminal.json("orphans")
        assert orphans
        assert all(each["orphan"]["stand_in"] for each in orphans)
        # The clock takes them a few minutes behind the start; who is slow finds them gone already.
        kinds = {each["kind"] for each in terminal.json("due", "--days", "1")}
        for kind, event in (("recycle_warning", "RecycleWarned"), ("recycle", "CustomerRecycled")):
            assert kind in kinds or f"{event}.v1" in {each["name"] for each in terminal.events()}
        terminal.guishu("verify")
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0, terminal.shown()


def test_after_a_kill_the_next_start_just_works(terminal: Terminal) -> None:
    killed = terminal.run("--demo")
    killed.kill()
    killed.wait()
    again = terminal.run("--demo")
    try:
        assert "in place" in terminal.shown()
        told = terminal.guishu("verify")
        assert "16 read models are what the log makes of them" in told
        assert "the enforcer's guards are what the log makes of them" in told
    finally:
        again.send_signal(signal.SIGINT)
        assert again.wait(30) == 0


def test_run_outlives_a_restart_of_the_database(
    servers_folder: Path, database: DatabaseUrls
) -> None:
    """Enforcer and projector tried again, but what shows the events ended the process.

    Once more it did, where the database went just when it looked from where on to show them; and
    where it went while addresses and tokens were looked up.
    """
    key = base64.b64encode(b"k" * 32).decode()
    terminal = Terminal(servers_folder, DATABASE_URL=database.owner_url, GUISHU_MASTER_KEY=key)
    running = terminal.run("--demo")
    try:
        with psycopg.connect(database.superuser_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        claim, _, _ = terminal.to_try()
        assert "granted: " in terminal.guishu(*claim)
        shown = f"granted: {claim[1]} belongs to {claim[3]}"
        wait_until(lambda: running.poll() is not None or shown in terminal.shown())
        assert running.poll() is None, terminal.shown()
        assert "Traceback" not in terminal.shown()
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0, terminal.shown()


def test_where_the_embedded_server_dies_it_is_said_how_to_go_on(demo: Terminal) -> None:
    terminal = demo
    """It was said to look at DATABASE_URL, which nobody had given."""
    running = terminal.run("--demo")
    server = terminal.folder / "data" / "postgres" / "postmaster.pid"
    os.kill(int(server.read_text(encoding="ascii").splitlines()[0]), signal.SIGKILL)
    assert running.wait(60) == 1
    assert "Give the command again, which starts the embedded server" in terminal.shown()
    assert "16 read models are what the log makes of them" in terminal.guishu("verify")


def test_an_empty_ledger_is_founded_and_used_without_a_server_running(
    terminal: Terminal,
) -> None:
    terminal.guishu("init", "东方智造", "陈建国")
    boss = ["--as", "陈建国"]
    terminal.guishu("territories", "define", "华东", "--head", "陈建国", *boss)
    terminal.guishu("people", "add", "林晓燕", "--territory", "华东", *boss)
    made = terminal.json("register", "苏州恒信电子有限公司", "--claim", "--as", "林晓燕")
    assert [each["name"] for each in made["decisions"]] == [
        "CustomerAdmitted.v1",
        "OwnershipGranted.v1",
    ]
    terminal.guishu(
        "deal", "苏州恒信电子有限公司", "won", "--value", "1054.00 CNY", "--as", "林晓燕"
    )
    released = terminal.guishu("release", "苏州恒信电子有限公司", "--as", "林晓燕")
    assert "is free again" in released
    assert terminal.json("customers", "恒信")[0]["ownership"]["owner"] is None
    people = terminal.json("people")
    assert {each["person"]["name"] for each in people} == {"陈建国", "林晓燕"}
    unknown = terminal.json("whois", "苏州恒信电子有限公司", "--as-of", "2020-01-01")
    assert unknown["state"] == "unknown"
    assert "claims a day" in terminal.guishu("policy")
    assert "TROUBLE" not in terminal.guishu("doctor")


def test_the_same_request_id_gets_the_first_answer(served: Terminal) -> None:
    first = served.json("register", "客户一", "--as", "陈建国", "--request-id", "r-1")
    again = served.json("register", "客户一", "--as", "陈建国", "--request-id", "r-1")
    assert again["repeated"]
    assert (again["customer"], again["positions"]) == (first["customer"], first["positions"])
    other = ("register", "客户二", "--as", "陈建国", "--request-id", "r-1")
    assert "request_reused" in served.guishu(*other, status=1)


def test_a_terminal_that_cannot_show_a_character_shows_its_number(served: Terminal) -> None:
    """What was asked for had been recorded, and then the command ended in a traceback."""
    terminal = Terminal(served.folder, PYTHONIOENCODING="ascii")
    told = terminal.guishu("register", "恒信", "--as", "陈建国")
    assert "admitted: \\u6052\\u4fe1" in told
    assert "\\u6052\\u4fe1" in terminal.guishu("customers")


def test_an_unknown_name_suggests_near_ones_and_records_nothing(served: Terminal) -> None:
    served.guishu("register", "苏州恒信电子有限公司", "--as", "陈建国")
    before = served.guishu("events", "--limit", "1000")
    told = served.guishu("claim", "苏州恒信电子公司", "--as", "陈建国", status=1)
    assert "not_found" in told
    assert "苏州恒信电子有限公司" in told
    told = served.guishu("claim", "苏州恒信电子有限公司", "--as", "陈建", status=1)
    assert "陈建国" in told
    assert served.guishu("events", "--limit", "1000") == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("register", "x" * 10_000), "invalid_request"),
        (("register", "a\x07b"), "invalid_request"),
        (("register", "客户", "--identifier", "uscc=91350100M000100Y4Z"), "check_digit"),
        (("register", "客户", "--identifier", "uscc"), "invalid_request"),
        (("register", "客户", "--attribute", "size:colour=1"), "invalid_request"),
    ],
)
def test_bad_input_gets_a_clear_error(
    served: Terminal, arguments: tuple[str, ...], code: str
) -> None:
    told = served.guishu(*arguments, "--as", "陈建国", status=1)
    assert told.startswith(code), told
    assert "Traceback" not in told


def test_a_command_does_not_wait_for_the_routes_to_be_made() -> None:
    """Half of what every command took to begin was making the routes of HTTP."""
    asked = "import sys, api.cli.main; print('fastapi' in sys.modules)"
    done = subprocess.run(  # noqa: S603 - our own interpreter and arguments
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"


def test_settings_are_shown_without_secrets(terminal: Terminal) -> None:
    shown = terminal.guishu("settings")
    assert "data_directory" in shown
    assert not re.search(r"[A-Za-z0-9+/]{43}=", shown)
