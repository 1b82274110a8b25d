"""What follows from a model's configuration and a device: here, how many rows a run may have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backends._describe import MOST_ROWS, row_limit
from router.footprint import Footprint
from tests.doubles import capabilities

ROW = 10 * 64 * 64
"""Bytes of a row at the model's own size."""


@pytest.mark.parametrize(
    ("memory_bytes", "rows"),
    [(None, MOST_ROWS), (1_000 + 100 * ROW, MOST_ROWS), (1_000 + 5 * ROW + 1, 5), (1_000, 1), (10, 1)],
)
def test_the_row_limit_follows_from_the_devices_memory(memory_bytes: int | None, rows: int) -> None:
    found = capabilities(
        footprint=Footprint(weights_bytes=1_000, row_bytes_per_pixel=10, decode_bytes_per_pixel=0),
        device_memory_bytes=memory_bytes,
    )
    found = replace(found, defaults=replace(found.defaults, height=64, width=64))
    assert row_limit(found) == rows
