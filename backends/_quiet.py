"""Keeping the libraries' loading bars out of the application's terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import diffusers.utils.logging
import transformers.utils.logging


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Bars that were shown before are shown again afterwards."""
    shown = [
        log for log in (diffusers.utils.logging, transformers.utils.logging) if log.is_progress_bar_enabled()
    ]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()
