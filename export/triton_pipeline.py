"""The pipeline model's config.pbtxt: the one in `model_repository`, with its name and parameters."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from pydantic import TypeAdapter
from tritonclient.grpc import model_config_pb2 as schema

from export.quiet import quiet
from export.triton_components import ComponentModel
from export.triton_settings import TritonSettings
from router import BackendRouter, InstanceConfig, ModelConfig, RouterConfig
from router.capabilities import Capabilities
from router.errors import LoadError

CONTRACT: Final = "1"
"""Of inputs, outputs and parameters, as `backends._stub_settings` reads and writes them."""

TEMPLATES: Final = Path(__file__).resolve().parents[1] / "model_repository"


def pipeline_config(folder: Path, settings: TritonSettings, models: Sequence[ComponentModel]) -> Any:
    """`models` are those of the components. Probes the export. Raises `RouterError`."""
    template = (TEMPLATES / "pipeline" / "config.pbtxt").read_text(encoding="utf-8")
    found = text_format.Parse(template, schema.ModelConfig(name=settings.name))
    for name, value in _parameters(folder, settings, models).items():
        found.parameters[name].string_value = value
    return found


def _parameters(folder: Path, settings: TritonSettings, models: Sequence[ComponentModel]) -> dict[str, str]:
    options: dict[str, Any] = {"profiles": settings.profiles, "unverified": settings.unverified}
    probed = asyncio.run(_probe(folder, options))
    if settings.threads is not None:
        options["intra_op_threads"] = settings.threads
    if settings.components == "triton":
        options["models"] = {graph.file: model.name for model in models for graph in model.graphs}
        options["joining"] = [model.name for model in models if model.max_rows]
    site = {"site_packages": settings.site_packages} if settings.site_packages else {}
    return {
        "triptych": CONTRACT,
        "capabilities": _as_json(probed),
        "components": settings.components,
        "device": settings.device,
        "options": json.dumps(options),
        "concurrency": str(settings.concurrency),
        "queue": str(settings.queue),
        **site,
    }


async def _probe(folder: Path, options: dict[str, Any]) -> Capabilities:
    """What the export can do, by the backend that will serve it."""
    instance = InstanceConfig(
        name=folder.name, backend="onnxruntime", source=str(folder), device="cpu", options=options
    )
    model = ModelConfig(name=folder.name, instances=(instance,))
    async with BackendRouter(RouterConfig(models=(model,), default_model=model.name)) as router:
        with quiet():
            (status,) = await router.probe()
    if status.capabilities is None:
        raise LoadError(status.error)
    return status.capabilities


def _as_json(capabilities: Capabilities) -> str:
    """The same text for the same export; how much memory there is, the server's machine decides."""
    found = TypeAdapter(Capabilities).dump_python(
        dataclasses.replace(capabilities, device_memory_bytes=None), mode="json"
    )
    return json.dumps({**found, "tasks": sorted(found["tasks"])})
