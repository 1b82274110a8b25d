"""LoRAs by request: pictures equal plain Diffusers' with the same adapters, whatever the neighbours apply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DiffusionPipeline

from backends import _tasks
from backends._traced import Traced
from backends.diffusers import DiffusersBackend
from router.config import InstanceConfig
from router.lane import Lane
from router.request import GenerateRequest
from router.types import TASKS, Task, ignore_event
from tests.loras import save_kohya, save_lora
from tests.miniatures import FAMILIES, SIDE, Family, miniature
from tests.plain_pipelines import PROMPTS, mixed_requests, online, pixels, plain_picture, run_plain

Lanes = Callable[[str], Lane]
Loras = tuple[tuple[str, float], ...]

SETS: tuple[Loras, ...] = (
    (),
    (("a", 1.0),),
    (("b", 0.6),),
    (("a", 0.5), ("b", -0.8)),
    (("b", 0.6), ("a", 0.0)),
    (("b", 0.3), ("a", 0.9)),
)


async def backend_of(folder: Path, loras: Path, lanes: Lanes, **options: Any) -> DiffusersBackend:
    instance = InstanceConfig(
        name="miniature",
        backend="diffusers",
        source=str(folder),
        device="cpu",
        lora_folders=(str(loras),),
        options=options,
    )
    backend = DiffusersBackend(instance, lanes)
    await backend.probe()
    await backend.load()
    return backend


def request_of(loras: Loras, **fields: Any) -> GenerateRequest:
    given = {"prompt": PROMPTS[0], "height": SIDE, "width": SIDE, "num_inference_steps": 3, "seed": 5}
    asked = tuple({"name": name, "weight": weight} for name, weight in loras)
    return GenerateRequest.of(**{**given, "guidance_scale": 4.0, "loras": asked, **fields})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, miniatures: Path) -> Callable[[Family], Path]:
    """Family -> a folder with its LoRAs `a` and `b`; the second of the UNets' is in kohya's layout."""
    root = tmp_path_factory.mktemp("loras")

    def folder_of(family: Family) -> Path:
        folder = root / family
        if not folder.exists():
            folder.mkdir()
            save_lora(folder, "a", family, miniatures, seed=1)
            save = save_kohya if family in ("sd15", "sdxl") else save_lora
            save(folder, "b", family, miniatures, seed=2)
        return folder

    return folder_of


class Plain:
    """What the user of Diffusers would have written."""

    def __init__(self, folder: Path, loras: Path) -> None:
        self.folder = folder
        self.pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        self.pipeline.set_progress_bar_config(disable=True)
        for name in ("a", "b"):
            self.pipeline.load_lora_weights(loras, weight_name=f"{name}.safetensors", adapter_name=name)

    def picture(self, request: GenerateRequest) -> np.ndarray[Any, Any]:
        if not request.loras:
            return plain_picture(self.folder, request)
        self.pipeline.set_adapters(
            [lora.name for lora in request.loras], [lora.weight for lora in request.loras]
        )
        return run_plain(self.pipeline, request)


@pytest.mark.parametrize("family", FAMILIES)
async def test_requests_of_mixed_loras_equal_plain_diffusers(
    family: Family, saved: Callable[[Family], Path], miniatures: Path, lanes: Lanes
) -> None:
    folder, loras = miniature(family, miniatures), saved(family)
    requests = [request_of(each, num_inference_steps=3 + index % 2) for index, each in enumerate(SETS)]
    backend = await backend_of(folder, loras, lanes)
    made = await online(backend, requests)
    plain = Plain(folder, loras)
    pictures = [plain.picture(request) for request in requests]
    for result, picture in zip(made, pictures, strict=True):
        assert np.abs(pixels(result.pictures[0].image).astype(int) - picture).max() <= 1
    assert all(np.abs(pictures[1].astype(int) - other).max() > 8 for other in (pictures[0], *pictures[2:]))
    await backend.unload()


@pytest.mark.parametrize("family", FAMILIES)
async def test_reproducible_requests_with_loras_are_bit_equal_among_neighbours(
    family: Family, saved: Callable[[Family], Path], miniatures: Path, lanes: Lanes
) -> None:
    folder, loras = miniature(family, miniatures), saved(family)
    requests = [request_of(SETS[1]), request_of(())] + [request_of(each, reproducible=True) for each in SETS]
    backend = await backend_of(folder, loras, lanes)
    made = await online(backend, requests)
    plain = Plain(folder, loras)
    for request, result in list(zip(requests, made, strict=True))[2:]:
        assert np.array_equal(pixels(result.pictures[0].image), plain.picture(request)), request.loras


@pytest.mark.parametrize("task", TASKS[1:])
async def test_every_task_applies_them(
    task: Task, saved: Callable[[Family], Path], miniatures: Path, lanes: Lanes
) -> None:
    folder, loras = miniature("sdxl", miniatures), saved("sdxl")
    request = mixed_requests(task, 1, loras=({"name": "a", "weight": 0.7},), reproducible=True)[0]
    backend = await backend_of(folder, loras, lanes)
    made = (await online(backend, [request_of(SETS[2]), request]))[1]
    plain = Plain(folder, loras).pipeline
    plain.set_adapters(["a"], [0.7])
    pipeline = _tasks.with_components_of(_tasks.pipeline_classes(type(plain))[task], plain)
    assert np.array_equal(pixels(made.pictures[0].image), run_plain(pipeline, request))


async def test_equal_sets_share_ticks_and_others_do_not(
    saved: Callable[[Family], Path], miniatures: Path, lanes: Lanes
) -> None:
    backend = await backend_of(miniature("sd15", miniatures), saved("sd15"), lanes)

    async def rows_of(*sets: Loras) -> float:
        """Most rows that a picture of these shared in the mean; guidance alone makes two."""
        requests = [request_of(each, seed=seed) for seed, each in enumerate(sets)]
        made = await asyncio.gather(*(backend.generate(each, lambda event: None, None) for each in requests))
        return max(each.rows / each.ticks for each in made)

    alone, a, b = await rows_of((), SETS[1], SETS[2]), SETS[1], SETS[2]
    both = (("a", 0.5), ("b", -0.8))
    assert await rows_of(a, a) > 1.4 * alone
    assert await rows_of(both, both[::-1]) > 1.4 * alone
    assert await rows_of((), (("a", 0.0),)) > 1.4 * alone
    assert await rows_of(a, (("a", 0.9),)) < 1.2 * alone  # only pictures are decoded together
    assert await rows_of(a, b) < 1.2 * alone


@pytest.mark.parametrize("family", ["sd15", "flux"])
async def test_a_trace_has_no_part_in_loras(
    family: Family,
    miniatures: Path,
    saved: Callable[[Family], Path],
    lanes: Lanes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Traced in their first run, before LoRAs come, go for another one, and are not asked for again."""
    folder = miniature(family, miniatures)
    monkeypatch.setattr("backends.diffusers.Traced", partial(Traced, after_runs=0))
    traced = await backend_of(folder, saved(family), lanes, loaded_loras=1)
    plain = await backend_of(folder, saved(family), lanes, loaded_loras=1, torchscript=False)
    for loras in ((), (), (("a", 1.0),), (), (("b", 0.6),), (), (("a", 0.5),)):
        asked = request_of(loras)
        made = [await backend.generate(asked, ignore_event, None) for backend in (plain, traced)]
        assert made[0].pictures == made[1].pictures
