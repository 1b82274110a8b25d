"""The fixture `tensorrt`: a machine with a GPU and TensorRT, both doubles. Used by asking for it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from tests.tensorrt_double import GPU, STREAM, TensorRT

_IMPORTERS = ("tensorrt_log", "tensorrt_builder", "engine_session", "engine_parity", "engine_folder")
"""Modules of ours that hold on to the module `tensorrt` once they are imported."""


@pytest.fixture(params=["10.13.2", "11.1.0"])
def tensorrt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorRT]:
    module = TensorRT(request.param)
    _forget()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda device: GPU,
        "get_device_capability": lambda device: (9, 0),
        "device": lambda device: contextlib.nullcontext(),
        "current_stream": lambda device: SimpleNamespace(cuda_stream=STREAM, synchronize=lambda: None),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    sessions = importlib.import_module("export.engine_session")
    monkeypatch.setattr(sessions, "cuda", lambda index: torch.device("cpu"))
    yield module
    _forget()


def _forget() -> None:
    for name in _IMPORTERS:
        sys.modules.pop(f"export.{name}", None)
