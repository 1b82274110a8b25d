"""This machine as TensorRT sees it. Nothing here was run on a GPU."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys

from export.engine_manifest import Machine
from router.errors import BackendUnavailableError

_DRY_RUN = "look at the plan with `--dry-run`"


def this_machine(device: int = 0) -> Machine:
    """Raises `BackendUnavailableError` where TensorRT, PyTorch or a GPU is missing."""
    check_installed()
    import torch

    if torch.version.cuda is None or not torch.cuda.is_available():
        raise BackendUnavailableError(
            f"TensorRT builds on the GPU that it builds for, and PyTorch {torch.__version__} sees none here;"
            f" go to a machine with one and a PyTorch for CUDA, or {_DRY_RUN}."
        )
    if not 0 <= device < torch.cuda.device_count():
        raise BackendUnavailableError(
            f"`device` is {device}, and there are {torch.cuda.device_count()} GPUs, counted from 0."
        )
    return Machine(
        gpu=torch.cuda.get_device_name(device),
        compute_capability=torch.cuda.get_device_capability(device),
        tensorrt=importlib.import_module("tensorrt").__version__,
        cuda=torch.version.cuda,
        platform=f"{sys.platform}-{platform.machine()}",
    )


def check_installed() -> None:
    """Raise `BackendUnavailableError` with the cure where a library is missing."""
    for name in ("tensorrt", "torch"):
        if importlib.util.find_spec(name) is None:
            raise BackendUnavailableError(
                f"Engines are built by TensorRT, and {name} is missing;"
                f" pip install 'triptych[onnx-gpu,tensorrt]', or {_DRY_RUN}."
            )
