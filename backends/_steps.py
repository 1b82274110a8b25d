"""StepEnd: where a running picture can be stopped, and tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from backends._lane import Report
from backends._on_its_way import OnItsWay

Preview = Callable[[Any, torch.Tensor], OnItsWay]
"""Pipeline, latents -> a small picture of them."""


class StepEnd:
    """The `callback_on_step_end` of one picture.

    A step is told when its preview is in the host's memory: on a GPU at the end of the next step, so that
    nobody waits for it. `flush` tells of the last one.
    """

    def __init__(self, check_stop: Callable[[], None], report: Report, preview: Preview | None) -> None:
        self._check_stop = check_stop
        self._report = report
        self._preview = preview
        self._held: tuple[int, int, OnItsWay] | None = None

    def __call__(self, pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self._check_stop()
        # Second-order schedulers (Heun) go twice through a step: 2 N - 1 calls for N steps.
        order = pipeline.scheduler.order
        last = (getattr(pipeline, "num_timesteps", None) or len(pipeline.scheduler.timesteps)) - 1
        if index % order == order - 1 or index == last:
            preview = self._preview(pipeline, tensors["latents"]) if self._preview else None
            before, after = getattr(pipeline, "steps_around", (0, 0))
            self._tell(before + index // order + 1, before + last // order + 1 + after, preview)
        return tensors

    def flush(self) -> None:
        """Tell of the step that is held back, if there is one. Waits for its preview."""
        if self._held is not None:
            index, total, preview = self._held
            self._held = None
            self._report(index, total, preview.take())

    def _tell(self, index: int, total: int, preview: OnItsWay | None) -> None:
        self.flush()
        if preview is None:
            self._report(index, total, None)
        elif preview.is_here:
            self._report(index, total, preview.take())
        else:
            self._held = index, total, preview
