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
