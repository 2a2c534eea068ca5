"""A process with a relay that can be killed; for the tests.

With ``die`` it kills itself between the acknowledgements of its first batch and the checkpoint.
``proxy_url`` is the way to Kafka, if it is no direct one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace

import psycopg

from consumers.kafka.connecting import Cluster
from consumers.kafka.relay import relay
from tests.consumers.kafka.support import LOOKING_SELDOM, QUICK, RELAY


def main(conninfo: str, bootstrap: str, prefix: str, how: str, proxy_url: str = "") -> None:
    """Relay until killed."""
    stop = threading.Event()

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    relay(
        lambda: psycopg.connect(conninfo, autocommit=True, application_name=RELAY),
        Cluster(bootstrap, prefix, {"proxy_url": proxy_url} if proxy_url else {}),
        stop,
        stop.wait,
        LOOKING_SELDOM if proxy_url else replace(QUICK, idle_seconds_max=0.5),
        acknowledged=die if how == "die" else lambda: None,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
