"""Numbered SQL files, each applied once, in order, checked by hash."""
