"""One model on Diffusers, ONNX Runtime and a real Triton server: the same pictures, whoever serves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from router import BackendRouter
from router.config import RouterConfig
from router.settings import load_config
from router.types import GenerateResult
from tests.triton_instances import LEAST_DB, images_of, least_db, picture, request

BACKENDS = ("diffusers", "onnxruntime", "triton")


def config(folder: Path, *backends: str) -> RouterConfig:
    variables = {"TRIPTYCH_BACKENDS": ",".join(backends)} if backends else {}
    return load_config(environ=variables, directory=folder)


async def generated(config: RouterConfig, asked: list[dict[str, Any]]) -> list[GenerateResult]:
    async with BackendRouter(config) as router:
        return await asyncio.gather(*(router.generate(request(**fields)) for fields in asked))


def eight() -> list[dict[str, Any]]:
    """Of every task, with steps, guidance and schedulers that differ."""
    painted = {"image": picture(), "strength": 0.8}
    return [
        {"seed": 1},
        {"seed": 2, "num_inference_steps": 9, "guidance_scale": 3.5},
        {"seed": 3, "scheduler": "EulerDiscrete"},
        {"seed": 4, "guidance_scale": 1.0},
        {"seed": 5, "negative_prompt": "blue", "scheduler": "DPMSolverMultistep"},
        {"seed": 6, **painted},
        {"seed": 7, **painted, "mask_image": picture(200)},
        {"seed": 8, "num_images_per_prompt": 2},
    ]


async def test_the_same_pictures_whoever_is_chosen(everywhere: Path):
    """`TRIPTYCH_BACKENDS` moves all traffic, and nothing else changes."""
    made = {}
    for backend in BACKENDS:
        made[backend] = results = await generated(
            await asyncio.to_thread(config, everywhere, backend), eight()
        )
        assert {result.backend for result in results} == {backend}
        assert len(images_of(results)) == 9
    assert least_db(made["triton"], made["onnxruntime"]) >= LEAST_DB
    assert least_db(made["triton"], made["diffusers"]) >= LEAST_DB


async def test_sixteen_at_once_share_batches_at_the_server(everywhere: Path):
    asked = [{**fields, "prompt": f"circle {round}"} for round in range(2) for fields in eight()]
    there = await generated(await asyncio.to_thread(config, everywhere, "triton"), asked)
    assert sum(result.rows for result in there) > 3 * sum(result.ticks for result in there)
    here = await generated(await asyncio.to_thread(config, everywhere, "onnxruntime"), asked)
    assert least_db(there, here) >= LEAST_DB


async def test_triton_shows_among_the_others(everywhere: Path):
    async with BackendRouter(await asyncio.to_thread(config, everywhere)) as router:
        route = await router.explain(request())
        assert route.candidates == ("sd15/onnxruntime", "sd15/triton", "sd15/diffusers")
        route = await router.explain(request(height=128, width=128))
        assert "its graphs are made for 64x64" in route.rejections["sd15/triton"]
