"""Saying what would be decided: a recording that records nothing, for any number of threads."""

from __future__ import annotations

import threading
from typing import Any

from ledger.building import Built
from ledger.organisation import OrganisationAt
from ledger.recording import Asked, Recording


class Rehearsing(Recording):
    """Checks and builds requests; one thread at a time builds, but several decide at once.

    It is apart from the recording of the intake, which writers wait for.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        # Rehearsing asks for the organisation, too.
        self._lock = threading.RLock()

    def organisation(self) -> OrganisationAt:
        """Return the organisation as the log has it now."""
        with self._lock:
            return super().organisation()

    def rehearse(self, asked: Asked) -> Built:
        """Check and build one request, and record nothing."""
        with self._lock:
            return super().rehearse(asked)
