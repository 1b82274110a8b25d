"""A double of the module `tensorrt`: the parts of its interface that we call, for 10.x and 11.x.

Its engines are the graphs themselves, run by ONNX Runtime in the memory whose addresses they are told. It
shows that we call what there is, in the right order, with the right values; of a GPU it shows nothing.
"""

from __future__ import annotations

import ctypes
import enum
import json
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

_KINDS = {1: "FLOAT", 7: "INT64", 10: "HALF", 16: "BF16"}
_DTYPES = {"FLOAT": np.float32, "INT64": np.int64, "HALF": np.float16}

DataType = enum.Enum("DataType", ["FLOAT", "HALF", "BF16", "INT32", "INT64"])
Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.is_made = True


class IProgressMonitor:
    def __init__(self) -> None:
        self.is_made = True


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> memoryview:
        return memoryview(self.content)


class Config:
    """Refuses what TensorRT's has not."""

    __slots__ = ("builder_optimization_level", "calls", "hardware_compatibility_level", "progress_monitor")

    def __init__(self) -> None:
        self.progress_monitor: Any = None
        self.hardware_compatibility_level: Any = None
        self.calls: dict[str, Any] = {"set": [], "cleared": [], "profiles": [], "pools": {}}

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.calls["pools"][pool.name] = size

    def set_flag(self, flag: Any) -> None:
        self.calls["set"].append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.calls["cleared"].append(flag.name)

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(bytes(content))

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content.startswith(b"another GPU"):
            return False
        self.calls["timings"] = cache
        return True

    def get_timing_cache(self) -> TimingCache:
        return self.calls["timings"]

    def add_optimization_profile(self, profile: Any) -> int:
        self.calls["profiles"].append(profile.shapes)
        return len(self.calls["profiles"]) - 1


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[name] = [min, opt, max]


class Parser:
    def __init__(self, network: Any, logger: ILogger) -> None:
        assert logger.is_made
        self._network = network
        self.num_errors = 0

    def set_flag(self, flag: Any) -> None:
        self._network.parser_flags.append(flag.name)

    def parse_from_file(self, path: str) -> bool:
        model = onnx.load(path)  # with the weights that lie beside it
        self._bad = next((node for node in model.graph.node if node.op_type == "Softsign"), None)
        self._network.file = path
        self.num_errors = int(self._bad is not None)
        return self._bad is None

    def get_error(self, index: int) -> Any:
        told = {"desc": "no such layer", "node_name": self._bad.name, "node_operator": self._bad.op_type}
        return SimpleNamespace(**{name: lambda text=text: text for name, text in told.items()})


class Engine:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        graph = onnx.load(plan["onnx"], load_external_data=False).graph
        weights = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in weights]
        self._values = {value.name: value.type.tensor_type for value in (*inputs, *graph.output)}
        self.inputs = [value.name for value in inputs]
        self.num_io_tensors = len(self._values)

    def get_tensor_name(self, index: int) -> str:
        return list(self._values)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(
            axis.dim_value if axis.HasField("dim_value") else -1 for axis in self._values[name].shape.dim
        )

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[self._plan["dtypes"].get(name, _KINDS[self._values[name].elem_type])]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._plan["profiles"][index][name]]

    def create_execution_context(self) -> Context:
        return Context(self, self._plan)


class Context:
    def __init__(self, engine: Engine, plan: dict[str, Any]) -> None:
        self._engine = engine
        self._plan = plan
        self._session = onnxruntime.InferenceSession(plan["onnx"], providers=["CPUExecutionProvider"])
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        feeds = {name: self._at(name, self._shapes[name]) for name in self._engine.inputs}
        names = [output.name for output in self._session.get_outputs()]
        for name, made in zip(names, self._session.run(names, feeds), strict=True):
            self._at(name, made.shape)[...] = made + self._plan["distortion"]
        return True

    def _at(self, name: str, shape: tuple[int, ...]) -> Any:
        dtype = np.dtype(_DTYPES[self._engine.get_tensor_dtype(name).name])
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_char * size).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)


GPU = "NVIDIA H100 80GB HBM3"
STREAM = 7


class TensorRT(ModuleType):
    """`TensorRT("11.1.0")` is that version's module. Attributes after `built` steer it."""

    def __init__(self, version: str) -> None:
        super().__init__("tensorrt")
        self.__spec__ = ModuleSpec("tensorrt", None)
        self.__version__ = version
        old = version.startswith("10")
        weak = ["FP16", "BF16", "INT8", "OBEY_PRECISION_CONSTRAINTS"] if old else []
        self.BuilderFlag = enum.Enum("BuilderFlag", [*weak, "TF32", "VERSION_COMPATIBLE"])
        batch = {"EXPLICIT_BATCH": 0} if old else {}
        self.NetworkDefinitionCreationFlag = enum.IntEnum(
            "NetworkDefinitionCreationFlag", {**batch, "STRONGLY_TYPED": 1}
        )
        levels = ["NONE", "AMPERE_PLUS", *([] if old else ["SAME_COMPUTE_CAPABILITY"])]
        self.HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", levels)
        self.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
        self.OnnxParserFlag = enum.Enum("OnnxParserFlag", ["NATIVE_INSTANCENORM"])
        self.DataType, self.ILogger, self.IProgressMonitor = DataType, ILogger, IProgressMonitor
        self.OnnxParser, self.Builder, self.Runtime = Parser, self._builder, self._runtime
        self.built: list[tuple[Any, Config]] = []
        """Network and configuration of each engine."""
        self.distortion = 0.0
        self.wrong_dtypes: dict[str, str] = {}
        self.during_build: Any = lambda: None
        self.host_code_allowed: list[bool] = []

    def _builder(self, logger: ILogger) -> Any:
        assert logger.is_made
        return SimpleNamespace(
            create_network=lambda flags: SimpleNamespace(flags=flags, parser_flags=[], file=""),
            create_builder_config=Config,
            create_optimization_profile=Profile,
            build_serialized_network=lambda network, config: self._build(network, config, logger),
        )

    def _build(self, network: Any, config: Config, logger: Any) -> memoryview | None:
        self.built.append((network, config))
        config.progress_monitor.phase_start("Building", None, 2)
        config.progress_monitor.phase_start("Tactics", "Building", 9)
        self.during_build()
        goes_on = all(config.progress_monitor.step_complete("Building", step) for step in range(2))
        config.progress_monitor.phase_finish("Building")
        if not goes_on or "unbuildable" in network.file:
            logger.log(Severity.ERROR, "Could not find any\nimplementation.")
            return None
        config.calls["timings"].content += b"+"
        plan = {"onnx": network.file, "profiles": config.calls["profiles"], "dtypes": self.wrong_dtypes}
        return memoryview(json.dumps(plan | {"distortion": self.distortion}).encode())

    def _runtime(self, logger: ILogger) -> Any:
        assert logger.is_made
        runtime = SimpleNamespace(engine_host_code_allowed=False)

        def deserialize(plan: bytes) -> Engine | None:
            self.host_code_allowed.append(runtime.engine_host_code_allowed)
            return Engine(json.loads(plan)) if plan.startswith(b"{") else None

        runtime.deserialize_cuda_engine = deserialize
        return runtime
