"""The runtimes that an export can be run by: each imported only when it is asked for."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from backends._device import device_of, fastest_device
from backends._session import Runtime
from router.config import InstanceConfig
from router.errors import BackendUnavailableError, ConfigError


class RuntimeOptions(BaseModel):
    """The settings of a runtime. What the chosen one has not is refused."""

    model_config = ConfigDict(extra="forbid")

    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    precision: Literal["float32", "bfloat16"] = "float32"
    """What OpenVINO computes in, whatever the graphs are stored in."""
    providers: tuple[str, ...] = ()
    """ONNX Runtime's execution providers, the first preferred; empty is the one of `device`."""
    provider_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Provider -> its settings, as ONNX Runtime names them."""
    intra_op_threads: int | None = Field(default=None, ge=1)
    """CPU threads of one run; `None` is the lane's share."""
    spinning: bool = False
    """Whether ONNX Runtime's idle threads wait for work by spinning: where nobody else wants the cores."""
    graph_optimization: Literal["disabled", "basic", "extended", "all"] = "all"
    cuda_graphs: bool = False
    """Record the runs of fixed-shape graphs by the CUDA and TensorRT providers, and replay them."""


def device_for(options: RuntimeOptions, instance: InstanceConfig) -> str:
    """The instance's device; `auto` is the fastest that the runtime can use. Raises `ConfigError`."""
    if instance.device != "auto":
        return device_of(instance)
    if options.runtime == "openvino":
        return "cpu"
    from backends._ort_session import ON_CUDA, finds_cuda

    wanted = any(name in ON_CUDA for name in options.providers) if options.providers else finds_cuda()
    fastest = fastest_device()
    return fastest if wanted and fastest.startswith("cuda") else "cpu"


def make_runtime(options: RuntimeOptions, name: str, device: str, threads: int) -> Runtime:
    """The runtime of an instance called `name`. Raises `BackendUnavailableError`, `ConfigError`."""
    if options.runtime == "openvino":
        return _openvino(options, name, device, threads)
    return _onnxruntime(options, name, device, threads)


def _onnxruntime(options: RuntimeOptions, name: str, device: str, threads: int) -> Runtime:
    from backends._ort_session import ON_CUDA, PROVIDERS, OrtRuntime

    if options.precision != "float32":
        raise ConfigError(
            f"{name}: option `precision` is {options.precision!r}, which only `runtime` 'openvino' has;"
            " drop it, or export the model in that dtype."
        )
    place = torch.device(device)
    if place.type not in PROVIDERS:
        raise ConfigError(f"{name}: `device` is {device!r}; onnxruntime runs here on `cpu` or `cuda:0`.")
    if options.cuda_graphs and place.type != "cuda":
        raise ConfigError(f"{name}: option `cuda_graphs` is CUDA's, and `device` is {device!r}; drop it.")
    providers = options.providers or (PROVIDERS[place.type],)
    runtime = OrtRuntime(
        place,
        providers,
        provider_options=options.provider_options,
        threads=options.intra_op_threads or threads,
        spinning=options.spinning,
        optimization=options.graph_optimization,
        cuda_graphs=options.cuda_graphs,
    )
    runtime.check()
    if (place.type == "cuda") != any(provider in ON_CUDA for provider in providers):
        raise ConfigError(
            f"{name}: option `providers` is {', '.join(providers)}, which runs elsewhere than on `device`"
            f" {device!r}; correct one of them."
        )
    return runtime


def _openvino(options: RuntimeOptions, name: str, device: str, threads: int) -> Runtime:
    try:
        from backends._openvino_session import OpenVinoRuntime
    except ModuleNotFoundError as exc:
        raise BackendUnavailableError(
            f"{name}: option `runtime` is 'openvino', which is not installed;"
            " pip install 'triptych[openvino]'."
        ) from exc
    if not device.startswith("cpu"):
        raise ConfigError(f"{name}: `device` is {device!r}; with `runtime` 'openvino' it must be `cpu`.")
    _refuse_ort_settings(options, name)
    return OpenVinoRuntime(options.precision, options.intra_op_threads or threads)


def _refuse_ort_settings(options: RuntimeOptions, name: str) -> None:
    for key in ("providers", "provider_options", "spinning", "graph_optimization", "cuda_graphs"):
        if key in options.model_fields_set:
            raise ConfigError(
                f"{name}: option `{key}` is ONNX Runtime's and `runtime` is 'openvino'; drop it."
            )
