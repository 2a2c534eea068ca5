"""Apache Kafka itself: fetched once through Maven, into a cache that all versions of guishu share.

Maven is used as anybody else on this machine uses it: its own settings say from where it fetches.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from consumers.kafka.errors import JavaMissingError, KafkaFetchError, MavenMissingError

KAFKA_VERSION = "4.3.1"
# Writes to standard error what Kafka has to say; without it that goes nowhere. Of the line that
# Kafka's own slf4j-api belongs to.
_LOGGER_VERSION = "1.7.36"
JAVA_VERSION_MIN = 17
FETCH_SECONDS_MAX = 900

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>guishu</groupId>
  <artifactId>local-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>{_LOGGER_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""
# "17.0.15" of Java 9 and later, "1.8.0_292" of Java 8.
_JAVA_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return where fetched programs are kept: below XDG_CACHE_HOME, else in the home folder."""
    given = (os.environ if environment is None else environment).get("XDG_CACHE_HOME", "")
    # A relative path is to be ignored, as the XDG specification says.
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "guishu"


def java() -> str:
    """Return the path of a Java that runs Apache Kafka 4; raises JavaMissingError."""
    found = shutil.which("java")
    if found is None:
        raise JavaMissingError(
            f"A local Apache Kafka needs Java {JAVA_VERSION_MIN} or newer, and no java is on the"
            " PATH.",
            way_out=_OTHERWISE.format(what=f"Java {JAVA_VERSION_MIN} or newer"),
        )
    asked = subprocess.run(  # noqa: S603 - the user's own java, fixed arguments
        [found, "-version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env=environment_of_others(),
    )
    version = _JAVA_VERSION.search(asked.stderr + asked.stdout)
    if version is None or int(version[1]) < JAVA_VERSION_MIN:
        said = f"is version {version[1]}" if version else "does not tell its version"
        raise JavaMissingError(
            f"A local Apache Kafka needs Java {JAVA_VERSION_MIN} or newer, and {found} {said}.",
            way_out=_OTHERWISE.format(what=f"Java {JAVA_VERSION_MIN} or newer"),
        )
    return found


_OTHERWISE = (
    "Install {what} and put it on the PATH, name an existing cluster in KAFKA_BOOTSTRAP, or use"
    " guishu run, which needs no Kafka."
)


def libraries(cache: Path | None = None) -> Path:
    """Return the folder with the jars of Apache Kafka; fetch them, if they are not there yet.

    Several processes may ask at once: one of them fetches. Raises MavenMissingError,
    KafkaFetchError.
    """
    base = cache_folder() if cache is None else cache
    folder = base / f"kafka-{KAFKA_VERSION}"
    if folder.is_dir():
        return folder
    try:
        base.mkdir(parents=True, exist_ok=True)
        with _alone(base / "fetching.lock"):
            if not folder.is_dir():
                _fetch(base, folder)
    except OSError as error:
        raise KafkaFetchError(
            f"Apache Kafka cannot be kept in {base}: {error.strerror}.",
            way_out="Mend the cause (often a full disk or missing rights), or name another cache"
            " in XDG_CACHE_HOME.",
        ) from error
    return folder


def environment_of_others() -> dict[str, str]:
    """Return our environment without what is ours alone, the master key and passwords above all."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("GUISHU_", "KAFKA_", "DATABASE_URL"))
    }


def _fetch(base: Path, folder: Path) -> None:
    """Fetch into a draft; what is there under its own name is whole."""
    maven = shutil.which("mvn")
    if maven is None:
        raise MavenMissingError(
            "Apache Kafka is fetched through Maven, and no mvn is on the PATH.",
            way_out=_OTHERWISE.format(what="Maven"),
        )
    draft = Path(mkdtemp(prefix="fetching-", dir=base))
    try:
        (draft / "pom.xml").write_text(_POM, encoding="utf-8")
        copy = ("dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs")
        subprocess.run(  # noqa: S603 - the user's own Maven, fixed arguments
            [maven, "--batch-mode", "--quiet", *copy],
            cwd=draft,
            check=True,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS_MAX,
            stdin=subprocess.DEVNULL,
            env=environment_of_others(),
        )
        (draft / "libs").rename(folder)
    except subprocess.SubprocessError as error:
        raise KafkaFetchError(
            f"Maven could not fetch Apache Kafka {KAFKA_VERSION}: {_said(error)}",
            way_out="See that this machine reaches the repository of Maven's settings, and try"
            " again.",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _said(error: subprocess.SubprocessError) -> str:
    # Maven tells its errors on standard output.
    output = getattr(error, "stdout", None) or ""
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else str(output)
    lines = [line for line in text.splitlines() if line.strip()]
    return " / ".join(lines[:3]) or str(error)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock file for the block; whoever holds it is busy for minutes at most."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
