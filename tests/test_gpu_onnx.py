"""ONNX Runtime on a CUDA device: the pictures of the CPU, with and without replayed graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from backends._ort_session import finds_cuda
from router.types import Generated
from tests.exports import Exports
from tests.miniatures import FAMILIES, Family
from tests.onnx_doubles import Lanes, generate, loaded
from tests.plain_pipelines import pixels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none here"),
    pytest.mark.skipif(not finds_cuda(), reason=f"onnxruntime {onnxruntime.__version__} here has no CUDA"),
]

EXACT = {"CUDAExecutionProvider": {"use_tf32": "0"}}


def picture(made: Generated) -> Any:
    return pixels(made.pictures[0].image).astype(int)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["bound", "replayed"])
async def test_an_export_makes_the_picture_of_the_cpu(
    family: Family, cuda_graphs: bool, exports: Exports, lanes: Lanes
) -> None:
    folder = exports(family)
    expected = picture(await generate(await loaded(lanes, folder)))
    options = {"provider_options": EXACT, "cuda_graphs": cuda_graphs}
    backend = await loaded(lanes, folder, device="cuda:0", options=options)
    for _ in range(3):  # recorded in the first, replayed from then on
        assert np.abs(picture(await generate(backend)) - expected).max() <= 2


async def test_requests_share_its_runs(exports: Exports, lanes: Lanes) -> None:
    backend = await loaded(lanes, exports("sd15"), device="cuda:0", options={"provider_options": EXACT})
    alone = [picture(await generate(backend, seed=seed)) for seed in (1, 2)]
    together = [generate(backend, seed=seed) for seed in (1, 2)]
    for each, expected in zip(together, alone, strict=True):
        assert np.abs(picture(await each) - expected).max() <= 2
