"""The errors that guishu raises: each has a stable code, one sentence, and the way out."""

from __future__ import annotations


class LedgerError(Exception):
    """Base of every error that a caller may act on.

    ``code`` is stable and meant for programs; ``str(error)`` is one sentence for people;
    ``way_out`` says what to do next.
    """

    code: str = "ledger_error"

    def __init__(self, sentence: str, *, way_out: str) -> None:
        super().__init__(sentence)
        self.way_out = way_out


class TextRefusedError(LedgerError):
    """A text holds a character that no event may hold: U+0000 or a lone surrogate."""

    code = "text_refused"


class NotCanonicalError(LedgerError):
    """A value has no place in a canonical body (a float, a naive time, a non-ASCII key, ...)."""

    code = "not_canonical"


class EntryTooLargeError(LedgerError):
    """An entry is longer than the 65,535 bytes that a transparency-log tile can hold."""

    code = "entry_too_large"


class VersionConflictError(LedgerError):
    """Somebody else appended to the stream first; nothing of this append was recorded."""

    code = "version_conflict"

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"The stream {stream} has moved on since it was read.",
            way_out="Read it again, decide again, and append at its new version.",
        )
        self.stream = stream


class RequestReusedError(LedgerError):
    """A request id came again with other content; nothing was recorded."""

    code = "request_reused"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"The request id {request_id} was used before, for something else.",
            way_out="Repeat the first request unchanged, or choose a new id.",
        )
        self.request_id = request_id


class BusyError(LedgerError):
    """The queue of appends is full; nothing was recorded, and trying again later is right."""

    code = "busy"

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(
            "The ledger has more appends waiting than it may queue.",
            way_out=f"Try again in {retry_after_seconds:g} seconds.",
        )
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailableError(LedgerError):
    """The database could not be reached in time; nothing of this append was recorded."""

    code = "store_unavailable"


class OutcomeUnknownError(LedgerError):
    """The connection was lost around the commit, and nothing tells whether it happened."""

    code = "outcome_unknown"


class StoreFullError(LedgerError):
    """The database has no room left; nothing of this append was recorded."""

    code = "store_full"


class StoreRefusedError(LedgerError):
    """The database refused an append for a reason that a retry does not mend."""

    code = "store_refused"


class AnotherTimelineError(LedgerError):
    """The database is another server than when this process began; nothing was recorded."""

    code = "another_timeline"
