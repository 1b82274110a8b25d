"""Graphs in half precision, with an open batch axis, with one timestep for all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch

from export.components import Component
from export.families import family_of
from export.graph import record, trace
from export.plan import plan
from export.profiles import profiles_of
from export.settings import ExportSettings
from export.source import read_part
from router.manifest import GraphRecord
from tests.miniatures import Family, miniature


def denoiser_of(family: Family, miniatures: Path, **asked: Any) -> Component:
    components = family_of(miniature(family, miniatures), **asked).components
    return next(component for component in components if component.rows_kind == "bucket")


def traced(
    family: Family, miniatures: Path, dtype: str = "float32", **asked: Any
) -> tuple[onnx.ModelProto, GraphRecord]:
    """The denoiser's first graph, and what the manifest would say of it."""
    source = miniature(family, miniatures)
    timestep = asked.get("timestep", "per-row")
    known = family_of(source, timestep=timestep)
    profiles = profiles_of(known, ["64x64"], dtype=dtype, rows=[2])
    settings = ExportSettings(profiles=profiles, **asked)
    denoiser = denoiser_of(family, miniatures, timestep=timestep)
    planned = plan(known, settings)[denoiser.name][0]
    graph = trace(denoiser.wrap(read_part(source, denoiser.part, dtype)), planned, settings)
    return onnx_ir.to_proto(graph), record(graph, planned)


def run(model: onnx.ModelProto, feeds: dict[str, torch.Tensor]) -> np.ndarray[Any, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (made,) = session.run(None, {name: value.numpy() for name, value in feeds.items()})
    return np.asarray(made, np.float32)


def in_float32(
    family: Family, miniatures: Path, example: dict[str, torch.Tensor], **asked: Any
) -> np.ndarray[Any, Any]:
    denoiser = denoiser_of(family, miniatures, **asked)
    module = denoiser.wrap(read_part(miniature(family, miniatures), denoiser.part, "float32"))
    with torch.no_grad():
        (made,) = module(**{name: value.float() for name, value in example.items()})
    return np.asarray(made.numpy())


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_float16_is_sound_and_near_float32(family: Family, miniatures: Path) -> None:
    """SDXL joins two dtypes; FLUX takes rounded timesteps and guidance times 1000."""
    model, found = traced(family, miniatures, "float16")
    onnx.checker.check_model(model, full_check=True)
    dtypes = {tensor.name: tensor.dtype for tensor in found.inputs}
    assert dtypes["timestep"] == "float32"
    assert {dtypes["encoder_hidden_states"], found.outputs[0].dtype} == {"float16"}
    profile = profiles_of(family_of(miniature(family, miniatures)), ["64x64"], dtype="float16")[0]
    example = denoiser_of(family, miniatures).example(profile, 2, torch.Generator().manual_seed(1))
    expected = in_float32(family, miniatures, example)
    assert np.abs(run(model, example) - expected).max() < 0.01 * np.abs(expected).max()


def test_sd3_in_bfloat16_is_sound_from_opset_22_on(miniatures: Path) -> None:
    model, found = traced("sd3", miniatures, "bfloat16", opset=22)
    onnx.checker.check_model(model, full_check=True)
    assert found.outputs[0].dtype == "bfloat16"


def test_an_open_batch_axis_takes_any_rows_and_a_scalar_timestep_is_for_all(miniatures: Path) -> None:
    model, found = traced("sd15", miniatures, dynamic_batch=True, timestep="scalar")
    shapes = {tensor.name: tensor.shape for tensor in (*found.inputs, *found.outputs)}
    assert shapes == {
        "sample": ("batch_size", 4, 8, 8),
        "timestep": (),
        "encoder_hidden_states": ("batch_size", 77, 32),
        "out_sample": ("batch_size", 4, 8, 8),
    }
    profile = profiles_of(family_of(miniature("sd15", miniatures)))[0]
    for rows in (1, 5):
        denoiser = denoiser_of("sd15", miniatures, timestep="scalar")
        example = denoiser.example(profile, rows, torch.Generator().manual_seed(1))
        expected = in_float32("sd15", miniatures, example, timestep="scalar")
        assert np.abs(run(model, example) - expected).max() < 1e-4
