"""Parity of engines: each beside ONNX Runtime on the graph it was built from, on the same inputs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import onnxruntime
import torch
from numpy.typing import NDArray

from export.engine_feeds import draw_feeds
from export.engine_session import EngineSession
from export.engines import PlannedEngine
from export.errors import ExportError, GateError, UnsupportedExportError
from export.sessions import open_session, runtime_for
from export.tolerances import TOLERANCES, difference
from router.manifest import Manifest

_CUDA: Final = "CUDAExecutionProvider"


@dataclass(frozen=True)
class EngineGate:
    """Compares engines of one export on one device. `tf32`: whether they may multiply float32 in TF32."""

    folder: Path
    manifest: Manifest
    device: int = 0
    tf32: bool = False
    host_code: bool = False

    @property
    def reference(self) -> str:
        """What runs the graphs."""
        runtime = runtime_for(self._dtype)
        told = onnxruntime.__version__ if runtime == "onnxruntime" else version(runtime)
        return f"{runtime} {told}, {_CUDA if self._on_cuda else 'on the CPU'}"

    def check(self) -> None:
        """Raise `UnsupportedExportError` where nothing here can run the graphs."""
        if self._dtype == "bfloat16" and importlib.util.find_spec("openvino") is None:
            raise UnsupportedExportError(
                "Engines in bfloat16 are compared with OpenVINO, which is missing;"
                " pip install 'triptych[openvino]'."
            )

    def error(self, engine: PlannedEngine, plan: bytes) -> float:
        """The largest difference of an output. Raises `GateError` where it is beyond the tolerance."""
        drawn = draw_feeds(self.folder, self.manifest, engine)
        feeds = {
            each.name: torch.from_numpy(drawn[each.name]).to(getattr(torch, each.dtype))
            for each in engine.inputs
        }
        made = EngineSession(plan, engine, self.device, host_code=self.host_code).run(feeds)
        reference = self._run_graph(engine, {name: _array(tensor) for name, tensor in feeds.items()})
        errors = {
            each.name: difference(_array(made[each.name]), reference[each.name]) for each in engine.outputs
        }
        name = max(errors, key=errors.__getitem__)
        allowed = self._allowed(engine)
        if not errors[name] <= allowed:
            raise GateError(
                f"`{engine.file}` is {errors[name]:.3g} away from {self.reference} in {name!r}, and may be"
                f" {allowed:.2g}; build it again, or export the model in a wider dtype."
            )
        return errors[name]

    def _allowed(self, engine: PlannedEngine) -> float:
        """TF32 keeps as many bits as float16. What the export itself lost, the engine may lose too."""
        dtype = engine.outputs[0].dtype
        tolerance = TOLERANCES["float16" if self.tf32 and dtype == "float32" else dtype]
        lost = self.manifest.parity.components.get(engine.component, 0.0) if self.manifest.parity else 0.0
        return tolerance.allowed(lost)

    def _run_graph(self, engine: PlannedEngine, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        file, names = self.folder / engine.graph, [each.name for each in engine.outputs]
        if self._on_cuda:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            providers = [(_CUDA, {"device_id": self.device, "use_tf32": 0})]
            session = onnxruntime.InferenceSession(file, options, providers=providers)
            if _CUDA not in session.get_providers():
                raise ExportError(f"onnxruntime could not load its {_CUDA}; see its log for what it misses.")
            return dict(zip(names, session.run(names, dict(feeds)), strict=True))
        return dict(zip(names, open_session(file, self._dtype).run(feeds), strict=True))

    @property
    def _dtype(self) -> str:
        return self.manifest.profiles[0].dtype

    @property
    def _on_cuda(self) -> bool:
        """NumPy has no bfloat16 to hand to ONNX Runtime: OpenVINO runs it, on the CPU."""
        return self._dtype != "bfloat16" and _CUDA in onnxruntime.get_available_providers()


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    """NumPy has no bfloat16; sessions take and give float32 for it."""
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
    return array
