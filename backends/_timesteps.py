"""Timesteps that stay on the CPU: a scheduler that asks what step it is must not wait for a GPU."""

from __future__ import annotations

import functools
from typing import Any


def keep_on_cpu(scheduler: Any) -> Any:
    """The same scheduler; whatever device a pipeline names, its timesteps and sigmas are on the CPU.

    They are looked at in every step (`(timesteps == t).nonzero()`, `alphas[t]`), for which a GPU would
    have to finish all that it was given. The denoiser gets its timesteps with the tick, in one copy.
    """
    kind: Any = type(scheduler)
    scheduler.__class__ = _on_cpu(kind)
    return scheduler


@functools.cache
def _on_cpu(kind: Any) -> type:
    """The class under its own name. Not a method of the instance alone: a copy's would set the original."""
    plain = kind.set_timesteps

    @functools.wraps(plain)  # pipelines look at its signature
    def set_timesteps(self: Any, num_inference_steps: Any = None, device: Any = None, **others: Any) -> Any:
        if num_inference_steps is not None:
            others["num_inference_steps"] = num_inference_steps
        return plain(self, device="cpu", **others)

    return type(kind.__name__, (kind,), {"set_timesteps": set_timesteps, "__module__": kind.__module__})
