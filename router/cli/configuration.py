"""The configuration of a command, with a line on stderr for each name of an earlier system."""

from __future__ import annotations

from pathlib import Path

from router import settings
from router.cli.output import print_note
from router.config import RouterConfig


def load_config(path: Path | None) -> RouterConfig:
    """As `router.settings.load_config`, which tells the log alone. Raises `ConfigError`."""
    config = settings.load_config(path)
    for note in config.legacy:
        print_note(note)
    return config
