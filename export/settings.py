"""ExportSettings: what an export is made of beside its source. Made once, refused at once if it cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from export.errors import UnsupportedExportError
from export.modules import DTYPES
from export.parts import Timestep
from router.manifest import RUNTIMES, Runtime
from router.types import ShapeProfile

OPSETS: Final = range(18, 24)
"""Below 18 PyTorch's exporter has to convert down; 23 is the newest that TensorRT 10.14 to 11 share."""

_BFLOAT16_OPSET = 22
"""The first in which convolutions take bfloat16."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Raises `UnsupportedExportError` when made of what does not go together."""

    profiles: tuple[ShapeProfile, ...]
    """All of one dtype."""
    opset: int = 20
    """20 is read by most runtimes; 23 has attention as one node."""
    timestep: Timestep = "per-row"
    """Scalar is what Optimum feeds a UNet; gathering rows of unequal steps needs one for each row."""
    dynamic_batch: bool = False
    """The batch axis stays open: one graph of each component and profile serves any number of rows."""
    runtimes: tuple[Runtime, ...] = ("onnxruntime",)
    """Those that must know every operator."""

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise UnsupportedExportError(
                f"`opset` is {self.opset}; use {OPSETS.start} to {OPSETS.stop - 1}:"
                " 20 is the most widely read."
            )
        if self.dtype not in DTYPES:
            raise UnsupportedExportError(f"`dtype` is {self.dtype!r}; use one of {', '.join(DTYPES)}.")
        if self.dtype == "bfloat16" and self.opset < _BFLOAT16_OPSET:
            raise UnsupportedExportError(
                f"bfloat16 needs opset {_BFLOAT16_OPSET} or later, not {self.opset}: set `opset` to 23."
            )
        for runtime in self.runtimes:
            if runtime not in RUNTIMES:
                raise UnsupportedExportError(f"`runtime` is {runtime!r}; use one of {', '.join(RUNTIMES)}.")

    @property
    def dtype(self) -> str:
        return self.profiles[0].dtype
