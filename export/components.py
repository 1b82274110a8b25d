"""Component: one graph's worth of a model. Its names and shapes by Optimum's contract, plausible inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

from export.modules import DTYPES, ready
from export.timesteps import keep_frequencies
from router.types import ShapeProfile

ROWS: Final = "rows"
"""The axis that is the batch."""
Axis: TypeAlias = int | Literal["rows"] | Callable[[ShapeProfile], int]
Shell: TypeAlias = Callable[[Any], nn.Module]
Draw: TypeAlias = Callable[[ShapeProfile, tuple[int, ...], torch.Generator], Tensor]


@dataclass(frozen=True)
class Input:
    """One input of a graph: its axes, and how to draw values of the size that it meets in a pipeline."""

    name: str
    axes: tuple[Axis, ...]
    draw: Draw
    dtype: torch.dtype | None = None
    """`None` is the component's own."""

    @property
    def batched(self) -> bool:
        """Whether its first axis is the batch."""
        return self.axes[:1] == (ROWS,)

    def shape(self, profile: ShapeProfile, rows: int) -> tuple[int, ...]:
        return tuple(_length(axis, profile, rows) for axis in self.axes)


@dataclass(frozen=True)
class Component:
    """One folder of an export. `inputs` and `output_names` are in the contract's order."""

    name: str
    part: str
    """The pipeline's attribute that it is made of: `vae` for `vae_decoder`."""
    rows_kind: Literal["bucket", "one"]
    """Whether it has one graph for each row bucket, or one of a single row."""
    inputs: tuple[Input, ...]
    output_names: tuple[str, ...]
    shell: Shell
    float16_overflows: bool = False
    """Exported in float32 where float16 is asked for."""

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.inputs)

    def dtype(self, profile_dtype: str) -> str:
        """What this component is exported in, for a profile of this dtype."""
        return "float32" if self.float16_overflows and profile_dtype == "float16" else profile_dtype

    def rows(self, profile: ShapeProfile) -> tuple[int, ...]:
        """The rows of its graphs at this profile."""
        return profile.row_buckets if self.rows_kind == "bucket" else (1,)

    def wrap(self, pipeline: Any) -> nn.Module:
        """The module that is exported, and that the export is compared with.

        `pipeline` is anything that holds `part`. Arguments are the graph's inputs by name; the result is a
        tuple in the order of `output_names`.
        """
        return ready(keep_frequencies(self.shell(getattr(pipeline, self.part))))

    def example(self, profile: ShapeProfile, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Random inputs of the shapes, dtypes and sizes that a pipeline would give; CPU tensors."""
        own = DTYPES[self.dtype(profile.dtype)]
        return {
            each.name: each.draw(profile, each.shape(profile, rows), generator).to(each.dtype or own)
            for each in self.inputs
        }


def _length(axis: Axis, profile: ShapeProfile, rows: int) -> int:
    if isinstance(axis, int):
        return axis
    return rows if isinstance(axis, str) else axis(profile)
