"""The contestant of bench_onnx that runs in Optimum's environment: its pipeline over its own export.

    python optimum_contestant.py FOLDER SIDE

Requests go one at a time, as a pipeline object takes them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.onnxruntime import ORTDiffusionPipeline

sys.path.insert(0, str(Path(__file__).resolve().parent))

from contest import Run, compete, mixed, one_stream


def optimum(folder: str, side: int) -> Run:
    pipeline = ORTDiffusionPipeline.from_pretrained(folder, export=False)
    pipeline.set_progress_bar_config(disable=True)

    def run(workload: str) -> Any:
        pictures = []
        for request in one_stream(side) if workload == "one" else mixed(side):
            generator = torch.Generator().manual_seed(request.pop("seed"))
            pictures.append(np.asarray(pipeline(**request, generator=generator).images[0]))
        return np.stack(pictures)

    run("one")
    return run


if __name__ == "__main__":
    compete(lambda: optimum(sys.argv[1], int(sys.argv[2])))
