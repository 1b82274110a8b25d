"""Timesteps that stay on the CPU: a scheduler that asks what step it is must not wait for a GPU."""

from __future__ import annotations

import functools
from typing import Any


def keep_on_cpu(scheduler: Any) -> Any:
    """The same scheduler; whatever device a pipeline names, its timesteps and sigmas are on the CPU.

    They are looked at in every step (`(timesteps == t).nonzero()`, `alphas[t]`), for which a GPU would
    have to finish all that it was given. The denoiser gets its timesteps with the tick, in one copy.
    """
    plain = scheduler.set_timesteps

    @functools.wraps(plain)  # pipelines look at its signature
    def set_timesteps(num_inference_steps: Any = None, device: Any = None, **others: Any) -> Any:
        if num_inference_steps is not None:
            others["num_inference_steps"] = num_inference_steps
        return plain(device="cpu", **others)

    scheduler.set_timesteps = set_timesteps
    return scheduler
