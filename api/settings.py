"""What can be set: from the environment, else from a TOML file, else by default.

The file is ``guishu.toml`` in the working folder, or the one that ``GUISHU_SETTINGS`` names. Its
keys are the names of the fields of ``Settings``; the environment says ``GUISHU_`` and the name in
capitals, but ``DATABASE_URL`` and ``KAFKA_BOOTSTRAP`` as everybody else does. The environment beats
the file.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from rapidfuzz import fuzz, process

from ledger.errors import LedgerError

MASK = "********"
MASTER_KEY_BYTES = 32
DEFAULT_FILE = "guishu.toml"
HOW_TO_MAKE_A_KEY = "openssl rand -base64 32"

_PREFIX = "GUISHU_"
_FILE_VARIABLE = "GUISHU_SETTINGS"
_URL_VARIABLE = "DATABASE_URL"
_KAFKA_VARIABLE = "KAFKA_BOOTSTRAP"
# Read under these names, without the prefix.
_BARE_VARIABLES = frozenset({_URL_VARIABLE, _KAFKA_VARIABLE})
_LIKENESS_MIN = 50
_ADDRESS = re.compile(r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")


class SettingsError(LedgerError):
    """A setting is unknown, malformed or contradicts another one; all of them are named."""

    code = "settings"


def _connection_url(secret: SecretStr) -> SecretStr:
    # Messages of libpq quote the text, password included, so they are not passed on.
    try:
        parts = conninfo_to_dict(secret.get_secret_value())
    except psycopg.ProgrammingError:
        parts = None
    # An unescaped @ in a password makes its rest a part of the host name.
    if parts is None or "@" in str(parts.get("host", "")):
        raise ValueError(
            "is not a connection URL such as postgresql://user:password@host:5432/database "
            "(characters such as @ / # ? in the password are written as %40 %2F %23 %3F)"
        )
    return secret


def _master_key(secret: SecretStr) -> SecretStr:
    decode_master_key(secret.get_secret_value())
    return secret


def _addresses(text: str) -> str:
    if not all(_ADDRESS.match(each) for each in text.split(",")):
        # A password may stand in it by mistake, so it is not quoted.
        raise ValueError("is not a list of addresses such as kafka-1:9092,kafka-2:9092")
    return text


Seconds = Annotated[int, Field(gt=0, le=86_400)]
ConnectionUrl = Annotated[SecretStr, AfterValidator(_connection_url)]


class Settings(BaseSettings):
    """The settings in force, read when an object is made; ``load_settings`` gives typed errors."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    database_url: ConnectionUrl | None = Field(
        default=None,
        validation_alias=AliasChoices(_URL_VARIABLE, "database_url"),
        description="A PostgreSQL 15 or newer to use instead of the embedded server, as "
        "postgresql://user:password@host:5432/database. The user must be a member of the role "
        "guishu_app, as which the service acts; who migrates becomes one.",
    )
    owner_database_url: ConnectionUrl | None = Field(
        default=None,
        description="The same database for the one who owns it and migrates it. "
        "Default: database_url.",
    )
    data_directory: Path = Field(
        default=Path("var/guishu"),
        description="Where the embedded server keeps its data and the master key is stored, "
        "relative to the working folder.",
    )
    master_key: Annotated[SecretStr, AfterValidator(_master_key)] | None = Field(
        default=None,
        description="32 random bytes in base64 that wrap the keys of all personal data; whoever "
        "loses them loses those data. With the embedded server they are made once, into "
        f"master.key in data_directory; with database_url they must be given: {HOW_TO_MAKE_A_KEY}",
    )
    pool_connections_min: PositiveInt = Field(
        default=1, description="Connections that a process keeps open to the database."
    )
    pool_connections_max: PositiveInt = Field(
        default=8, description="Connections that a process opens to the database at most."
    )
    pool_wait_seconds_max: Seconds = Field(
        default=10, description="How long to wait for a free connection of the pool, in seconds."
    )
    connect_timeout_seconds: Seconds = Field(
        default=10, description="How long to wait for a new connection, in seconds."
    )
    statement_timeout_seconds: Seconds = Field(
        default=60, description="How long one statement of the service may run, in seconds."
    )
    lock_timeout_seconds: Seconds = Field(
        default=10, description="How long a statement may wait for a lock, in seconds."
    )
    idle_in_transaction_timeout_seconds: Seconds = Field(
        default=10,
        description="After how long the server ends a session of the service that holds a "
        "transaction open without using it, in seconds.",
    )
    http_host: str = Field(
        default="127.0.0.1",
        description="The address on which HTTP is served. With demo tokens only this machine's.",
    )
    http_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=8000, description="The port on which HTTP is served; 0: any that is free."
    )
    oidc_issuer: str | None = Field(
        default=None,
        description="An OpenID Connect issuer whose JWTs are accepted beside guishu's own tokens, "
        "as it stands in their claim iss. Needs oidc_audience.",
    )
    oidc_audience: str | None = Field(
        default=None, description="The audience that these JWTs must be for (claim aud)."
    )
    oidc_jwks_url: str | None = Field(
        default=None,
        description="Where the issuer's keys are. Default: as its discovery document says.",
    )
    oidc_claim: str = Field(
        default="sub", description="The claim that names the person: by the person's id, or …"
    )
    oidc_system: str | None = Field(
        default=None,
        description="… by the foreign id that this system has for the person.",
    )
    alive_file: Path | None = Field(
        default=None,
        description="A file, another one for each process, that enforce, project, clock and relay"
        " touch every five seconds while they go round, for whatever watches processes: one that"
        " is older than a minute, or is not there, is of a process that has hung for minutes, or"
        " puts back what the log has lost.",
    )
    kafka_bootstrap: Annotated[str, AfterValidator(_addresses)] | None = Field(
        default=None,
        validation_alias=AliasChoices(_KAFKA_VARIABLE, "kafka_bootstrap"),
        description="The brokers of an Apache Kafka, as host:port,host:port. Without it there is"
        " no relay, and consumers follow the store.",
    )
    kafka_topic_prefix: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")] = Field(
        default="guishu",
        description="What the names of the topics begin with; another one for each ledger that"
        " shares a cluster.",
    )
    kafka_partitions: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=12,
        description="How many partitions a topic is made with. It never changes afterwards.",
    )
    kafka_replication_factor: Annotated[int, Field(ge=1, le=9)] | None = Field(
        default=None,
        description="How many brokers keep each partition of a new topic. Default: 3, or as many"
        " as there are.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="How the brokers are spoken to."
    )
    kafka_ssl_cafile: Path | None = Field(
        default=None,
        description="The authorities that the brokers' certificates are checked by. Default: those"
        " of the system.",
    )
    kafka_ssl_certfile: Path | None = Field(
        default=None, description="Our own certificate, where the brokers ask for one."
    )
    kafka_ssl_keyfile: Path | None = Field(default=None, description="Its private key.")
    kafka_ssl_password: SecretStr | None = Field(
        default=None, description="The password of that private key."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="How we log in to the brokers, with SASL."
    )
    kafka_sasl_username: str | None = Field(default=None, description="As whom.")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="With which password.")
    requests_per_second_max: PositiveInt = Field(
        default=500,
        description="How many HTTP requests one caller may send a second, on average; beyond that "
        "they are answered 429.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then the environment, then the file."""
        file = TomlConfigSettingsSource(settings_cls, toml_file=settings_file())
        return init_settings, env_settings, file

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.owner_database_url is not None and self.database_url is None:
            raise ValueError("owner_database_url is given without database_url")
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("oidc_issuer and oidc_audience are given together or not at all")
        uses_sasl = self.kafka_security_protocol.startswith("SASL")
        login = (self.kafka_sasl_mechanism, self.kafka_sasl_username, self.kafka_sasl_password)
        if any(each is None for each in login) if uses_sasl else any(login):
            raise ValueError(
                "kafka_sasl_mechanism, kafka_sasl_username and kafka_sasl_password are given"
                " together, with a kafka_security_protocol of SASL, or not at all"
            )
        if self.pool_connections_min > self.pool_connections_max:
            raise ValueError("pool_connections_min is above pool_connections_max")
        return self


def settings_file() -> Path | None:
    """Return the settings file that is in force, None if there is none.

    Raises:
        SettingsError: ``GUISHU_SETTINGS`` names a file that is not there.
    """
    named = os.environ.get(_FILE_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise SettingsError(
                f"GUISHU_SETTINGS names {named}, which is not a file",
                way_out="Correct the path, or unset GUISHU_SETTINGS.",
            )
        return Path(named)
    return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: the file is missing, unreadable or no TOML, or settings are unknown,
            malformed or contradictory; the sentence names all of them and quotes no value.
    """
    _check_environment()
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(_fault(detail) for detail in error.errors(include_input=False))
        raise SettingsError(
            f"the settings cannot be used: {faults}",
            way_out=f"Correct them in the environment or in {settings_file() or DEFAULT_FILE}; "
            "`guishu settings` lists what can be set.",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"{settings_file()} cannot be read: {error}",
            way_out="Make it a readable TOML file in UTF-8.",
        ) from None


def _check_environment() -> None:
    """Raise SettingsError for variables of guishu that nobody reads, or whose bytes are no text."""
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    known = known - {_PREFIX + each for each in _BARE_VARIABLES} | {
        _FILE_VARIABLE,
        *_BARE_VARIABLES,
    }
    faults = []
    for name, value in sorted(os.environ.items()):
        # As pydantic-settings reads them: in capitals or not.
        variable = name.upper()
        if variable not in known and variable.startswith(_PREFIX):
            faults.append(_unknown_variable(name, known))
        elif variable in known and not _is_utf8(value):
            faults.append(f"{name} holds bytes that are not UTF-8")
    if faults:
        raise SettingsError(
            f"the environment cannot be used: {'; '.join(faults)}",
            way_out="Correct or unset them; `guishu settings` lists what can be set.",
        )


def _unknown_variable(name: str, known: set[str]) -> str:
    near: str | None = name.upper().removeprefix(_PREFIX)
    if near not in known:
        found = process.extractOne(
            name.upper(), sorted(known), scorer=fuzz.ratio, score_cutoff=_LIKENESS_MIN
        )
        near = found[0] if found else None
    printable = name.encode("ascii", "backslashreplace").decode()
    return f"{printable} is unknown" + (f"; did you mean {near}?" if near else "")


def _is_utf8(text: str) -> bool:
    # Bytes of the environment that are no UTF-8 reach a program as lone surrogates.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings by name, fit to be shown: no key and no password among them.

    A URL is shown as libpq's ``keyword=value`` pairs.
    """
    shown = settings.model_dump()
    for name, value in shown.items():
        if isinstance(value, Path):
            shown[name] = str(value)
        elif isinstance(value, SecretStr):
            is_url = name.endswith("database_url")
            shown[name] = _masked_url(value.get_secret_value()) if is_url else MASK
    return shown


def decode_master_key(text: str) -> bytes:
    """Return the 32 bytes of a master key in base64; ValueError says what is wrong, not the key."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != MASTER_KEY_BYTES:
        raise ValueError(
            f"is not {MASTER_KEY_BYTES} bytes in base64; make one: {HOW_TO_MAKE_A_KEY}"
        )
    return key


def _masked_url(url: str) -> str:
    parts = conninfo_to_dict(url)
    for name in ("password", "sslpassword"):
        if name in parts:
            parts[name] = MASK
    return make_conninfo("", **parts)


def _fault(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{name} is unknown"
    return f"{name}: {detail['msg'].removeprefix('Value error, ')}".removeprefix(": ")
