"""docker-compose.yml and the Dockerfile, as far as they can be looked at without Docker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from api.cli.main import make_app
from api.settings import Settings
from tests.support.processes import run

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
OURS = {name: each for name, each in COMPOSE["services"].items() if each["image"] == "guishu"}
_VARIABLE = re.compile(r"\$\{(\w+)([^}]*)\}")


def variables() -> set[tuple[str, str]]:
    """Return the variables that the file reads, and what it says where they are not set."""
    return set(_VARIABLE.findall((ROOT / "docker-compose.yml").read_text("utf-8")))


@pytest.mark.parametrize("service", OURS)
def test_every_role_is_a_command_that_there_is(service: str) -> None:
    command: Any = typer.main.get_command(make_app())
    for word in OURS[service]["command"]:
        command = command.commands[word]
    assert not hasattr(command, "commands")


@pytest.mark.parametrize("service", OURS)
def test_every_setting_is_one_that_there_is(service: str) -> None:
    known = {f"GUISHU_{name.upper()}" for name in Settings.model_fields}
    known |= {"DATABASE_URL", "KAFKA_BOOTSTRAP"}
    assert set(OURS[service]["environment"]) <= known


def test_no_secret_has_a_default_and_the_documented_command_makes_each(tmp_path: Path) -> None:
    assert {otherwise for _, otherwise in variables()} == {":?run deploy/make-secrets.sh"}
    (tmp_path / "deploy").mkdir()
    script = tmp_path / "deploy" / "make-secrets.sh"
    script.write_bytes((ROOT / "deploy" / "make-secrets.sh").read_bytes())
    assert run("/bin/sh", script).returncode == 0
    made = tmp_path / ".env"
    lines = [line.partition("=") for line in made.read_text("utf-8").splitlines()]
    assert {name for name, _, _ in lines} == {name for name, _ in variables()}
    assert all(len(value) >= 44 for _, _, value in lines)
    assert len({value for _, _, value in lines}) == len(lines)
    assert made.stat().st_mode & 0o777 == 0o600
    before = made.read_bytes()
    assert run("/bin/sh", script).returncode == 1
    assert made.read_bytes() == before


def test_what_the_command_makes_is_never_committed() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_no_port_is_published_to_other_machines() -> None:
    published = [port for each in COMPOSE["services"].values() for port in each.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_what_keeps_data_has_a_volume_and_says_whether_it_is_well() -> None:
    for name in ("postgres", "kafka"):
        service = COMPOSE["services"][name]
        assert service["healthcheck"]["test"][0] == "CMD"
        assert any(volume.startswith(f"{name}:") for volume in service["volumes"])
    assert set(COMPOSE["volumes"]) == {"postgres", "kafka"}


ROLES = sorted({"relay", "enforcer", "projector", "clock"})


def check_health(service: str, file: Path) -> int:
    """Run a service's health check as its container would, for an alive file of ours."""
    program, *arguments = COMPOSE["services"][service]["healthcheck"]["test"][1:]
    assert program == "python"
    assert COMPOSE["services"][service]["environment"]["GUISHU_ALIVE_FILE"] in arguments[-1]
    words = [each.replace("/tmp/guishu-alive", str(file)) for each in arguments]  # noqa: S108 - of the container
    return run(sys.executable, *words).returncode


@pytest.mark.parametrize("service", ROLES)
def test_a_role_is_well_while_it_goes_round(service: str, tmp_path: Path) -> None:
    file = tmp_path / "alive"
    assert check_health(service, file) == 1
    file.touch()
    assert check_health(service, file) == 0
    long_ago = time.time() - 61
    os.utime(file, (long_ago, long_ago))
    assert check_health(service, file) == 1


def test_the_image_holds_every_folder_of_the_program_and_runs_as_nobody_special() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    sent = (ROOT / ".dockerignore").read_text("utf-8")
    for folder in ("ledger", "projections", "consumers", "api", "migrations"):
        assert f"COPY {folder} {folder}\n" in dockerfile
        assert f"!{folder}\n" in sent
    assert dockerfile.index("USER 10001") < dockerfile.index("ENTRYPOINT")


def test_the_scripts_are_scripts() -> None:
    for script in (ROOT / "deploy").glob("*.sh"):
        assert os.access(script, os.X_OK)
        subprocess.run(["/bin/sh", "-n", script], check=True)  # noqa: S603 - our own script
