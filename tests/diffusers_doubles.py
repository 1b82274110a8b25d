"""Diffusers backends of miniature models, and requests to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backends.diffusers import DiffusersBackend
from router.config import InstanceConfig
from router.lane import Lane
from router.request import GenerateRequest
from router.types import Generated

Lanes = Callable[[str], Lane]


def make(lanes: Lanes, source: Path | str, **fields: Any) -> DiffusersBackend:
    fields = {"device": "cpu", **fields}
    instance = InstanceConfig(name="miniature", backend="diffusers", source=str(source), **fields)
    return DiffusersBackend(instance, lanes)


async def loaded(lanes: Lanes, source: Path | str, **fields: Any) -> DiffusersBackend:
    backend = make(lanes, source, **fields)
    await backend.probe()
    await backend.load()
    return backend


def request(**fields: Any) -> GenerateRequest:
    defaults = {"prompt": "a red circle", "height": 64, "width": 64, "num_inference_steps": 4, "seed": 1}
    return GenerateRequest.of(**{**defaults, "guidance_scale": 3.0, **fields})


def generate(backend: DiffusersBackend, **fields: Any) -> asyncio.Future[Generated]:
    return asyncio.ensure_future(backend.generate(request(**fields), lambda event: None, None))
