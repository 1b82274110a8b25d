"""Too little memory for one call: it is run once more with its rows in halves, which is remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends import _shortage
from backends._errors import is_out_of_memory
from backends._gather import Gathering
from router.errors import MemoryBudgetError
from router.types import Generated
from tests.diffusers_doubles import Lanes, generate, loaded

SAID = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which"
    " 512.00 MiB is free. Including non-PyTorch memory, this process has 7.50 GiB memory in use."
)


class Device:
    """Takes the place of the denoiser, with room for so many rows."""

    def __init__(self, gathering: Gathering, room: int) -> None:
        self._run = gathering._function
        self.room = room
        self.runs: list[int] = []
        gathering._function = self

    def __call__(self, **values: Any) -> Any:
        rows = len(values["sample"])
        self.runs.append(rows)
        if rows > self.room:
            raise RuntimeError(SAID)
        return self._run(**values)


def difference(one: Generated, other: Generated) -> int:
    """The largest of any channel."""
    pixels = [np.frombuffer(made.pictures[0].image.pixels, np.uint8).astype(int) for made in (one, other)]
    return int(np.abs(pixels[0] - pixels[1]).max())


async def test_a_picture_that_only_fits_in_halves_is_made_in_halves(model_folder: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, model_folder)
    whole = await generate(backend)
    device = Device(backend._gatherings["unet"], room=1)
    first, second = await generate(backend), await generate(backend)
    assert (device.runs[0], set(device.runs[1:])) == (2, {1}), "the whole is tried once, and not again"
    assert len(device.runs) >= 1 + 2 * 2 * 4, "two halves for each step of both"
    for made in (first, second):
        assert difference(made, whole) <= 1


async def test_what_does_not_even_fit_in_halves_is_refused_with_numbers(
    model_folder: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, model_folder)
    device = Device(backend._gatherings["unet"], room=0)
    with pytest.raises(MemoryBudgetError, match=r"2\.00 GiB more .* where 512\.00 MiB of 8\.00 GiB"):
        await generate(backend)
    assert device.runs == [2, 1], "it is tried once more, and no further"
    device.room = 16
    assert (await generate(backend)).pictures[0].image


def test_the_numbers_are_found_in_what_the_libraries_really_say() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert _shortage.told(caught.value) == f"{1 << 50:,} bytes more were asked for"
    onnx = RuntimeError("Failed to allocate memory for requested buffer of size 16777216")
    assert _shortage.told(onnx) == "16,777,216 bytes more were asked for"
    wrapped = MemoryError()
    wrapped.__cause__ = RuntimeError(SAID)
    assert _shortage.told(wrapped) == "2.00 GiB more were asked for where 512.00 MiB of 8.00 GiB were free"
    assert _shortage.told(MemoryError()) == ""
