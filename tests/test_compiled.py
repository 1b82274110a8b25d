"""Compiled denoisers: which shapes are compiled and when, what runs them, and that pictures stay the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from backends import _speed
from backends._compiled import Compiled
from router.errors import ConfigError
from router.types import Generated
from tests.diffusers_doubles import Lanes, generate, loaded, make
from tests.miniatures import Family, miniature


class Compiler:
    """Takes the place of `torch.compile`: remembers the shapes that it would compile, once each."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.runs = 0
        self.settings: dict[str, Any] = {}

    def __call__(self, function: Any, **settings: Any) -> Any:
        self.settings = settings

        def compiled(*args: Any, **values: Any) -> Any:
            first = next(each for each in (*args, *values.values()) if isinstance(each, torch.Tensor))
            self.runs += 1
            if tuple(first.shape) not in self.shapes:
                self.shapes.append(tuple(first.shape))
            return function(*args, **values)

        return compiled


class Doubling(torch.nn.Module):
    """A denoiser of two repeated blocks."""

    _repeated_blocks = ("Linear",)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, sample: torch.Tensor, **others: Any) -> tuple[torch.Tensor]:
        return (self.second(self.first(sample)),)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()

    def compiled(module: Any, part: Any, *, graphs: bool) -> Compiled:
        return Compiled(module, part, graphs=graphs, compiler=made)

    monkeypatch.setattr(_speed, "Compiled", compiled)
    return made


def pixels(made: Generated) -> torch.Tensor:
    image = made.pictures[0].image
    assert image is not None
    return torch.frombuffer(bytearray(image.pixels), dtype=torch.uint8).float()


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
async def test_no_request_pays_for_a_shape(
    family: Family, miniatures: Path, lanes: Lanes, compiler: Compiler
) -> None:
    options = {"compile": True, "row_buckets": (2, 4), "compile_sizes": [(64, 64)]}
    backend = await loaded(lanes, miniature(family, miniatures), options=options)
    compiled = list(compiler.shapes)
    assert sorted(shape[0] for shape in compiled) == [2, 4]
    for settings in ({"guidance_scale": 1.0}, {"num_images_per_prompt": 2}, {"scheduler": None}):
        await generate(backend, height=64, width=64, num_inference_steps=2, **settings)
    assert compiler.shapes == compiled
    runs = compiler.runs
    await generate(backend, height=64, width=96, num_inference_steps=2)
    assert (compiler.shapes, compiler.runs) == (compiled, runs)


async def test_its_own_size_is_warmed_up_where_none_is_named(
    miniatures: Path, lanes: Lanes, compiler: Compiler
) -> None:
    backend = await loaded(lanes, miniature("sd15", miniatures), options={"compile": True})
    assert [shape[0] for shape in compiler.shapes] == [1, 2, 4, 8, 16]
    assert {shape[2:] for shape in compiler.shapes} == {(8, 8)}
    capabilities = await backend.probe()
    assert "compiled (whole) for its own size and rows 1, 2, 4, 8, 16" in capabilities.notes


@pytest.mark.parametrize("part", ["whole", "blocks"])
async def test_the_picture_stays_the_same(
    part: str, miniatures: Path, lanes: Lanes, compiler: Compiler
) -> None:
    source = miniature("sd15", miniatures)
    plain = pixels(await generate(await loaded(lanes, source)))
    runs = compiler.runs
    options = {"compile": True, "compile_part": part, "row_buckets": (2,)}
    compiled = pixels(await generate(await loaded(lanes, source, options=options)))
    assert compiler.runs > runs
    assert (plain - compiled).abs().max() <= 1


@pytest.mark.parametrize("part", ["whole", "blocks"])
async def test_a_real_compiler_is_asked_at_load_and_never_again(
    part: str, miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of `torch.compile` but the code that it makes: what it would compile anew for fails."""

    def compiled(module: Any, part: Any, *, graphs: bool) -> Compiled:
        return Compiled(module, part, compiler=partial(torch.compile, backend="eager"))

    monkeypatch.setattr(_speed, "Compiled", compiled)
    options = {"compile": True, "compile_part": part, "row_buckets": (2, 4)}
    backend = await loaded(lanes, miniature("sd15", miniatures), options=options)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    with torch.compiler.set_stance("fail_on_recompile"):
        await generate(backend, num_inference_steps=3)
        await generate(backend, num_inference_steps=2, num_images_per_prompt=2, scheduler="EulerDiscrete")
    torch._dynamo.reset()


def test_blocks_are_compiled_for_known_shapes_only() -> None:
    compiler, module = Compiler(), Doubling()
    compiled = Compiled(module, "blocks", compiler=compiler)
    compiled(sample=torch.ones(1, 4))
    assert compiler.runs == 0
    compiled.warming = True
    compiled(sample=torch.ones(2, 4))
    compiled.warming = False
    runs = compiler.runs
    compiled(sample=torch.ones(2, 4))
    assert compiler.runs == runs + 2
    compiled(sample=torch.ones(3, 4))
    module(torch.ones(2, 4))
    assert (compiler.runs, compiler.shapes) == (runs + 2, [(2, 4)])


def test_another_layout_dtype_or_adapter_is_no_known_shape() -> None:
    compiler, module = Compiler(), Doubling()
    compiled = Compiled(module, compiler=compiler)
    compiled.warming = True
    compiled(sample=torch.ones(4, 4), return_dict=False)
    compiled.warming = False
    compiled(sample=torch.ones(4, 4).T, return_dict=False)
    known = compiler.runs
    compiled(sample=torch.ones(4, 4), return_dict=True)
    module._hf_peft_config_loaded = True  # type: ignore[assignment]
    compiled(sample=torch.ones(4, 4), return_dict=False)
    assert compiler.runs == known == 3


def test_what_a_graph_returns_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    buffer = torch.zeros(2, 4)

    def compiler(module: Any, **settings: Any) -> Any:
        assert settings == {"dynamic": False, "mode": "reduce-overhead"}
        return lambda sample: (buffer.copy_(sample),)

    compiled = Compiled(Doubling(), graphs=True, compiler=compiler)
    compiled.warming = True
    first = compiled(sample=torch.ones(2, 4))[0]
    assert len(begun) == 4  # three until it is recorded and replayed, and the run itself
    compiled(sample=torch.full((2, 4), 2.0))
    assert first.unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"options": {"cuda_graphs": True}}, "`cuda_graphs` needs `compile`"),
        ({"options": {"compile": True, "compile_part": "blocks", "cuda_graphs": True}}, "'whole'"),
        ({"options": {"compile": True, "cuda_graphs": True}}, "`cuda_graphs` is CUDA's"),
        ({"options": {"compile_sizes": [(64, 64)]}}, "nothing is compiled"),
        ({"options": {"tf32": True}}, "`tf32` is CUDA's"),
        ({"options": {"quantize": "fp8"}}, "runs on CUDA devices only"),
        ({"options": {"compile_part": "half"}}, "option `compile_part` is 'half'"),
    ],
)
async def test_what_does_not_go_together_is_refused(
    fields: dict[str, Any], words: str, miniatures: Path, lanes: Lanes
) -> None:
    with pytest.raises(ConfigError, match=words):
        await make(lanes, miniature("sd15", miniatures), **fields).probe()
