"""Backends over exports of the miniatures, and exports of other kinds than the fixture `exports` makes."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from backends.onnxruntime import OnnxRuntimeBackend
from export.components import Component
from export.families import Family, family_of
from export.folder import file_records
from export.profiles import profiles_of
from router.config import InstanceConfig
from router.lane import Lane
from router.manifest import GraphRecord, Manifest, ProfileRecord, TensorRecord
from router.request import GenerateRequest
from router.types import Generated

Lanes = Callable[[str], Lane]

_OPSET = 18
"""The newest of that exporter."""


def instance(source: Path | str, *, options: dict[str, Any] | None = None, **fields: Any) -> InstanceConfig:
    """The fixture's exports have passed no gate."""
    options = {"unverified": True, **(options or {})}
    fields = {"name": "exported", "device": "cpu", **fields}
    return InstanceConfig(backend="onnxruntime", source=str(source), options=options, **fields)


def make(lanes: Lanes, source: Path | str, **fields: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(instance(source, **fields), lanes)


async def loaded(lanes: Lanes, source: Path | str, **fields: Any) -> OnnxRuntimeBackend:
    backend = make(lanes, source, **fields)
    await backend.probe()
    await backend.load()
    return backend


def request(**fields: Any) -> GenerateRequest:
    defaults = {"prompt": "a red circle", "height": 64, "width": 64, "num_inference_steps": 4, "seed": 1}
    return GenerateRequest.of(**{**defaults, "guidance_scale": 3.0, **fields})


def generate(backend: OnnxRuntimeBackend, **fields: Any) -> asyncio.Future[Generated]:
    return asyncio.ensure_future(backend.generate(request(**fields), lambda event: None, None))


def psnr_db(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures; infinite where they are equal."""
    mean = float(np.mean((one.astype(float) - other.astype(float)) ** 2))
    return 10 * float(np.log10(255**2 / mean)) if mean else float("inf")


def export(
    source: Path, folder: Path, sizes: list[str], *, scalar: bool = False, open_rows: bool = False
) -> Path:
    """As `export.folder` writes it, but ten times as fast: by PyTorch's older exporter, in opset 18."""
    family = family_of(source, timestep="scalar" if scalar else "per-row")
    profiles = profiles_of(family, sizes)
    graphs = {component.name: [] for component in family.components}
    parts = DiffusionPipeline.from_pretrained(source, local_files_only=True)
    for component, profile in itertools.product(family.components, profiles):
        for rows in (2,) if open_rows else component.rows(profile):
            file = f"{component.name}/{profile.name}-r{rows}.onnx"
            inputs = component.example(profile, rows, torch.Generator().manual_seed(0))
            open_axes = {name: {0: "rows"} for name, tensor in inputs.items() if open_rows and tensor.ndim}
            _write(component, parts, inputs, folder / file, open_axes)
            records = tuple(_record(name, tensor, name in open_axes) for name, tensor in inputs.items())
            graphs[component.name].append(
                GraphRecord(file=file, profile=profile.name, rows=rows, inputs=records, outputs=())
            )
    _copy(family, source, folder)
    Manifest(
        family=family.name,
        pipeline=family.pipeline,
        profiles=tuple(ProfileRecord(**dataclasses.asdict(profile)) for profile in profiles),
        components={name: tuple(found) for name, found in graphs.items()},
        timestep="scalar" if scalar else "per-row",
        opset=_OPSET,
        tools={},
        source_sha256="0" * 64,
        files=file_records(folder),
    ).write(folder)
    return folder


def export_like_optimum(source: Path, folder: Path) -> Path:
    """What `optimum.exporters.onnx.main_export` writes: axes that vary, a scalar timestep, no manifest."""
    family = family_of(source, timestep="scalar")
    parts = DiffusionPipeline.from_pretrained(source, local_files_only=True)
    profile = profiles_of(family, ["64x64"])[0]
    for component in family.components:
        inputs = component.example(profile, 2, torch.Generator().manual_seed(0))
        axes = {name: _varying(tensor.ndim) for name, tensor in inputs.items()}
        _write(component, parts, inputs, folder / component.name / "model.onnx", axes)
    _copy(family, source, folder)
    return folder


def _write(
    component: Component, parts: Any, inputs: Any, file: Path, axes: dict[str, dict[int, str]]
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            component.wrap(parts),
            (),
            str(file),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=list(component.output_names),
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )


def _record(name: str, tensor: torch.Tensor, is_open: bool) -> TensorRecord:
    shape = ("rows", *tensor.shape[1:]) if is_open else tuple(tensor.shape)
    return TensorRecord(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=shape)


def _copy(family: Family, source: Path, folder: Path) -> None:
    for component in family.components:
        shutil.copy(source / component.part / "config.json", folder / component.name)
    for name in ("scheduler", "tokenizer"):
        shutil.copytree(source / name, folder / name)
    shutil.copy(source / "model_index.json", folder)


def _varying(ndim: int) -> dict[int, str]:
    axes = {0: "batch_size", 2: "height", 3: "width"} if ndim == 4 else {0: "batch_size"}
    return axes if ndim else {}


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
