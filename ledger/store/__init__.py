"""How the log is kept: the database's schema, the embedded server, appending and reading."""
