"""Tolerances: how far an export may be from its source in float32. The one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from router.parity import MIN_PSNR_DB


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
    # Sums in another order differ by a few units in the last place: 1.6e-5 at most was measured, in T5.
    # A picture of 60 dB has one colour in fifteen off by one level, which is rounding to 8 bits.
    "float32": Tolerance(1e-4, MIN_PSNR_DB["float32"]),
    # 10 bits behind the point: 1.6e-3 at most was measured, T5 aside, which loses more in PyTorch as well.
    # 45 dB is an error of 1.4 levels of 255, which nobody sees; 54 dB was the least measured.
    "float16": Tolerance(5e-3, MIN_PSNR_DB["float16"]),
    # 3 bits fewer, so eight times the error: 2.3e-2 at most was measured, T5 aside.
    # 32 dB is 6.4 levels, seen only side by side; 39 dB was the least measured.
    "bfloat16": Tolerance(4e-2, MIN_PSNR_DB["bfloat16"]),
}
"""Measured on miniatures of the four families with random weights, 64x64: all components, four pictures each.

float32 and float16 by ONNX Runtime, bfloat16 by OpenVINO. The shipped model, which is trained, came nearer:
float16 6.4e-4 and 61 dB, bfloat16 1.6e-2 and 44 dB.
"""


def difference(made: NDArray[Any], reference: NDArray[Any]) -> float:
    """Largest, as a share of the reference's largest value where that is beyond 1."""
    if made.shape != reference.shape or not np.isfinite(made).all():
        return float("inf")
    scale = max(1.0, float(np.abs(reference).max()))
    return float(np.abs(made.astype(np.float64) - reference).max()) / scale
