"""ONNX Runtime's TensorRT provider gets the shapes of each graph. The library itself is not asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from backends._export_folder import ExportFolder
from backends._ort_session import OrtRuntime
from backends._tensorrt_provider import PROVIDER, tensorrt_settings
from router.errors import LoadError
from router.manifest import TensorRecord
from tests.exports import Exports

OPEN = (TensorRecord(name="sample", dtype="float32", shape=("batch_size", 4)),)
FIXED = (
    TensorRecord(name="sample", dtype="float32", shape=(2, 4, 8, 8)),
    TensorRecord(name="timestep", dtype="float32", shape=()),
)


def test_one_engine_of_fixed_shapes_kept_beside_its_graph(tmp_path: Path) -> None:
    cache = str(tmp_path / "unet/tensorrt")
    assert tensorrt_settings(tmp_path / "unet/model.onnx", FIXED, {"device_id": 1}) == {
        "trt_profile_min_shapes": "sample:2x4x8x8",
        "trt_profile_opt_shapes": "sample:2x4x8x8",
        "trt_profile_max_shapes": "sample:2x4x8x8",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
        "device_id": 1,
    }


def test_what_is_configured_goes_first(tmp_path: Path) -> None:
    configured = {"trt_engine_cache_path": "/cache", "trt_fp16_enable": "1"}
    found = tensorrt_settings(tmp_path / "unet/model.onnx", FIXED, configured)
    assert found.items() >= configured.items()
    shapes = {f"trt_profile_{which}_shapes": f"sample:{which}" for which in ("min", "opt", "max")}
    assert tensorrt_settings(tmp_path / "unet/model.onnx", OPEN, shapes).items() >= shapes.items()


@pytest.mark.parametrize("inputs", [OPEN, ()], ids=["open", "unknown"])
def test_open_axes_are_refused(inputs: tuple[TensorRecord, ...]) -> None:
    with pytest.raises(LoadError, match=r"unet/model\.onnx has open axes, .*; export the model"):
        tensorrt_settings(Path("unet/model.onnx"), inputs, {})


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, dict[str, Any]]]:
    """The providers of each session that is opened: name to settings."""
    found: list[dict[str, dict[str, Any]]] = []
    open_session = onnxruntime.InferenceSession

    class Session:
        def __init__(self, file: Path, options: Any, providers: list[tuple[str, dict[str, Any]]]) -> None:
            found.append(dict(providers))
            self._real = open_session(file, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return list(found[-1])

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return found


def test_the_other_providers_of_an_instance_get_none_of_it(
    opened: list[dict[str, dict[str, Any]]], exports: Exports
) -> None:
    runtime = OrtRuntime(torch.device("cpu"), [PROVIDER, "CUDAExecutionProvider"])
    folder = ExportFolder(exports("sd15"), "exported")
    for graph in folder.graphs["unet"]:
        runtime.open(graph.file, graph.inputs)
    shapes = [each[PROVIDER]["trt_profile_max_shapes"] for each in opened]
    assert shapes == [
        f"sample:{rows}x4x8x8,timestep:{rows},encoder_hidden_states:{rows}x77x32" for rows in (2, 8)
    ]
    assert all(each["CUDAExecutionProvider"] == {"device_id": 0} for each in opened)
