"""Speed: the settings that make a denoiser faster, each off unless it is asked for."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from backends import _fp8
from backends._building import BUILDING
from backends._compiled import Compiled, Part
from router.errors import ConfigError

ROW_BUCKETS = (1, 2, 4, 8, 16)

GRAPHS_ON_THREADS = "2.13"
"""Version of torch. Before, only the thread that loads its CUDA graphs first can record any."""

_CONVOLUTIONAL = ("unet", "controlnet", "vae")
_tf32_said: dict[bool, str] = {}
"""What instances have said of TF32, which is a setting of the process."""


class SpeedOptions(BaseModel):
    """What `scripts/bench_gpu` compares. What a device or model has not is refused."""

    model_config = ConfigDict(extra="forbid")

    compile: bool = False
    """`torch.compile` of the denoiser at load, for each of `compile_sizes` in each of `row_buckets`."""
    compile_part: Part = "whole"
    """`whole`, or the repeated `blocks` one by one: compiled several times sooner, and a little slower."""
    compile_sizes: tuple[tuple[int, int], ...] = Field(default=(), max_length=16)
    """Height and width of each; empty is the model's own size. Pictures of others run uncompiled."""
    cuda_graphs: bool = False
    """Record the compiled denoiser as CUDA graphs: no launch is waited for. Takes memory for each bucket."""
    row_buckets: tuple[int, ...] = Field(default=(), max_length=16)
    """Row counts that ticks are padded to; empty pads nothing, or with `compile` 1, 2, 4, 8 and 16."""
    torchscript: bool | None = None
    """Play short runs of the denoiser and the VAE from a trace, without their Python; the pictures stay the
    same, bit for bit. On a CPU, and not with `compile`; `None` does so where it can be done."""
    channels_last: bool = False
    """Lay out the weights of convolutions with the channels last."""
    fuse_qkv: bool = False
    """One projection for query, key and value of the denoiser's attention."""
    tf32: bool | None = None
    """Whether CUDA may round float32 factors to 10 bits, in the whole process. `None` leaves torch's own
    setting: convolutions may, matrix products may not."""
    decode_stream: bool = False
    """Decode pictures on a CUDA stream of its own, beside the denoiser's next runs. Both then take memory
    at once."""
    quantize: Literal["none", "fp8"] = "none"
    """`fp8`: linear layers of the denoiser in 8-bit floats, by torchao; from compute capability 8.9 on."""


def checked(options: Any, instance: str) -> Any:
    """The options with what follows from them. Raises `ConfigError` for what does not go together."""
    said = f"{instance}: option"
    if options.compile_sizes and not options.compile:
        raise ConfigError(f"{said} `compile_sizes` is given, but nothing is compiled; set `compile`.")
    if options.cuda_graphs and (not options.compile or options.compile_part != "whole"):
        raise ConfigError(f"{said} `cuda_graphs` needs `compile`, and `compile_part` 'whole'; set them.")
    if options.torchscript and options.compile:
        raise ConfigError(f"{said} `torchscript` has no effect beside `compile`; drop one of the two.")
    if options.compile and not options.row_buckets:
        return options.model_copy(update={"row_buckets": ROW_BUCKETS})
    return options


def check_device(options: SpeedOptions, instance: str, device: str, dtype: torch.dtype) -> None:
    """Raises `ConfigError` for what this device has not."""
    for key in ("cuda_graphs", "tf32", "decode_stream"):
        if getattr(options, key) and not device.startswith("cuda"):
            raise ConfigError(f"{instance}: option `{key}` is CUDA's, and `device` is {device!r}; drop it.")
    if options.torchscript and not device.startswith("cpu"):
        raise ConfigError(
            f"{instance}: option `torchscript` is for a CPU, and `device` is {device!r}; drop it, or use"
            " `compile`."
        )
    if options.cuda_graphs and torch.__version__ < GRAPHS_ON_THREADS:
        raise ConfigError(
            f"{instance}: option `cuda_graphs` needs torch 2.13 or later, whose graphs may be recorded on a"
            f" lane's thread, and this is {torch.__version__}; install it, or drop the option."
        )
    if options.quantize == "fp8":
        _fp8.check(instance, device, dtype)


def notes(options: SpeedOptions) -> list[str]:
    """What an operator should see of them."""
    said = []
    if options.compile:
        sizes = ", ".join(f"{width}x{height}" for height, width in options.compile_sizes)
        said.append(
            f"compiled ({options.compile_part}{', CUDA graphs' * options.cuda_graphs}) for"
            f" {sizes or 'its own size'} and rows {', '.join(map(str, options.row_buckets))}"
        )
    if options.quantize != "none":
        said.append(f"denoiser quantized to {options.quantize}")
    said += [name for name in ("channels_last", "fuse_qkv") if getattr(options, name)]
    if options.decode_stream:
        said.append("decoding on a stream of its own")
    return said


def apply(options: SpeedOptions, pipeline: Any, instance: str) -> None:
    """Change the modules of a pipeline that is on its device. On the lane's thread."""
    if options.tf32 is not None:
        allow_tf32(options.tf32, instance)
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    if options.channels_last:
        for name in _CONVOLUTIONAL:
            if (module := getattr(pipeline, name, None)) is not None:
                module.to(memory_format=torch.channels_last)
    with BUILDING:
        if options.fuse_qkv:
            _fuse(denoiser, instance)
        if options.quantize == "fp8":
            _fp8.quantize(denoiser)


def compiled(options: SpeedOptions, module: torch.nn.Module, instance: str) -> Compiled | None:
    """What runs in the denoiser's place, if it is to be compiled."""
    if not options.compile:
        return None
    try:
        return Compiled(module, options.compile_part, graphs=options.cuda_graphs)
    except ValueError as exc:
        raise ConfigError(f"{instance}: {exc}; use `compile_part` 'whole'.") from exc


def is_traced(options: SpeedOptions, device: str) -> bool:
    """Whether short runs are played from a trace."""
    return options.torchscript is not False and torch.device(device).type == "cpu" and not options.compile


def has_fp8() -> bool:
    """Whether this machine's first CUDA device and its libraries can do it."""
    try:
        _fp8.check("", "cuda:0", torch.bfloat16)
    except (ConfigError, RuntimeError, AssertionError):
        return False
    return True


def allow_tf32(allowed: bool, instance: str) -> None:
    """Say it for all of torch. Raises `ConfigError` where another instance has said otherwise."""
    other = _tf32_said.get(not allowed)
    if other is not None and other != instance:
        raise ConfigError(
            f"{instance}: option `tf32` is {allowed}, but {other} says otherwise, and it is one setting for"
            " the whole process; make them agree."
        )
    _tf32_said.clear()
    _tf32_said[allowed] = instance
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _fuse(denoiser: Any, instance: str) -> None:
    try:
        if getattr(denoiser.config, "dual_attention_layers", ()):
            raise ValueError("Diffusers' fused processor fails in the second attention of SD 3.5")
        denoiser.fuse_qkv_projections()
    except (AttributeError, ValueError) as exc:
        raise ConfigError(
            f"{instance}: option `fuse_qkv` is true, which a {type(denoiser).__name__} cannot; drop it."
        ) from exc
