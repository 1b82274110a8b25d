"""Which device an instance runs on, as torch names it."""

from __future__ import annotations

import functools

import torch

from router.config import InstanceConfig
from router.errors import ConfigError


@functools.cache
def fastest_device() -> str:
    """What `auto` means here: the first CUDA device, Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_of(instance: InstanceConfig) -> str:
    """The instance's `device`. Raises `ConfigError` for one that is no device, or not of this machine."""
    if instance.device == "auto":
        return fastest_device()
    try:
        device = torch.device(instance.device)
    except RuntimeError as exc:
        raise ConfigError(
            f"{instance.name}: `device` is {instance.device!r}; use `auto`, `cpu`, `cuda:0` or `mps`."
        ) from exc
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type != "cpu" and (device.index or 0) >= there.get(device.type, 0):
        raise ConfigError(
            f"{instance.name}: `device` is {instance.device!r}, which this machine has not; use `auto`."
        )
    return "cuda:0" if instance.device == "cuda" else instance.device


def torch_device(device: str) -> str:
    """`cpu:0` and `cpu:1` are two lanes on the one CPU that torch knows."""
    return "cpu" if device.startswith("cpu") else device


def prepare_thread(threads: int | None, device: str) -> None:
    """Grad mode, thread counts and the current CUDA device are a thread's: set once, outside of every task.

    Streams, events, pinned memory and generated kernels are of the current device where none is named.
    """
    torch.set_grad_enabled(False)
    if device.startswith("cuda") and torch.cuda.is_available():
        torch.cuda.set_device(torch.device(device).index or 0)
    if threads is not None:
        torch.set_num_threads(threads)
