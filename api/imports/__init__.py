"""Importing: from files and a mapping in TOML to an ordered stream of plain actions."""
