"""The errors of the store: of the server, of its schema and its versions."""

from __future__ import annotations

from ledger.errors import LedgerError


class DatabaseUnreachableError(LedgerError):
    """No connection to the database could be made."""

    code = "database_unreachable"


class PostgresTooOldError(LedgerError):
    """The server is older than PostgreSQL 15."""

    code = "postgres_too_old"


class DatabaseEncodingError(LedgerError):
    """The database does not store text as UTF-8."""

    code = "database_encoding"


class MigrationFilesError(LedgerError):
    """The shipped migration files are not numbered 0001, 0002, ... without gap or double."""

    code = "migration_files"


class MigrationEditedError(LedgerError):
    """A migration file differs from what was applied to this database."""

    code = "migration_edited"


class MigrationOrderError(LedgerError):
    """This database has a later migration, but lacks an earlier one."""

    code = "migration_order"


class DatabaseNewerError(LedgerError):
    """The database has migrations that this version of the program does not know."""

    code = "database_newer"


class MigrationFailedError(LedgerError):
    """The database refused a migration; it was rolled back, those before it stay applied."""

    code = "migration_failed"


class MigrationBusyError(LedgerError):
    """Another process has been migrating this database for longer than we wait."""

    code = "migration_busy"


class SchemaUnreadableError(LedgerError):
    """The role may not read which migrations were applied."""

    code = "schema_unreadable"


class EmbeddedDirectoryError(LedgerError):
    """The embedded server's directory cannot be used: another user's, another version's, ..."""

    code = "embedded_directory"


class EmbeddedServerError(LedgerError):
    """The embedded server could not be set up, started or stopped."""

    code = "embedded_server"


class EmbeddedSlowStartError(LedgerError):
    """The embedded server is still starting, perhaps recovering from a crash."""

    code = "embedded_slow_start"


class EmbeddedBusyError(LedgerError):
    """Another process has been starting or stopping the embedded server for too long."""

    code = "embedded_busy"
