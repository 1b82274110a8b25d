"""Building modules: one thread of the process at a time."""

from __future__ import annotations

import threading
from typing import Final

BUILDING: Final = threading.RLock()
"""Held while a library makes modules, on whatever thread.

To make them without weights, accelerate and transformers replace functions of `torch.nn` for the whole
process (`init_empty_weights`, `no_init_weights`). What another thread makes meanwhile has no weights either,
and two that overlap put each other's replacements back for good.
"""
