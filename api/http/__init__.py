"""The HTTP interface: every request and every view of the ledger, for programs."""
