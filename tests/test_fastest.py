"""Choosing by measuring once: with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models import attention_dispatch
from diffusers.models.attention_dispatch import AttentionBackendName
from torch.nn.attention import SDPBackend

from backends import _fastest
from backends._fastest import FastestAttention, fastest
from router.config import InstanceConfig, MemoryConfig, ModelConfig, RouterConfig
from router.router import BackendRouter
from tests.diffusers_doubles import Lanes, generate, loaded
from tests.miniatures import miniature


class Clock:
    """Says how long each way takes, by what it says when it runs."""

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        self.seconds = {name: iter(taken) for name, taken in seconds.items()}
        self.runs: list[str] = []

    def __call__(self, run: Callable[[], object]) -> float:
        return next(self.seconds[str(run())])

    def way(self, name: str) -> Callable[[], str]:
        def run() -> str:
            self.runs.append(name)
            if not name:
                raise RuntimeError("No available kernel. Aborting execution.")
            return name

        return run

    def race(self, runs: int = 3) -> str:
        return fastest({name: self.way(name) for name in (*self.seconds, "")}, self, runs=runs).winner


def test_the_one_with_the_smallest_median_wins() -> None:
    clock = Clock({"first": [3.0, 3.0, 3.0], "second": [2.0, 9.0, 2.0], "third": [1.0, 5.0, 5.0]})
    assert clock.race() == "second"
    assert clock.runs == [*["first"] * 4, *["second"] * 4, *["third"] * 4, ""]


def test_the_first_one_stays_unless_another_is_clearly_faster() -> None:
    assert Clock({"first": [1.0], "second": [0.99]}).race(1) == "first"
    assert Clock({"first": [1.0], "second": [0.97]}).race(1) == "second"


def test_what_cannot_be_is_told_and_passed_over() -> None:
    clock = Clock({"first": [0.002]})
    race = fastest({"first": clock.way("first"), "other": clock.way("")}, clock, runs=1)
    assert race.seconds == {"first": 0.002, "other": None}
    assert str(race) == "first, measured: first 2.00 ms"
    with pytest.raises(RuntimeError, match="No available kernel"):
        fastest({"first": clock.way("")}, clock)


def test_a_kernel_is_chosen_in_the_first_call_of_the_warm_up() -> None:
    """By its place in torch's order, which is of the whole process: none is ever forbidden."""
    order: Any = torch._C._get_sdp_priority_order
    usual, cudnn = order(), int(SDPBackend.CUDNN_ATTENTION)
    inside: list[list[int]] = []

    def attention(query: torch.Tensor) -> torch.Tensor:
        inside.append(order())
        assert torch.backends.cuda.math_sdp_enabled()
        return query

    def clock(run: Callable[[], object]) -> float:
        run()
        return 1.0 if inside[-1][0] == cudnn else 3.0

    denoiser = FastestAttention(attention, "mine", clock)
    denoiser(query=torch.ones(1))
    assert denoiser.race is None
    denoiser.warming = True
    denoiser(query=torch.ones(1))
    assert denoiser.race is not None
    assert denoiser.race.winner == "cudnn"
    assert denoiser.race.seconds == {"native": 3.0, "cudnn": 1.0, "flash": 3.0, "efficient": 3.0}
    runs = len(inside)
    denoiser(query=torch.ones(1))
    assert [each[0] for each in inside[runs:]] == [cudnn]
    assert (inside[0], order()) == (usual, usual)


