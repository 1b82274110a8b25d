"""Tolerances: how far an export may be from its source in float32. The one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Tolerance:
    """For one dtype of an export."""

    component_error: float
    """Largest difference of an output; where the output's largest value is beyond 1, a share of it."""
    psnr_db: float
    """Least peak signal-to-noise ratio of a whole picture in 8 bits."""

    def allowed(self, rounding: float) -> float:
        """The error that a component may have where the source itself loses `rounding` in this dtype.

        Twice that: two correct ways of rounding differ by up to the error of each.
        """
        return max(self.component_error, 2 * rounding) if math.isfinite(rounding) else self.component_error


TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "float32": Tolerance(1e-4, 60.0),
    "float16": Tolerance(5e-3, 40.0),
    "bfloat16": Tolerance(4e-2, 30.0),
}
