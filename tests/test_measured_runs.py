"""A Diffusers instance whose device counts: what its denoiser's and VAE's runs take, and what follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backends import diffusers as diffusers_backend
from backends._conditions import conditions
from backends._describe import MOST_ROWS
from backends._gauge import Gauge
from router.footprint import Peak, Workspace
from router.model_folder import ModelFolder
from tests.diffusers_doubles import Lanes, generate, loaded, make
from tests.miniatures import Family, miniature

PIXELS = 64 * 64
WEIGHTS, TAKEN = 1_000, 600


class Allocator:
    """Every run takes as much."""

    def now(self) -> int:
        return WEIGHTS

    def most(self) -> int:
        return WEIGHTS + TAKEN

    def forget(self) -> None: ...


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def gauge_of(device: str, cell_pixels: int, tile_pixels: int | None, *, offloaded: bool) -> Gauge:
        return Gauge(Allocator(), cell_pixels, tile_pixels)

    monkeypatch.setattr(diffusers_backend, "gauge_of", gauge_of)
    monkeypatch.setattr(diffusers_backend, "cuda_free_bytes", lambda device: 10**12)


@pytest.mark.parametrize(("family", "rows"), [("sd15", 2), ("sdxl", 2), ("sd3", 2), ("flux", 1)])
@pytest.mark.usefixtures("measuring")
async def test_the_runs_of_every_family_are_measured(
    miniatures: Path, lanes: Lanes, family: Family, rows: int
) -> None:
    backend = await loaded(lanes, miniature(family, miniatures))
    made = await generate(backend)
    assert made.workspace == Workspace(
        denoise=Peak(rows=rows, pixels=PIXELS, bytes=TAKEN), decode=Peak(rows=1, pixels=PIXELS, bytes=TAKEN)
    )
    assert made.peak_bytes == WEIGHTS + TAKEN


async def test_a_cpu_measures_nothing(model_folder: Path, lanes: Lanes) -> None:
    made = await generate(await loaded(lanes, model_folder))
    assert (made.workspace, made.peak_bytes) == (None, None)


async def test_the_row_limit_follows_from_what_was_measured(model_folder: Path, lanes: Lanes) -> None:
    backend = make(lanes, model_folder)
    found = replace(await backend.probe(), device_memory_bytes=10**9)
    assert found.footprint.row_limit == MOST_ROWS
    large = Peak(rows=1, pixels=PIXELS, bytes=200_000_000)
    told = backend.learned(replace(found, footprint=found.footprint.with_measured(Workspace(large))))
    assert told.footprint.row_limit == backend.row_limit == 4


async def test_a_configured_row_limit_stays(model_folder: Path, lanes: Lanes) -> None:
    backend = make(lanes, model_folder, row_limit=3)
    assert backend.learned(await backend.probe()).footprint.row_limit == 3


def test_the_conditions_tell_apart_what_runs_otherwise(model_folder: Path) -> None:
    folder = ModelFolder(model_folder, "miniature")

    def held_under(dtype: torch.dtype = torch.float32, **settings: object) -> dict[str, str]:
        return dict(conditions(folder, "cpu", dtype, settings))

    plain = held_under()
    assert set(plain) == {"model", "device", "dtype", "settings", "versions"}
    assert plain == held_under()
    assert plain != held_under(torch.bfloat16)
    assert held_under(vae_slicing=True) != held_under(vae_slicing=False)
    assert f"torch {torch.__version__}" in plain["versions"]
