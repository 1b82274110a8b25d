"""Triton backends for tests, each of servers that are doubles with a fake behind them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from backends.fake import FakeBackend
from backends.triton import TritonBackend
from router.config import InstanceConfig
from router.lane import Lane
from router.request import GenerateRequest
from router.types import Generated, GenerateResult, RawImage, ignore_event
from tests.onnx_doubles import psnr_db
from tests.triton_doubles import TritonDouble

Lanes = Callable[[str], Lane]

SIDE = 64
STEPS = 6
LEAST_DB = 45.0
"""Peaks of one level in 255 here and there, as between any two runtimes."""


def request(**fields: Any) -> GenerateRequest:
    filled = {"prompt": "a red circle", "height": SIDE, "width": SIDE, "num_inference_steps": STEPS}
    return GenerateRequest.of(**{**filled, "seed": 5, "guidance_scale": 7.1, **fields})


def picture(shade: int = 90) -> RawImage:
    return RawImage(SIDE, SIDE, bytes((shade + value) % 256 for value in range(SIDE * SIDE * 3)))


def fake(lanes: Lanes, **options: Any) -> FakeBackend:
    options = {"size": SIDE, "steps": STEPS, **options}
    return FakeBackend(InstanceConfig(name="behind", backend="fake", options=options), lanes)


def remote(url: str, **options: Any) -> TritonBackend:
    return TritonBackend(InstanceConfig(name="remote", backend="triton", source=url, options=options))


async def loaded(url: str, **options: Any) -> TritonBackend:
    backend = remote(url, **options)
    await backend.probe()
    await backend.load()
    return backend


@contextlib.asynccontextmanager
async def serving(lanes: Lanes, **options: Any) -> AsyncIterator[TritonDouble]:
    """A server that is up, until it dies."""
    double = TritonDouble(fake(lanes, **options))
    await double.start()
    try:
        yield double
    finally:
        double.let_go()
        await double.die()


@contextlib.asynccontextmanager
async def loaded_from(*doubles: TritonDouble, **options: Any) -> AsyncIterator[TritonBackend]:
    """The first is the source, the others are replicas."""
    replicas = [double.url.rpartition("/")[0] for double in doubles[1:]]
    backend = await loaded(doubles[0].url, replicas=replicas, **options)
    try:
        yield backend
    finally:
        for double in doubles:
            double.let_go()
        await backend.unload()


async def generate(backend: TritonBackend, **fields: Any) -> Generated:
    return await backend.generate(request(**fields), ignore_event, None)


def begin(backend: TritonBackend, **fields: Any) -> asyncio.Task[Generated]:
    return asyncio.create_task(generate(backend, **fields))


def least_db(one: list[GenerateResult], other: list[GenerateResult]) -> float:
    """Between the two pictures that are least alike."""
    pairs = zip(images_of(one), images_of(other), strict=True)
    return min(psnr_db(as_array(a), as_array(b)) for a, b in pairs)


def images_of(results: list[GenerateResult]) -> list[RawImage]:
    return [image for result in results for image in result.images]


def as_array(image: RawImage) -> np.ndarray[Any, Any]:
    return np.frombuffer(image.pixels, np.uint8)
