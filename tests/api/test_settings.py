"""Settings: where they come from, what is refused, and that no secret is ever shown."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from kafka import KafkaProducer
from pydantic import SecretStr, ValidationError

from api.kafka import cluster_of
from api.settings import Settings, SettingsError, load_settings, masked
from consumers.kafka.errors import KafkaNotNamedError

KEY = base64.b64encode(bytes(range(32))).decode()
URL = "postgresql://guishu:hunter2@db.example:5433/ledger?sslmode=require"


@pytest.fixture(autouse=True)
def _nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith(("GUISHU_", "DATABASE_URL", "KAFKA_BOOTSTRAP")):
            monkeypatch.delenv(name)


def test_without_any_setting_the_embedded_server_is_used() -> None:
    settings = load_settings()
    assert settings.database_url is None
    assert settings.owner_database_url is None
    assert settings.master_key is None
    assert settings.data_directory == Path("var/guishu")


def test_every_setting_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("GUISHU_OWNER_DATABASE_URL", "postgresql://owner:secret@db/ledger")
    monkeypatch.setenv("GUISHU_MASTER_KEY", KEY)
    monkeypatch.setenv("GUISHU_DATA_DIRECTORY", "elsewhere")
    monkeypatch.setenv("GUISHU_POOL_CONNECTIONS_MAX", "33")
    monkeypatch.setenv("GUISHU_LOCK_TIMEOUT_SECONDS", "3")
    settings = load_settings()
    assert settings.database_url == SecretStr(URL)
    assert settings.owner_database_url == SecretStr("postgresql://owner:secret@db/ledger")
    assert settings.master_key == SecretStr(KEY)
    assert settings.data_directory == Path("elsewhere")
    assert settings.pool_connections_max == 33
    assert settings.lock_timeout_seconds == 3


def test_the_file_in_the_working_folder_is_read_and_the_environment_beats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("guishu.toml").write_text(
        f'database_url = "{URL}"\npool_connections_max = 5\nlock_timeout_seconds = 7\n'
    )
    monkeypatch.setenv("GUISHU_POOL_CONNECTIONS_MAX", "6")
    settings = load_settings()
    assert settings.database_url == SecretStr(URL)
    assert settings.pool_connections_max == 6
    assert settings.lock_timeout_seconds == 7


def test_the_environment_beats_the_file_for_the_database_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DATABASE_URL and database_url are two names of one field, which must not be mixed up."""
    Path("guishu.toml").write_text('database_url = "postgresql://file@db/ledger"\n')
    monkeypatch.setenv("DATABASE_URL", URL)
    assert load_settings().database_url == SecretStr(URL)


def test_another_file_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("guishu.toml").write_text("lock_timeout_seconds = 7\n")
    other = tmp_path / "other.toml"
    other.write_text("lock_timeout_seconds = 8\n")
    monkeypatch.setenv("GUISHU_SETTINGS", str(other))
    assert load_settings().lock_timeout_seconds == 8
    other.unlink()
    with pytest.raises(SettingsError, match=r"other\.toml"):
        load_settings()


def test_an_empty_variable_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("GUISHU_MASTER_KEY", "")
    settings = load_settings()
    assert settings.database_url is None
    assert settings.master_key is None


def test_all_that_is_wrong_in_a_file_is_named_at_once() -> None:
    Path("guishu.toml").write_text('lock_timeout = 7\npool_connections_max = "many"\ntypo = 1\n')
    with pytest.raises(SettingsError) as raised:
        load_settings()
    sentence = str(raised.value)
    assert "lock_timeout is unknown" in sentence
    assert "typo is unknown" in sentence
    assert "pool_connections_max" in sentence
    assert "guishu.toml" in raised.value.way_out


