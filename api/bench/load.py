"""Loads for HTTP: ``wrk``, which takes hardly any time of its own, and subscribers by the thousand.

wrk is no package of Python's: the system's packages have it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from ledger.errors import LedgerError

_SAY = """
done = function(summary, latency, requests)
  io.write(string.format(
    '{"requests":%d,"us":%d,"p50":%d,"p99":%d,"failed":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
"""


Requests = Sequence[tuple[str, str | None]]
"""What is asked for: a path each, and a body to post, or None to get."""


class LoadToolMissingError(LedgerError):
    """There is nothing that makes the load."""

    code = "load_tool_missing"


class LoadFailedError(LedgerError):
    """Not every request was answered with success: what was measured is no figure."""

    code = "load_failed"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, way_out="Measure again, and look at what the server says.")


@dataclass(frozen=True, slots=True)
class Load:
    """What was answered: a second, and how long it took in milliseconds."""

    per_second: float
    p50: float
    p99: float


def load_tool() -> str:
    """Return the path of wrk; raises LoadToolMissingError."""
    program = shutil.which("wrk")
    if program is None:
        raise LoadToolMissingError(
            "The HTTP measurements need wrk on the PATH.",
            way_out="apt-get install wrk, or name the other measures with --only.",
        )
    return program


def wrk(
    address: str,
    requests: Requests,
    headers: Mapping[str, str],
    *,
    connections: int,
    seconds: float,
) -> Load:
    """Ask for ``requests`` in turn, over and over.

    Raises LoadToolMissingError, and LoadFailedError where any was not answered with success.
    """
    program = load_tool()
    with TemporaryDirectory() as folder:
        script = Path(folder) / "load.lua"
        script.write_text(_script(requests, headers), encoding="utf-8")
        ran = subprocess.run(  # noqa: S603 - arguments made here
            [
                *(program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"),
                *("--latency", "--timeout", "30s", "-s", str(script), address),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
    said = json.loads(ran.stdout[ran.stdout.index('{"requests"') :])
    if said["failed"] or not said["requests"]:
        path, _ = requests[0]
        raise LoadFailedError(
            f"Of {said['requests']} requests such as {path} {said['failed']} failed, by"
            f" {connections} connections in {seconds:g} seconds."
        )
    return Load(said["requests"] / said["us"] * 1e6, said["p50"] / 1e3, said["p99"] / 1e3)


def _script(requests: Requests, headers: Mapping[str, str]) -> str:
    given = "".join(f"wrk.headers[{_lua(name)}]={_lua(value)}\n" for name, value in headers.items())
    paths = ",".join(_lua(path) for path, _ in requests)
    bodies = ",".join("false" if body is None else _lua(body) for _, body in requests)
    return (
        f"{given}local paths, bodies, n = {{{paths}}}, {{{bodies}}}, 0\n"
        "request = function()\n  n = n % #paths + 1\n"
        "  if bodies[n] then return wrk.format('POST', paths[n], nil, bodies[n]) end\n"
        "  return wrk.format('GET', paths[n])\nend\n" + _SAY
    )


def _lua(text: str) -> str:
    # What JSON quotes of these texts, Lua reads alike.
    return json.dumps(text)


class Subscribers:
    """Follows a stream of Server-Sent Events many times over, and notes when what arrives.

    ``arrived`` is by subscriber and id: seconds of ``time.time``, which the database's clock on the
    same machine counts as well.
    """

    def __init__(self, address: str, path: str, headers: Mapping[str, str]) -> None:
        where = urlsplit(address)
        self._host, self._port = where.hostname or "", where.port or 80
        lines = [f"GET {path} HTTP/1.1", f"Host: {where.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self.arrived: list[dict[int, float]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, number: int) -> None:
        """Subscribe so many times; returns when each was answered."""
        answered = [asyncio.Event() for _ in range(number)]
        self.arrived = [{} for _ in range(number)]
        for seen, event in zip(self.arrived, answered, strict=True):
            self._tasks.append(asyncio.create_task(self._follow(seen, event)))
            if len(self._tasks) % 50 == 0:
                await event.wait()
        for event in answered:
            await event.wait()

    async def close(self) -> None:
        """Go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, seen: dict[int, float], answered: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(self._request)
            # Of a chunk the end of an id may come with the next one.
            rest = b""
            while chunk := await reader.read(262_144):
                answered.set()
                now = time.time()
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    if line.startswith(b"id: "):
                        seen[int(line[4:])] = now
        finally:
            writer.close()


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of values, as it lies between two of them."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
