"""Range scan: the largest value between the nodes of a graph, and the first node that leaves its range.

float16 ends at 65,504. A CPU computes it in float32 inside of its kernels and hides what a GPU would
make of it, so every value that passes from node to node is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.sessions import Feeds

FLOAT16_MAX: Final = 65_504.0
_MAXIMA: Final[Mapping[int, float]] = {
    TensorProto.FLOAT16: FLOAT16_MAX,
    TensorProto.FLOAT: float(np.finfo(np.float32).max),
    TensorProto.BFLOAT16: 3.3895313892515355e38,
}
"""Largest finite value of each dtype that is looked at."""

_SOURCES: Final = ("Constant", "ConstantOfShape")
"""Nodes that only say a number. Minus infinity is how an attention mask hides a token."""

_WEIGHTS_FOLDER: Final = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class Ranges:
    """What the scan of one graph saw."""

    largest: float
    """Magnitude, over all float16 values but masks and clamps; 0 in a graph that has none."""
    finding: str | None
    """The rest of a sentence that begins with the graph's file."""


class RangeScan:
    """A graph that tells the largest magnitude of each value inside it: `RangeScan(file).run(feeds)`."""

    def __init__(self, file: Path) -> None:
        self._folder = file.parent
        model = onnx.shape_inference.infer_shapes(onnx.load(file, load_external_data=False))
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._nodes: list[onnx.NodeProto] = list(model.graph.node)
        self._outputs = [value.name for value in model.graph.output]
        self._kinds = dict(_float_values(model.graph))
        self._session = self._watching_session(model)

    def run(self, feeds: Iterable[Feeds]) -> Ranges:
        """Run the graph on each of the feeds and look at every value of every run."""
        names = [f"{name}/largest" for name in self._kinds]
        largest = 0.0
        for feed in feeds:
            told = [float(value) for value in self._session.run(names, dict(feed))] if names else []
            seen = {name: _largest(array) for name, array in feed.items()}
            seen |= zip(self._kinds, told, strict=True)
            own = [node for node in self._nodes if not self._comes_of_limits(node, seen)]
            largest = max([largest, *self._half_values(own, seen)])
            culprit = self._culprit([node for node in own if self._leaves_range(node, seen)], seen)
            if culprit:
                return Ranges(largest, self._said(culprit, seen))
        return Ranges(largest, None)

    def _watching_session(self, model: onnx.ModelProto) -> onnxruntime.InferenceSession:
        graph = model.graph
        graph.initializer.append(helper.make_tensor("range/infinity", TensorProto.FLOAT, [], [np.inf]))
        for name, kind in self._kinds.items():
            graph.node.extend(_watchers(name, kind))
            graph.output.append(helper.make_tensor_value_info(f"{name}/largest", TensorProto.FLOAT, []))
        options = onnxruntime.SessionOptions()
        # Fused nodes would hide values, and could not be named.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(self._folder))
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def _comes_of_limits(self, node: onnx.NodeProto, seen: Mapping[str, float]) -> bool:
        return node.op_type in _SOURCES or any(self._at_limit(name, seen) for name in node.input)

    def _culprit(self, leaving: Sequence[onnx.NodeProto], seen: Mapping[str, float]) -> onnx.NodeProto | None:
        """The first to leave float16; of a wider dtype one that spoils an output, for log(0) may be meant."""
        spoiling = self._spoiling(seen)
        for node in leaving:
            half = any(self._kinds.get(name) == TensorProto.FLOAT16 for name in node.output)
            if half or spoiling & set(node.output):
                return node
        return None

    def _spoiling(self, seen: Mapping[str, float]) -> set[str]:
        """Values that are not finite and through which an output is not."""
        names = {name for name in self._outputs if seen.get(name) == np.inf}
        for node in reversed(self._nodes):
            if names & set(node.output):
                names |= {name for name in node.input if seen.get(name) == np.inf}
        return names

    def _half_values(self, nodes: Sequence[onnx.NodeProto], seen: Mapping[str, float]) -> list[float]:
        made = (name for node in nodes for name in node.output)
        values = [seen[name] for name in made if self._kinds.get(name) == TensorProto.FLOAT16]
        return [value for value in values if value != FLOAT16_MAX]  # which T5 clamps to

    def _leaves_range(self, node: onnx.NodeProto, seen: Mapping[str, float]) -> bool:
        watched = [name for name in node.output if name in self._kinds]
        return any(seen[name] > _MAXIMA[self._kinds[name]] for name in watched)

    def _at_limit(self, name: str, seen: Mapping[str, float]) -> bool:
        """A mask on purpose, the lowest value there is or minus infinity, or the work of an earlier node."""
        if name not in self._weights:
            return seen.get(name, 0.0) >= _MAXIMA.get(self._kinds.get(name, TensorProto.FLOAT), np.inf)
        tensor = self._weights[name]
        if tensor.data_type not in _MAXIMA:
            return False
        values = onnx.numpy_helper.to_array(tensor, str(self._folder)).astype(np.float32)
        return bool((np.abs(values) == _MAXIMA[tensor.data_type]).any() or np.isneginf(values).any())

    def _said(self, node: onnx.NodeProto, seen: Mapping[str, float]) -> str:
        name = next(name for name in node.output if seen.get(name, 0.0) > _MAXIMA[self._kinds[name]])
        weights = next((f" with {each!r}" for each in node.input if each in self._weights), "")
        where = f"node {node.name!r} ({node.op_type}{weights})"
        if self._kinds[name] == TensorProto.FLOAT16:
            value = f"{seen[name]:,.0f}" if np.isfinite(seen[name]) else "infinity"
            return (
                f"leaves the range of float16 at {where}: {value} is beyond {FLOAT16_MAX:,.0f};"
                " export in bfloat16 or float32."
            )
        return f"makes values that are not finite at {where}; check the source's weights."


def _float_values(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    """What nodes make, by name: the dtypes with a range to leave."""
    made = {name for node in graph.node for name in node.output}
    for value in (*graph.value_info, *graph.output):
        kind = value.type.tensor_type.elem_type
        if value.name in made and kind in _MAXIMA:
            yield value.name, kind


def _watchers(name: str, kind: int) -> Iterator[onnx.NodeProto]:
    """The largest magnitude of a value, infinity where it holds NaN."""
    wide = name
    if kind != TensorProto.FLOAT:
        wide = f"{name}/float32"
        yield helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT)
    yield helper.make_node("IsNaN", [wide], [f"{name}/nan"])
    yield helper.make_node("Abs", [wide], [f"{name}/abs"])
    yield helper.make_node("Where", [f"{name}/nan", "range/infinity", f"{name}/abs"], [f"{name}/known"])
    yield helper.make_node("ReduceMax", [f"{name}/known"], [f"{name}/largest"], keepdims=0)


def _largest(array: NDArray[Any]) -> float:
    return float(np.abs(array.astype(np.float64)).max()) if array.size else 0.0