@pytest.mark.parametrize("content", [b"lock_timeout_seconds = ", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_a_clear_error(content: bytes) -> None:
    Path("guishu.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"guishu\.toml cannot be read"):
        load_settings()


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "mysql://guishu:hunter2@db/ledger",
        "postgresql+psycopg://guishu:hunter2@db/ledger",
        "postgresql://guishu:hunter2@db/ledger?no_such_option=1",
        "postgresql://guishu:p@hunter2@db/ledger",
        "postgresql://guishu:hunter2%zz@db/ledger",
        "host=db password=hunter2 nonsense",
    ],
)
@pytest.mark.parametrize("variable", ["DATABASE_URL", "GUISHU_OWNER_DATABASE_URL"])
def test_a_malformed_url_is_refused_without_a_word_of_the_password(
    monkeypatch: pytest.MonkeyPatch, url: str, variable: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(variable, url)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert "hunter2" not in str(raised.value) + raised.value.way_out
    assert variable.lower().removeprefix("guishu_") in str(raised.value).lower()
    assert raised.value.__cause__ is None


def test_validation_errors_of_pydantic_itself_hide_the_values() -> None:
    with pytest.raises(ValidationError) as raised:
        Settings(database_url=SecretStr("postgresql+x://u:hunter2@db/l"))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("key", ["hunter2", KEY[:-4], KEY + "AAAA", "密钥"])
def test_a_malformed_master_key_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("GUISHU_MASTER_KEY", key)
    with pytest.raises(SettingsError, match="openssl rand -base64 32") as raised:
        load_settings()
    assert key not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GUISHU_OWNER_DATABASE_URL", URL),
        ("GUISHU_POOL_CONNECTIONS_MIN", "9"),
        ("GUISHU_POOL_CONNECTIONS_MAX", "0"),
        ("GUISHU_STATEMENT_TIMEOUT_SECONDS", "0"),
        ("GUISHU_STATEMENT_TIMEOUT_SECONDS", "86401"),
        ("GUISHU_LOCK_TIMEOUT_SECONDS", "-1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert name.removeprefix("GUISHU_").lower() in str(raised.value)


def test_what_is_shown_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(
        "GUISHU_OWNER_DATABASE_URL", "host=db user=owner password='hunter2 x' sslpassword=hunter2"
    )
    monkeypatch.setenv("GUISHU_MASTER_KEY", KEY)
    settings = load_settings()
    shown = masked(settings)
    assert set(shown) == set(Settings.model_fields)
    for text in (str(shown), str(settings), repr(settings)):
        assert "hunter2" not in text
        assert KEY not in text
    assert shown["master_key"] == "********"
    assert "host=db.example" in shown["database_url"]
    assert "password=********" in shown["database_url"]
    assert "port=5433" in shown["database_url"]


def test_settings_cannot_be_changed_and_each_is_documented() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.lock_timeout_seconds = 1
    assert all(field.description for field in Settings.model_fields.values())


def test_an_unknown_variable_of_the_environment_suggests_the_near_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was passed over in silence, while the same mistake in the file was an error."""
    monkeypatch.setenv("GUISHU_DATA_DIRECTROY", "elsewhere")
    monkeypatch.setenv("guishu_xyzzy", "1")
    monkeypatch.setenv("GUISHU_DATABASE_URL", URL)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    said = str(raised.value)
    assert "GUISHU_DATA_DIRECTROY is unknown; did you mean GUISHU_DATA_DIRECTORY?" in said
    assert "guishu_xyzzy is unknown" in said
    assert "GUISHU_DATABASE_URL is unknown; did you mean DATABASE_URL?" in said
    assert "hunter2" not in said


def test_bytes_of_the_environment_that_are_no_text_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder whose name is no UTF-8 ended every command in a traceback."""
    monkeypatch.setenv("GUISHU_DATA_DIRECTORY", os.fsdecode(b"data-\xb9\xe9"))
    with pytest.raises(SettingsError, match="GUISHU_DATA_DIRECTORY holds bytes that are not UTF-8"):
        load_settings()


class TestKafka:
    def test_a_cluster_is_named_as_everybody_else_does(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KAFKA_BOOTSTRAP", "kafka-1:9092,[::1]:9093")
        monkeypatch.setenv("GUISHU_KAFKA_TOPIC_PREFIX", "north")
        cluster = cluster_of(load_settings())
        assert cluster.bootstrap == "kafka-1:9092,[::1]:9093"
        assert cluster.topic_prefix == "north"
        assert cluster.options == {"security_protocol": "PLAINTEXT"}

    def test_without_one_it_is_said_how_to_name_it(self) -> None:
        with pytest.raises(KafkaNotNamedError) as raised:
            cluster_of(load_settings())
        assert "KAFKA_BOOTSTRAP" in raised.value.way_out

    def test_the_prefix_does_not_belong_to_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GUISHU_KAFKA_BOOTSTRAP", "kafka:9092")
        with pytest.raises(SettingsError, match="did you mean KAFKA_BOOTSTRAP"):
            load_settings()

    def test_tls_and_sasl_are_passed_on_and_never_shown(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = {
            "KAFKA_BOOTSTRAP": "kafka:9093",
            "GUISHU_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "GUISHU_KAFKA_SSL_CAFILE": "/etc/ca.pem",
            "GUISHU_KAFKA_SSL_CERTFILE": "/etc/own.pem",
            "GUISHU_KAFKA_SSL_KEYFILE": "/etc/own.key",
            "GUISHU_KAFKA_SSL_PASSWORD": "hunter2-key",
            "GUISHU_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "GUISHU_KAFKA_SASL_USERNAME": "guishu",
            "GUISHU_KAFKA_SASL_PASSWORD": "hunter2",
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        settings = load_settings()
        cluster = cluster_of(settings)
        assert cluster.options == {
            "security_protocol": "SASL_SSL",
            "ssl_cafile": "/etc/ca.pem",
            "ssl_certfile": "/etc/own.pem",
            "ssl_keyfile": "/etc/own.key",
            "ssl_password": "hunter2-key",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "guishu",
            "sasl_plain_password": "hunter2",
        }
        # kafka-python knows each of them.
        assert cluster.options.keys() <= KafkaProducer.DEFAULT_CONFIG.keys()
        for text in (str(masked(settings)), repr(settings), repr(cluster)):
            assert "hunter2" not in text

    @pytest.mark.parametrize(
        "given",
        [
            {"KAFKA_BOOTSTRAP": "kafka"},
            {"KAFKA_BOOTSTRAP": "kafka:9092,"},
            {"KAFKA_BOOTSTRAP": "sasl://guishu:hunter2@kafka:9092"},
            {"GUISHU_KAFKA_TOPIC_PREFIX": "a.b"},
            {"GUISHU_KAFKA_PARTITIONS": "0"},
            {"GUISHU_KAFKA_SECURITY_PROTOCOL": "TLS"},
            {"GUISHU_KAFKA_SASL_PASSWORD": "hunter2"},
            {"GUISHU_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
    ) -> None:
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError, match="kafka") as raised:
            load_settings()
        assert "hunter2" not in str(raised.value)
