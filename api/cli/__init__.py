"""The command line: ``guishu``."""
