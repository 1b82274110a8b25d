"""Faults on demand: what goes wrong in the fake backend, where, and how often."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from router.errors import (
    BackendUnavailableError,
    DeviceLostError,
    GenerateError,
    LoadError,
    MemoryBudgetError,
    RouterError,
)

_OURS: dict[str, type[RouterError]] = {
    error.code: error
    for error in (BackendUnavailableError, DeviceLostError, GenerateError, LoadError, MemoryBudgetError)
}
_SHORT = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which"
    " 1.00 GiB is free."
)


class Fault(BaseModel):
    """One thing that goes wrong: where, with which error, how many times (0: always).

    `error` is a code of ours, or what a library would raise: `out_of_memory`, or `unknown`, whose words
    hold the prompt and a path, as a library's may.
    """

    model_config = ConfigDict(extra="forbid")

    at: Literal["probe", "load", "generate", "step", "run"]
    """`run` is the model itself, with the rows of all requests that share it."""
    error: Literal[
        "backend_unavailable", "device_lost", "generate_failed", "load_failed", "memory_budget",
        "out_of_memory", "unknown",
    ] = "generate_failed"  # fmt: skip
    times: int = Field(default=1, ge=0)
    prompt: str = ""
    """Only for requests whose prompt contains this."""
    rows_above: int = Field(default=0, ge=0)
    """Only in runs of more rows than these."""

    def strikes(self, place: str, prompt: str, rows: int) -> bool:
        return self.at == place and self.prompt in prompt and (not self.rows_above or rows > self.rows_above)

    def exception(self, instance: str, prompt: str) -> Exception:
        if self.error == "out_of_memory":
            return MemoryError(_SHORT)
        if self.error == "unknown":
            return ValueError(f"cannot paint {prompt!r} with /srv/models/secret/unet.safetensors")
        error = _OURS[self.error](f"{instance}: the fault planted at {self.at!r}.")
        if hasattr(error, "instance"):
            error.instance = instance
        return error
