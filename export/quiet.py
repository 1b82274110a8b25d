"""Quiet: model libraries draw bars and advise their own developers; only our progress is shown."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import diffusers.utils.logging
import transformers.utils.logging

_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir", "diffusers", "transformers")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Around reading and exporting: errors are raised as ever, warnings and bars stay away."""
    drawn = (diffusers.utils.logging, transformers.utils.logging)
    bars = [log for log in drawn if log.is_progress_bar_enabled()]
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    for log in bars:
        log.disable_progress_bar()
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for log in bars:
            log.enable_progress_bar()
