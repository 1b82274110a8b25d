"""Exports of every family under Diffusers' own pipelines: the pictures are Diffusers' within the gate."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.types import TASKS, Task
from tests.exports import Exports
from tests.miniatures import FAMILIES, miniature
from tests.onnx_doubles import Lanes, export, export_like_optimum, generate, loaded, psnr_db, request
from tests.plain_pipelines import mixed_requests, online, pixels, plain_picture

GATE_DB = 60
"""What an export in float32 must reach: docs of `export.verify`."""


@pytest.fixture(params=FAMILIES)
def source(request: pytest.FixtureRequest, miniatures: Path) -> Path:
    return miniature(request.param, miniatures)


@pytest.fixture
def exported(source: Path, exports: Exports) -> Path:
    return exports(source.name)


@pytest.fixture
def sd15(exports: Exports) -> Path:
    return exports("sd15")


@pytest.fixture(scope="module")
def two_sizes(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(
        miniature("sd15", miniatures), tmp_path_factory.mktemp("sizes") / "sd15", ["64x64", "96x64"]
    )


@pytest.fixture(scope="module")
def scalar(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scalar") / "sd15"
    return export(miniature("sd15", miniatures), folder, ["64x64"], scalar=True)


@pytest.fixture(scope="module")
def open_batch(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open") / "sd15"
    return export(miniature("sd15", miniatures), folder, ["64x64"], open_rows=True)


@pytest.fixture(scope="module")
def of_optimum(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_like_optimum(miniature("sd15", miniatures), tmp_path_factory.mktemp("optimum") / "sd15")


async def pictures(backend: Any, requests: list[Any]) -> list[np.ndarray[Any, Any]]:
    return [pixels(made.pictures[0].image) for made in await online(backend, requests)]


@pytest.mark.parametrize("task", TASKS)
async def test_mixed_requests_that_share_runs_equal_the_plain_pipeline(
    task: Task, source: Path, exported: Path, lanes: Lanes
) -> None:
    """Different steps, guidance, seeds, prompts and arrival."""
    backend = await loaded(lanes, exported)
    requests = mixed_requests(task)
    made = await pictures(backend, requests)
    plain = [plain_picture(source, request) for request in requests]
    assert min(map(psnr_db, made, plain)) >= GATE_DB
    assert backend.lane.statistics().occupancy > 1.5
    await backend.unload()


async def test_sizes_among_the_profiles_are_served_side_by_side(
    two_sizes: Path, miniatures: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, two_sizes)
    requests = [
        each.model_copy(update={"width": 64 if i % 2 else 96})
        for i, each in enumerate(mixed_requests("text-to-image"))
    ]
    made = await pictures(backend, requests)
    assert [picture.shape for picture in made] == [(64, each.width, 3) for each in requests]
    plain = [plain_picture(miniature("sd15", miniatures), request) for request in requests]
    assert min(map(psnr_db, made, plain)) >= GATE_DB


async def test_only_the_profiles_asked_for_are_loaded(two_sizes: Path, lanes: Lanes) -> None:
    one = await (backend := await loaded(lanes, two_sizes, options={"profiles": ["96x64"]})).probe()
    both = await (await loaded(lanes, two_sizes)).probe()
    assert [profile.name for profile in one.profiles] == ["96x64"]
    assert (one.defaults.height, one.defaults.width) == (64, 96)
    assert one.footprint.weights_bytes < both.footprint.weights_bytes
    assert (await generate(backend, width=96)).pictures[0].image


async def test_a_row_limit_leaves_the_larger_graphs_unloaded(sd15: Path, lanes: Lanes) -> None:
    limited = await (backend := await loaded(lanes, sd15, row_limit=4)).probe()
    whole = await (await loaded(lanes, sd15)).probe()
    assert limited.profiles[0].row_buckets == (2,)
    assert limited.footprint.weights_bytes < whole.footprint.weights_bytes
    made = await online(backend, mixed_requests("text-to-image", 4))
    assert max(generated.rows / generated.ticks for generated in made) <= 2


async def test_a_scalar_timestep_gathers_calls_of_equal_timestep(
    scalar: Path, miniatures: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, scalar)
    requests = mixed_requests("text-to-image", 4) + [request(seed=seed) for seed in (7, 8)]
    made = await pictures(backend, requests)
    plain = [plain_picture(miniature("sd15", miniatures), request) for request in requests]
    assert min(map(psnr_db, made, plain)) >= GATE_DB
    together = await asyncio.gather(*(generate(backend, seed=seed) for seed in range(4)))
    assert max(generated.rows / generated.ticks for generated in together) > 2


@pytest.mark.parametrize("task", TASKS)
async def test_an_export_of_optimum_serves_any_size_and_says_that_nothing_checked_it(
    task: Task, of_optimum: Path, miniatures: Path, lanes: Lanes
) -> None:
    backend = await loaded(lanes, of_optimum)
    found = await backend.probe()
    assert not found.profiles
    assert any("nothing has checked this export" in note for note in found.notes)
    requests = mixed_requests(task, 4)
    if task == "text-to-image":
        requests += [each.model_copy(update={"height": 96, "width": 80}) for each in requests]
    made = await pictures(backend, requests)
    plain = [plain_picture(miniature("sd15", miniatures), request) for request in requests]
    assert min(map(psnr_db, made, plain)) >= GATE_DB


async def test_an_open_batch_axis_takes_any_rows(open_batch: Path, miniatures: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, open_batch)
    requests = mixed_requests("text-to-image", 5)
    made = await pictures(backend, requests)
    plain = [plain_picture(miniature("sd15", miniatures), request) for request in requests]
    assert min(map(psnr_db, made, plain)) >= GATE_DB
    assert backend.lane.statistics().occupancy > 1.5
