"""How often a caller may ask: so many requests a second on average, with a burst of two seconds.

The generic cell rate algorithm: one number per caller, the moment at which all that was asked would
have been paid for. It holds for one process; the callers remembered are bounded, those longest
silent forgotten first. (The library ``limits`` starts a thread at every hit of its memory storage,
and keeps what it counts without a bound.)
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from api.http.problems import TooManyRequestsError

BURST_SECONDS = 2.0
CALLERS_MAX = 10_000


class Throttle:
    """Counts by caller; for any number of threads."""

    def __init__(
        self,
        per_second: float,
        *,
        callers_max: int = CALLERS_MAX,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1.0 / per_second
        self._callers_max = callers_max
        self._now = now
        self._lock = threading.Lock()
        self._paid_at: OrderedDict[str, float] = OrderedDict()

    def admit(self, caller: str, requests: int = 1) -> None:
        """Count requests of a caller; raises TooManyRequestsError where they are too many."""
        now = self._now()
        with self._lock:
            paid = max(self._paid_at.get(caller, 0.0), now)
            ahead = paid - now
            if ahead > BURST_SECONDS:
                raise TooManyRequestsError(ahead - BURST_SECONDS)
            self._paid_at[caller] = paid + self._interval * requests
            self._paid_at.move_to_end(caller)
            if len(self._paid_at) > self._callers_max:
                self._paid_at.popitem(last=False)
