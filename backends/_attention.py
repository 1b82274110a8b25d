"""How attention is computed: xformers where it is installed, else PyTorch's own, else in slices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

from router.errors import ConfigError

_UNET_NAMES = ("native", "slicing", "xformers")
_DISPATCHED = tuple(name.value for name in AttentionBackendName)
"""Names for the transformers whose attention Diffusers dispatches (FLUX)."""

_EXACT = {"flash-attn": "flash", "flash-attn 3": "_flash_3", "xformers": "xformers"}
"""Other packages' kernels that calculate in the dtype they are given -> Diffusers' names of them."""


@dataclass(frozen=True, slots=True)
class Attention:
    """What was chosen, and the note that says so."""

    name: str
    note: str


def choose(wanted: str, device: str, instance: str, *, unet: bool) -> Attention:
    """`wanted` is option `attention`; nothing is loaded. Raises `ConfigError` for what cannot be here."""
    if wanted in ("auto", "fastest"):
        return _best(device, unet, " (kernels are measured at load)" * (wanted == "fastest"))
    known = _UNET_NAMES if unet else _DISPATCHED
    said = f"{instance}: option `attention` is {wanted!r}"
    if wanted == "slicing" and not unet:
        raise ConfigError(f"{said}, which UNets alone have; use `auto`.")
    if wanted not in known:
        names = ", ".join(("auto", "fastest", *(name for name in known if not name.startswith("_"))))
        raise ConfigError(f"{said}, which this model has not; use one of {names}.")
    if wanted == "xformers" and not _has_xformers():
        raise ConfigError(f"{said}, which is not installed; `pip install xformers`, or use `auto`.")
    if wanted == "xformers" and not device.startswith("cuda"):
        raise ConfigError(f"{said}, which runs on CUDA alone; use `auto`.")
    return Attention(wanted, f"attention {wanted}")


def apply(attention: Attention, pipeline: Any, instance: str) -> None:
    """Set it on a pipeline. Raises `ConfigError` for what the machine has not after all."""
    if attention.name == "native":  # Diffusers' own default, wherever PyTorch has it
        return
    unet = getattr(pipeline, "unet", None)
    try:
        if attention.name == "slicing":
            pipeline.enable_attention_slicing()
        elif unet is not None:
            pipeline.enable_xformers_memory_efficient_attention()
        else:
            _dispatch(pipeline.transformer, attention.name)
    except (ValueError, RuntimeError, ImportError, AttributeError) as exc:
        raise ConfigError(
            f"{instance}: option `attention` is {attention.name!r}, which this model or machine has not;"
            " use `auto`."
        ) from exc


def _best(device: str, unet: bool, measured: str) -> Attention:
    if unet and not measured and device.startswith("cuda") and _has_xformers():
        return Attention("xformers", "attention xformers, as it is installed")
    if hasattr(torch.nn.functional, "scaled_dot_product_attention"):
        return Attention("native", f"attention native, PyTorch's own{measured}")
    return Attention("slicing", "attention slicing, as this PyTorch has no memory-efficient one")


def installed(module: Any) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """Kernels of other packages that a module could run by, and what has it do so inside.

    Those that quantize are none of them: they make other pictures.
    """
    parts = _dispatched(module)
    return {said: partial(_by, parts, name) for said, name in _EXACT.items() if parts and _is_usable(name)}


def _dispatch(transformer: Any, name: str) -> None:
    """For this model alone: `set_attention_backend` would be for the others of the process, too.

    Some transformers (SD3's) compute attention without Diffusers' dispatch: they would not notice.
    """
    with attention_backend(name):
        parts = _dispatched(transformer)
    if not parts:
        raise ValueError("no part of this model takes an attention back end")
    for part in parts:
        part._attention_backend = AttentionBackendName(name)


def _dispatched(module: Any) -> list[Any]:
    processors: Mapping[str, Any] = getattr(module, "attn_processors", {})
    return [each for each in processors.values() if hasattr(each, "_attention_backend")]


@contextlib.contextmanager
def _by(parts: Sequence[Any], name: str) -> Iterator[None]:
    before = parts[0]._attention_backend
    for part in parts:
        part._attention_backend = AttentionBackendName(name)
    try:
        yield
    finally:
        for part in parts:
            part._attention_backend = before


def _is_usable(name: str) -> bool:
    try:
        with attention_backend(name):
            return True
    except (RuntimeError, ValueError, ImportError):
        return False


def _has_xformers() -> bool:
    return find_spec("xformers") is not None