async def test_an_instance_measures_at_load_and_never_again(
    miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked: list[float] = []

    def clock(run: Callable[[], object]) -> float:
        run()
        clocked.append(1.0)
        return 1.0

    monkeypatch.setattr(_fastest, "device_clock", lambda device: clock)
    source = miniature("sd15", miniatures)
    backend = await loaded(lanes, source, options={"attention": "fastest"}, row_limit=2)
    count = len(clocked)
    assert count >= _fastest.RUNS
    await generate(backend, num_inference_steps=1)
    assert len(clocked) == count
    notes = (await backend.probe()).notes
    assert any("measured at load" in note for note in notes)
    assert any(note.startswith("attention of unet: native, measured: native 1000.00 ms") for note in notes)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if flash-attn were installed, by the kernel that is here; it tells of its runs."""
    told: list[str] = []
    registry, name = attention_dispatch._AttentionBackendRegistry, AttentionBackendName.FLASH
    plain = registry._backends[AttentionBackendName.NATIVE]

    def kernel(**values: Any) -> Any:
        told.append("flash-attn")
        return plain(**values)

    known = registry._supported_arg_names[AttentionBackendName.NATIVE]
    monkeypatch.setitem(registry._backends, name, kernel)
    monkeypatch.setitem(registry._supported_arg_names, name, known)
    monkeypatch.setattr(attention_dispatch, "_CAN_USE_FLASH_ATTN", True)
    return told


async def test_the_kernels_of_installed_packages_are_compared_too(
    package: list[str], miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock(run: Callable[[], object]) -> float:
        package.clear()
        run()
        return 1.0 if package else 2.0

    monkeypatch.setattr(_fastest, "device_clock", lambda device: clock)
    size = {"height": 64, "width": 64, "num_inference_steps": 1}
    source = miniature("flux", miniatures)
    backend = await loaded(lanes, source, options={"attention": "fastest"}, row_limit=1)
    assert [way for _, way in backend.chosen()] == ["flash-attn"]
    package.clear()
    await generate(backend, **size)
    assert package
    package.clear()
    await generate(await loaded(lanes, source), **size)
    assert not package


async def test_a_kernel_that_is_named_is_for_its_instance_alone(
    package: list[str], miniatures: Path, lanes: Lanes
) -> None:
    source, size = miniature("flux", miniatures), {"height": 64, "width": 64, "num_inference_steps": 1}
    named = await loaded(lanes, source, options={"attention": "flash"})
    await generate(await loaded(lanes, source), **size)
    assert not package
    await generate(named, **size)
    assert package


def test_a_winner_that_is_remembered_is_no_race_and_what_is_no_kernel_is_not() -> None:
    remembering = FastestAttention(lambda **values: None, "mine")
    for unknown in (None, "", "xformers"):
        remembering.remember(unknown)
        assert remembering.race is None
    remembering.remember("cudnn")
    assert str(remembering.race) == "cudnn, as measured before"


async def notes_of_one_process(source: Path, cache: Path, **changes: Any) -> tuple[str, ...]:
    """What an instance says of itself once it was loaded."""
    fields = {"options": {"attention": "fastest"}, "row_limit": 2, "device": "cpu"} | changes
    instance = InstanceConfig(name="mine", backend="diffusers", source=str(source), **fields)
    config = RouterConfig(
        models=(ModelConfig(name="mine", instances=(instance,)),),
        default_model="mine",
        memory=MemoryConfig(cache=cache),
    )
    async with BackendRouter(config) as router:
        await router.load("mine")
        (status,) = await router.probe()
    assert status.capabilities is not None
    return status.capabilities.notes


async def test_the_next_process_goes_by_it_under_the_same_conditions(
    miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fastest, "device_clock", lambda device: lambda run: 1.0)
    source = miniature("sd15", miniatures)
    first = await notes_of_one_process(source, tmp_path)
    assert any(note.startswith("attention of unet: native, measured: ") for note in first)
    assert "attention of unet: native, as measured before" in await notes_of_one_process(source, tmp_path)
    for change in (
        {"row_limit": 1},
        {"dtype": "bfloat16"},
        {"options": {"attention": "fastest", "fuse_qkv": True}},
    ):
        anew = await notes_of_one_process(source, tmp_path, **change)
        assert any(note.startswith("attention of unet: native, measured: ") for note in anew)


async def test_loras_are_applied_beside_it(miniatures: Path, lanes: Lanes, tmp_path: Path) -> None:
    fields = {"options": {"attention": "fastest"}, "row_limit": 2, "lora_folders": (str(tmp_path),)}
    backend = await loaded(lanes, miniature("sd15", miniatures), **fields)
    assert (await generate(backend, num_inference_steps=1)).pictures[0].error is None
