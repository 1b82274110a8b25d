"""Measures how well the shipped model follows its prompts: `scripts/measure_default_model --help`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scripts.shapes_check import judge
from scripts.shapes_draw import Pixels
from scripts.shapes_prompts import Kind, Scene

CONFIDENCE = 1.959964
"""Standard deviations on either side that hold 95 %."""


@dataclass(frozen=True, slots=True)
class Score:
    """`hits` of `total`, and the Wilson interval that holds the true share with 95 %."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        return self.hits / self.total

    @property
    def interval(self) -> tuple[float, float]:
        z = CONFIDENCE
        scale = 1 + z**2 / self.total
        middle = (self.share + z**2 / (2 * self.total)) / scale
        spread = math.sqrt(self.share * (1 - self.share) / self.total + (z / (2 * self.total)) ** 2)
        return max(0.0, middle - z * spread / scale), min(1.0, middle + z * spread / scale)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:4.0%} ({low:.0%} to {high:.0%})"


Scores = dict[tuple[Kind, str], Score]


def score(asked: Sequence[Scene], pictures: Iterable[Pixels]) -> Scores:
    """Judges every picture; one score for each kind of scene and measure."""
    verdicts: dict[tuple[Kind, str], list[bool]] = {}
    for scene, pixels in zip(asked, pictures, strict=True):
        for measure, right in judge(scene, pixels).items():
            verdicts.setdefault((scene.kind, measure), []).append(right)
    return {key: Score(sum(verdicts[key]), len(verdicts[key])) for key in verdicts}
