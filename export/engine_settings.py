"""EngineSettings: what TensorRT builds of an export, and how. The graphs carry the precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from export.errors import UnsupportedExportError

Hardware: TypeAlias = Literal["exact", "same-compute-capability", "ampere-plus"]
HARDWARE: Final[tuple[Hardware, ...]] = get_args(Hardware)

OPTIMIZATION_LEVELS: Final = range(6)
"""TensorRT's own: 3 is its default, 5 compares the most kernels and takes the longest."""

_DEFAULT_LEVEL: Final = 3


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Raises `UnsupportedExportError` when made of what TensorRT does not have."""

    profiles: tuple[str, ...] = ()
    """Of the export; empty is all."""
    rows: tuple[int, ...] = ()
    """Of the export's denoiser, or for its open batch axis; empty is all, or those of the example."""
    workspace_mib: int | None = None
    """Scratch memory that a layer may use; `None` is TensorRT's default, all of the device."""
    optimization_level: int = _DEFAULT_LEVEL
    hardware: Hardware = "exact"
    """The GPUs that the engines run on: this model of GPU, this compute capability, or 8.0 and later."""
    version_compatible: bool = False
    """Later minor versions of TensorRT load the engines too. Such an engine carries code for the CPU."""
    tf32: bool = False
    """Multiply float32 with 10 bits behind the point. Off, so that float32 means float32."""
    timing_cache: Path | None = None
    """What TensorRT measured, for the next build; `None` is beside the output, `sdxl-tensorrt.timings`."""

    def __post_init__(self) -> None:
        if self.optimization_level not in OPTIMIZATION_LEVELS:
            raise UnsupportedExportError(
                f"`optimization_level` is {self.optimization_level}; use 0 to {OPTIMIZATION_LEVELS[-1]}."
            )
        if self.hardware not in HARDWARE:
            raise UnsupportedExportError(
                f"`hardware` is {self.hardware!r}; use one of {', '.join(HARDWARE)}."
            )
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UnsupportedExportError(f"`workspace_mib` is {self.workspace_mib}; use 1 or more, in MiB.")

    def options(self) -> tuple[str, ...]:
        """The command line's options that say the same, where the engines follow from them."""
        return tuple(self._options())

    def _options(self) -> Iterator[str]:
        for profile in self.profiles:
            yield from ("--profile", profile)
        if self.rows:
            yield from ("--rows", ",".join(map(str, self.rows)))
        if self.workspace_mib is not None:
            yield from ("--workspace-mib", str(self.workspace_mib))
        if self.optimization_level != _DEFAULT_LEVEL:
            yield from ("--optimization-level", str(self.optimization_level))
        if self.hardware != "exact":
            yield from ("--hardware", self.hardware)
        if self.version_compatible:
            yield "--version-compatible"
        if self.tf32:
            yield "--tf32"
