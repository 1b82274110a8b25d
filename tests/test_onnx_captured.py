"""Sessions that CUDA could replay: their tensors lie still. The CPU provider, run here, replays nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

from backends._export_folder import ExportFolder
from backends._ort_captured import CapturedSession
from backends._ort_session import OrtRuntime
from backends._runtimes import RuntimeOptions, make_runtime
from backends._tensorrt_provider import PROVIDER
from router.errors import ConfigError, LoadError
from tests.exports import Exports
from tests.graphs import graph, node, tensor

CPU = torch.device("cpu")


def file_of(folder: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture
def session(tmp_path: Path) -> CapturedSession:
    file = file_of(tmp_path, graph(node("Add", "sample sample")))
    return CapturedSession(onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]), CPU)


def test_inputs_and_outputs_keep_their_addresses_and_results_are_copies(session: CapturedSession) -> None:
    bound = [tensor.data_ptr() for tensor in (*session._fed.values(), *session._made.values())]
    first = session.run({"sample": torch.ones(2, 4)})["out_sample"]
    second = session.run({"sample": torch.full((2, 4), 3.0)})["out_sample"]
    assert (first.unique().tolist(), second.unique().tolist()) == ([2.0], [6.0])
    assert first.data_ptr() not in bound
    assert [tensor.data_ptr() for tensor in (*session._fed.values(), *session._made.values())] == bound


def test_an_output_of_open_shape_stays_where_the_runtime_made_it(tmp_path: Path) -> None:
    model = graph(
        node("Add", "sample sample"),
        inputs=[tensor("sample", ("rows", 4))],
        outputs=[tensor("out_sample", ("rows", 4))],
    )
    session = OrtRuntime(CPU, ["CPUExecutionProvider"]).open(file_of(tmp_path, model))
    first = session.run({"sample": torch.ones(3, 4)})["out_sample"]
    session.run({"sample": torch.zeros(3, 4)})
    assert (tuple(first.shape), first.unique().tolist()) == ((3, 4), [2.0])


def test_open_axes_cannot_be_captured(tmp_path: Path) -> None:
    file = file_of(tmp_path, graph(node("Add", "sample sample")))
    runtime = OrtRuntime(CPU, ["CPUExecutionProvider"], cuda_graphs=True)
    with pytest.raises(LoadError, match=r"open axes, and option `cuda_graphs` wants fixed shapes"):
        runtime.open(file)


def test_the_providers_are_told_to_record(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    open_session = onnxruntime.InferenceSession

    def opened(file: Path, options: Any, providers: list[tuple[str, dict[str, Any]]]) -> Any:
        told.append(dict(providers))
        return open_session(file, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    monkeypatch.setattr(OrtRuntime, "_check_providers", lambda *checked: None)
    runtime = OrtRuntime(CPU, [PROVIDER, "CUDAExecutionProvider"], cuda_graphs=True)
    record = ExportFolder(exports("sd15"), "exported").graphs["unet"][0]
    assert isinstance(runtime.open(record.file, record.inputs), CapturedSession)
    assert told[0][PROVIDER]["trt_cuda_graph_enable"] == "1"
    assert told[0]["CUDAExecutionProvider"]["enable_cuda_graph"] == "1"


def test_there_are_none_on_the_cpu() -> None:
    with pytest.raises(ConfigError, match="`cuda_graphs` is CUDA's"):
        make_runtime(RuntimeOptions(cuda_graphs=True), "mine", "cpu", 1)
    with pytest.raises(ConfigError, match="`cuda_graphs` is ONNX Runtime's"):
        make_runtime(RuntimeOptions(cuda_graphs=True, runtime="openvino"), "mine", "cpu", 1)
