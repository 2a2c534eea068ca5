"""Fetching Apache Kafka: what is missing is said, and what is in the cache is whole."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from consumers.kafka import fetching
from consumers.kafka.errors import JavaMissingError, KafkaFetchError, MavenMissingError

Program = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Call it with a name and a script: only such programs are on the PATH then."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        (folder / name).chmod(0o755)

    return put


class TestJava:
    def test_a_machine_without_java_is_told_what_to_install(self, program: Program) -> None:
        with pytest.raises(JavaMissingError, match="no java is on the PATH") as raised:
            fetching.java()
        assert raised.value.code == "java_missing"
        assert "Java 17" in raised.value.way_out
        assert "KAFKA_BOOTSTRAP" in raised.value.way_out

    @pytest.mark.parametrize(
        ("said", "version"), [('java version "1.8.0_292"', "8"), ('openjdk version "11.0.2"', "11")]
    )
    def test_a_java_that_is_too_old_is_refused(
        self, program: Program, said: str, version: str
    ) -> None:
        program("java", f"echo '{said}' >&2")
        with pytest.raises(JavaMissingError, match=f"is version {version}"):
            fetching.java()

    @pytest.mark.parametrize("said", ['openjdk version "17.0.15"', 'openjdk version "25" 2025-09'])
    def test_a_newer_one_is_taken(self, program: Program, said: str) -> None:
        program("java", f"echo '{said}' >&2")
        assert fetching.java().endswith("/java")

    def test_what_is_no_java_is_refused(self, program: Program) -> None:
        program("java", "echo nothing")
        with pytest.raises(JavaMissingError, match="does not tell its version"):
            fetching.java()


class TestLibraries:
    def test_a_machine_without_maven_is_told_what_to_install(
        self, program: Program, tmp_path: Path
    ) -> None:
        with pytest.raises(MavenMissingError, match="no mvn") as raised:
            fetching.libraries(tmp_path / "cache")
        assert raised.value.code == "maven_missing"
        assert raised.value.way_out.startswith("Install Maven")

    def test_what_maven_says_of_a_failure_is_passed_on_and_nothing_half_made_stays(
        self, program: Program, tmp_path: Path
    ) -> None:
        program("mvn", "mkdir libs; touch libs/half.jar; echo '[ERROR] no route'; exit 1")
        cache = tmp_path / "cache"
        with pytest.raises(KafkaFetchError, match=re.escape("[ERROR] no route")):
            fetching.libraries(cache)
        assert [each.name for each in cache.iterdir()] == ["fetching.lock"]

    def test_it_is_fetched_once(self, program: Program, tmp_path: Path) -> None:
        program("mvn", "mkdir libs; grep -q kafka_2.13 pom.xml && touch libs/kafka.jar")
        folder = fetching.libraries(tmp_path / "cache")
        assert [each.name for each in folder.iterdir()] == ["kafka.jar"]
        program("mvn", "exit 1")
        assert fetching.libraries(tmp_path / "cache") == folder

    def test_maven_is_not_shown_what_is_ours(
        self, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GUISHU_MASTER_KEY", "secret")
        monkeypatch.setenv("DATABASE_URL", "secret")
        monkeypatch.setenv("KAFKA_PASSWORD", "secret")
        monkeypatch.setenv("MAVEN_OPTS", "-Dkept")
        program("mvn", "mkdir libs; env > libs/env")
        seen = (fetching.libraries(tmp_path / "cache") / "env").read_text()
        assert "MAVEN_OPTS=-Dkept" in seen
        assert "secret" not in seen

    def test_a_cache_that_cannot_be_written_is_an_error_with_a_way_out(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "cache").write_text("a file, no folder")
        with pytest.raises(KafkaFetchError, match="cannot be kept") as raised:
            fetching.libraries(tmp_path / "cache")
        assert "XDG_CACHE_HOME" in raised.value.way_out


def test_the_cache_stands_where_the_user_has_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert fetching.cache_folder({}) == Path("/home/someone/.cache/guishu")
    assert fetching.cache_folder({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/guishu")
    relative = {"XDG_CACHE_HOME": f"not{os.sep}absolute"}
    assert fetching.cache_folder(relative) == Path("/home/someone/.cache/guishu")
