"""The command line, later HTTP and pages: where requests come in and views go out."""
