"""``make soak SECONDS=600 SEED=…``: a soak for as long as asked, by a seed that is printed."""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from consumers.kafka.local import local_kafka
from tests.soak.plan import plan
from tests.soak.soaking import soak


def main(arguments: list[str]) -> int:
    """Soak, and say what came of it; 1 where anything was wrong."""
    seconds = float(arguments[0]) if arguments else 60.0
    seed = int(arguments[1]) if len(arguments) > 1 else secrets.randbelow(1_000_000)
    print(f"seed {seed}, {seconds:.0f} seconds", flush=True)
    began = time.monotonic()

    def say(words: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s: {words}", flush=True)

    say("starting Kafka")
    with (
        TemporaryDirectory(prefix="guishu-soak-") as folder,
        local_kafka(Path(folder) / "kafka", grace_seconds=0) as kafka,
    ):
        soaked = soak(plan(seed, seconds), Path(folder), kafka, say)
    print(soaked.summary())
    if soaked.wrong:
        print("\n".join(soaked.wrong))
        print(f"WRONG; make soak SECONDS={seconds:.0f} SEED={seed} plans the same again")
        return 1
    print("every rule holds")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
