"""Offload: modules of a pipeline that are on the accelerator only while they run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from router.errors import ConfigError


class OffloadOptions(BaseModel):
    """What moves between the host's memory and the device's."""

    model_config = ConfigDict(extra="forbid")

    offload: Literal["none", "model", "sequential"] = "none"
    """`model` has one component on the device at a time, `sequential` one layer: one picture at a time."""
    device_map: str | None = None
    """Refused, with the cure: an instance has one device, which its lane owns."""


def check(options: Any, instance: str) -> None:
    """Raise `ConfigError` for what does not go together, before anything is loaded."""
    offload = options.offload
    if options.device_map is not None and offload != "none":
        raise ConfigError(
            f"{instance}: options `offload` ({offload!r}) and `device_map` ({options.device_map!r}) do not go"
            " together, as both say where modules lie; drop `device_map`."
        )
    if options.device_map is not None:
        raise ConfigError(
            f"{instance}: option `device_map` is {options.device_map!r}, but an instance has one device, its"
            " lane's; name several as `device`, or use `offload` where the model is too large for one."
        )
    for other in ("compile", "decode_stream"):
        if offload != "none" and getattr(options, other):
            raise ConfigError(f"{instance}: options `{other}` and `offload` do not go together; drop one.")


def check_device(options: Any, instance: str, device: str) -> None:
    """Raise `ConfigError` where there is nothing to offload from."""
    if options.offload != "none" and device.startswith("cpu"):
        raise ConfigError(
            f"{instance}: option `offload` is {options.offload!r}, but `device` is the CPU; drop one."
        )


def notes(options: Any) -> tuple[str, ...]:
    """What an operator should see of them."""
    return (f"offload {options.offload}: one picture at a time",) if options.offload != "none" else ()


def place(options: Any, pipeline: Any, device: str) -> None:
    """Bring the pipeline onto the device, or have its modules brought there when they run."""
    if options.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif options.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)
