"""The ids that follow from rows, and give nothing of the rows away.

What identifies a row may be the name of a person or a phone number, and an id stands in the log
for ever, in plain. So every id is made of a digest under the ledger's own key: the same for every
import of the same row under the same mapping, and of no use to whoever tries likely names.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from ledger import building, ids

KeyedDigest = Callable[[bytes], bytes]
"""A digest under a key of this ledger that no change of the master key changes
(``ledger.sealing.Vault.request_digest``)."""

_DIGEST_CHARACTERS = 32
_IN_LEDGER = "ledger:"


def in_ledger(ledger_id: str) -> str:
    """Return the reference of somebody whom the ledger held before, by the id there."""
    return _IN_LEDGER + ledger_id


def is_in_ledger(reference: str) -> bool:
    """Say whether a reference means somebody whom the ledger held before."""
    return reference.startswith(_IN_LEDGER)


class RowNames:
    """Ids of one mapping's rows, people, customers and territories."""

    def __init__(self, mapping: str, digest: KeyedDigest) -> None:
        self._mapping = mapping
        self._digest = digest

    @property
    def caller(self) -> str:
        """As whom the requests of all imports under this mapping are recorded."""
        return f"import:{self._mapping}"

    def request_id(self, key: str) -> str:
        """Return the request id of an action: what its row means in plain, the rest a digest."""
        meaning, _, _ = key.partition("/")
        return f"{meaning}/{self._digest_of('key', key)}"

    def act_seed(self, key: str) -> str:
        """Return what the ids follow from that an act makes."""
        return f"{self._mapping}/{self._digest_of('key', key)}"

    def person(self, reference: str) -> str:
        """Return the id of a person of the plan."""
        return self._id(ids.PERSON, reference)

    def territory(self, reference: str) -> str:
        """Return the id of a territory of the plan."""
        return self._id(ids.TERRITORY, reference)

    def customer(self, reference: str) -> str:
        """Return the id of a customer of the plan."""
        if is_in_ledger(reference):
            return reference.removeprefix(_IN_LEDGER)
        return building.Ids(self.customer_seed(reference)).make(ids.CUSTOMER)

    def customer_seed(self, reference: str) -> str:
        """Return what the ids of a customer, its contacts and sites follow from."""
        return f"{self._mapping}/{self._digest_of(ids.CUSTOMER, reference)}"

    def _id(self, prefix: str, reference: str) -> str:
        if is_in_ledger(reference):
            return reference.removeprefix(_IN_LEDGER)
        return ids.derived_id(prefix, self._mapping, self._digest_of(prefix, reference))

    def _digest_of(self, kind: str, text: str) -> str:
        # An array: no request's content, of which the key makes digests too, is one.
        message = orjson.dumps(["import", self._mapping, kind, text])
        return self._digest(message).hex()[:_DIGEST_CHARACTERS]
