"""Runs played from a trace: the same bits, or else the module as it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from backends import _speed, _traced
from backends._building import BUILDING
from backends._speed import SpeedOptions
from backends._traced import Traced
from router.errors import ConfigError
from tests.diffusers_doubles import Lanes, generate, loaded, make
from tests.miniatures import Family, miniature


class Layers(torch.nn.Module):
    """Two layers, and a choice by the number of rows that a trace does not see."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.scale = scale
        self.runs = 0

    def forward(self, sample: torch.Tensor, **others: Any) -> dict[str, torch.Tensor]:
        self.runs += 1
        made = self.second(self.first(sample))
        return {"sample": made * self.scale if sample.shape[0] < 8 else made}

    def extra_repr(self) -> str:
        return f"{self.scale}"


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_traced, "_TRACES", {})


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[Traced]:
    """Every module of a backend is traced in its first run. Those that were made."""
    made: list[Traced] = []

    def traced(module: torch.nn.Module, method: str = "") -> Traced:
        made.append(Traced(module, method, after_runs=0))
        return made[-1]

    monkeypatch.setattr("backends.diffusers.Traced", traced)
    return made


def sample(rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))


def runs_of_a_call(traced: Traced, module: Layers, rows: int = 2) -> int:
    """How often the module itself ran for one call, whose outcome is right."""
    before = module.runs
    made = traced(sample=sample(rows))["sample"]
    runs = module.runs - before
    assert torch.equal(made, module(sample(rows))["sample"])
    return runs


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_pictures_stay_the_same_bit_for_bit(
    family: Family, dtype: str, miniatures: Path, lanes: Lanes, at_once: list[Traced]
) -> None:
    source = miniature(family, miniatures)
    plain = await loaded(lanes, source, dtype=dtype, options={"torchscript": False})
    traced = await loaded(lanes, source, dtype=dtype)
    for fields in ({}, {"seed": 2}, {"width": 96, "guidance_scale": 1.0}, {"reproducible": True}):
        for seed in (1, 2):
            ways = [await generate(backend, **{"seed": seed} | fields) for backend in (plain, traced)]
            assert ways[0].pictures == ways[1].pictures
    for each in at_once:
        assert each._equal, "nothing was traced"
        assert all(each._equal.values())


def test_a_module_is_traced_once_it_has_made_enough_runs() -> None:
    module = Layers()
    traced = Traced(module, after_runs=3)
    runs = [runs_of_a_call(traced, module) for _ in range(7)]
    assert runs[:3] == [1, 1, 1]
    assert runs[4:] == [0, 0, 0]


def test_a_shape_whose_trace_differs_runs_as_it_is() -> None:
    module = Layers(scale=3.0)
    traced = Traced(module, after_runs=0)
    assert [runs_of_a_call(traced, module, rows=2) for _ in range(3)][1:] == [0, 0]
    assert [runs_of_a_call(traced, module, rows=8) for _ in range(3)] == [1, 1, 1]
    assert runs_of_a_call(traced, module, rows=2) == 0


def test_long_runs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_traced, "LONGEST_S", 0.0)
    module = Layers()
    traced = Traced(module, after_runs=1)
    assert [runs_of_a_call(traced, module) for _ in range(4)] == [1, 1, 1, 1]


def test_a_model_that_is_loaded_again_takes_its_trace_with_weights_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    trace = torch.jit.trace

    def counted(*args: Any, **more: Any) -> Any:
        made.append(args)
        return trace(*args, **more)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(torch.jit, "trace", counted)
    for _ in range(3):
        module = Layers()
        traced = Traced(module, after_runs=0)
        assert [runs_of_a_call(traced, module) for _ in range(3)][1:] == [0, 0]
    assert len(made) == 1
    other = Layers(scale=2.0)
    runs_of_a_call(Traced(other, after_runs=0), other)
    assert len(made) == 2


def test_what_cannot_be_traced_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*args: Any, **more: Any) -> Any:
        raise AttributeError("module 'torch.jit' has no attribute 'trace'")

    monkeypatch.setattr(torch.jit, "trace", gone)
    module = Layers()
    traced = Traced(module, after_runs=0)
    assert [runs_of_a_call(traced, module) for _ in range(3)] == [1, 1, 1]


def test_a_value_that_cannot_be_told_is_not_traced() -> None:
    module = Layers()
    traced = Traced(module, after_runs=0)
    before = module.runs
    for _ in range(3):
        traced(sample=sample(), other=object())
    assert module.runs == before + 3


def test_loras_are_not_in_a_trace() -> None:
    module = Layers()
    traced = Traced(module, after_runs=0)
    assert [runs_of_a_call(traced, module) for _ in range(3)][1:] == [0, 0]
    module._hf_peft_config_loaded = True  # type: ignore[assignment]
    assert runs_of_a_call(traced, module) == 1


def test_nothing_waits_for_a_model_that_is_being_loaded() -> None:
    module = Layers()
    traced = Traced(module, after_runs=0)
    holds, ends = threading.Event(), threading.Event()

    def load() -> None:
        with BUILDING:
            holds.set()
            ends.wait(10)

    loading = threading.Thread(target=load)
    loading.start()
    holds.wait(10)
    assert [runs_of_a_call(traced, module) for _ in range(2)] == [1, 1]
    ends.set()
    loading.join()
    assert [runs_of_a_call(traced, module) for _ in range(3)][-1] == 0


def test_where_it_has_no_place_it_is_refused(lanes: Lanes) -> None:
    with pytest.raises(ConfigError, match="drop one of the two"):
        _speed.checked(SpeedOptions(torchscript=True, compile=True), "mine")
    with pytest.raises(ConfigError, match="drop one of the two"):
        make(lanes, "model", options={"torchscript": True, "attention": "fastest"})
    with pytest.raises(ConfigError, match="drop one of the two"):
        make(lanes, "model", options={"torchscript": True, "offload": "model"})
    with pytest.raises(ConfigError, match="is for a CPU"):
        _speed.check_device(SpeedOptions(torchscript=True), "mine", "cuda:0", torch.float16)


@pytest.mark.parametrize(
    ("options", "device", "is_traced"),
    [
        ({}, "cpu", True),
        ({}, "cpu:1", True),
        ({}, "cuda:0", False),
        ({"compile": True}, "cpu", False),
        ({"torchscript": False}, "cpu", False),
    ],
)
def test_it_is_on_for_a_cpu_alone(options: dict[str, Any], device: str, is_traced: bool) -> None:
    assert _speed.is_traced(SpeedOptions(**options), device) == is_traced
