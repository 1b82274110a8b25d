"""bench_gpu on a CPU with miniatures: every phase runs, and what it reports is what it measured."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from backends import _speed
from backends._compiled import Compiled
from scripts import gpu_changes, gpu_phases, gpu_ways
from scripts.gpu_card import Card
from scripts.gpu_models import NAMES, SPECIFICATIONS, Asked, build, denoiser, parameters
from scripts.gpu_phases import Bench, psnr
from scripts.gpu_plot import svg
from scripts.gpu_ways import Captured, requests

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench_gpu"
CPU = torch.device("cpu")
PUBLISHED = {"sd15": 859_520_964, "sdxl": 2_567_463_684, "flux": 11_901_408_320}
"""Weights of the denoisers as they were published."""


def bench(name: str, **changes: Any) -> Bench:
    asked = Asked.of(name, tiny=True)
    pipeline = build(name, CPU, torch.float32, tiny=True)
    settings = {"repeats": 1, "row_limit": 4, "ends_at": time.monotonic() + 600, "counts": (1, 2)} | changes
    made = Bench(Card("cpu"), pipeline, asked, torch.float32, **settings)
    made.learn()
    return made


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one takes minutes on a CPU."""

    def compiled(module: Any, part: Any, *, graphs: bool = False) -> Compiled:
        return Compiled(module, part, graphs=graphs, compiler=lambda function, **settings: function)

    monkeypatch.setattr(_speed, "Compiled", compiled)
    monkeypatch.setattr(gpu_changes, "Compiled", compiled)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **settings: None)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_denoisers_are_as_large_as_published(name: str) -> None:
    import diffusers

    for kind, config in SPECIFICATIONS[name]["modules"].values():
        if "UNet" in kind or "Transformer" in kind:
            with torch.device("meta"):
                module = getattr(diffusers, kind)(**config)
            assert sum(each.numel() for each in module.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_built_and_its_operations_counted(name: str) -> None:
    made = bench(name)
    assert made.facts["finite"]
    assert made.facts["rows_per_picture"] == (1 if name == "flux" else 2)
    assert made.facts["flop_per_picture"] > made.asked.steps * made.facts["flop_per_step"] > 0
    assert made.facts["matrix_flop_per_s"] > 0


def test_every_phase_measures_what_it_says(without_compiler: None) -> None:
    made = bench("sd15")
    for phase in ("eager", "compiled", "lane", "lane_compiled", "choices"):
        getattr(made, phase)()
    pictures = [(row["way"], row["requests"], row["workload"]) for row in made.rows if "requests" in row]
    assert ("Diffusers, compiled blocks, 2 at once", 2, "equal") in pictures
    assert [each for each in pictures if each[0] == "lane"] == [
        ("lane", 1, "equal"),
        ("lane", 2, "equal"),
        ("lane", 2, "mixed"),
    ]
    for row in made.rows:
        if "requests" in row:
            assert row["images_per_s"] == pytest.approx(row["requests"] / row["seconds"][0])
    choices = {row["way"]: row for row in made.rows if "rows" in row}
    assert {"denoiser: as it is", "denoiser: fuse_qkv", "denoiser: channels_last"} <= choices.keys()
    assert choices["denoiser: as it is"]["psnr_db"] is None
    assert choices["denoiser: fuse_qkv"]["psnr_db"] is None or choices["denoiser: fuse_qkv"]["psnr_db"] > 80
    assert made.left_out == []


def test_the_promise_for_a_picture_stands_beside_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an allocator that says so, in the place of CUDA's: every run takes a kilobyte."""

    class Counting(Card):
        meter = property(lambda self: self)

        def peak_bytes(self) -> int:
            return 10_000_000

        def now(self) -> int:
            return 0

        def most(self) -> int:
            return 1_000

        def forget(self) -> None: ...

    monkeypatch.setattr(gpu_ways, "cuda_free_bytes", lambda device: 10**9)
    made = bench("sd15")
    made.lane()
    weights = sum(
        parameters(each) for each in made.pipeline.components.values() if isinstance(each, torch.nn.Module)
    )
    plain = {(row["requests"], row["workload"]): row for row in made.rows}
    assert plain[1, "equal"]["formula_bytes"] == plain[1, "equal"]["promised_bytes"] > 4 * weights
    assert plain[2, "equal"]["promised_bytes"] > plain[1, "equal"]["promised_bytes"]
    assert plain[1, "equal"]["peak_share"] is None
    made.rows, made.card = [], Counting("cpu")
    made.lane()
    for row in made.rows:
        assert row["promised_bytes"] < row["formula_bytes"]
        assert row["peak_share"] == 10_000_000 / row["promised_bytes"]
    alone = next(row for row in made.rows if row["requests"] == 1)
    assert alone["promised_bytes"] == pytest.approx(4 * weights + 1_000, rel=0.02)
    assert "decode" not in vars(made.pipeline.vae)


def test_what_cannot_be_is_named_and_the_rest_is_measured(
    without_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that a card has not must not cost the report."""

    def failing(way: str, *args: Any) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 TiB")

    def none() -> Any:
        raise RuntimeError("No available kernel. Aborting execution.")

    made = bench("sd15")
    monkeypatch.setattr(made, "_plain", failing)
    monkeypatch.setattr(
        gpu_phases,
        "changes",
        lambda captured, *told: iter([("a", nullcontext(none)), ("b", nullcontext(captured))]),
    )
    assert len(list(made.run(["eager", "choices", "lane"]))) == 3
    assert made.failed == [
        "phase eager: RuntimeError: CUDA out of memory.",
        "choice: a: RuntimeError: No available kernel. Aborting execution.",
    ]
    ways = [row["way"] for row in made.rows]
    assert ways == ["denoiser: as it is", "denoiser: b", "lane", "lane", "lane"]


def test_what_the_time_does_not_suffice_for_is_named() -> None:
    made = bench("sd15", ends_at=0.0)
    made.eager()
    assert made.rows == []
    assert made.left_out[0] == "Diffusers, eager, one at a time, 1 equal"


def test_long_runs_are_repeated_less(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench("sd15", repeats=4)
    for taken, runs in ((1.0, 4), (9.0, 3), (15.0, 2), (30.0, 1)):
        monkeypatch.setattr(made.card, "seconds", lambda run, repeats, each=taken: [each] * repeats)
        assert made._seconds(lambda: None) == [taken] * runs


def test_mixed_requests_take_as_many_steps_and_rows_together() -> None:
    asked = Asked.of("sdxl", tiny=False)
    for count in (4, 8, 16):
        mixed = requests(asked, count, mixed=True)
        assert sum(each.num_inference_steps or 0 for each in mixed) == count * asked.steps
        assert len({each.num_inference_steps for each in mixed}) > 2
        assert all((each.guidance_scale or 0) > 1 for each in mixed)


def test_a_captured_call_is_the_pipelines_own() -> None:
    pipeline = build("sd15", CPU, torch.float32, tiny=True)
    captured = Captured(pipeline, requests(Asked.of("sd15", tiny=True), 2))
    assert captured.rows == 4
    assert captured()[0].shape == (4, 4, 8, 8)
    assert not denoiser(pipeline)[1]._forward_pre_hooks


def test_decibels_are_those_of_the_range() -> None:
    plain = torch.tensor([0.0, 10.0])
    assert psnr(plain + 0.1, plain) == pytest.approx(40.0, abs=0.01)
    assert psnr(plain, plain) is None


def test_the_plot_has_a_bar_for_every_way() -> None:
    rows = [
        {"way": "lane <1>", "requests": 8, "workload": "equal", "images_per_s": 2.0},
        {"way": "eager", "requests": 8, "workload": "mixed", "images_per_s": 1.0},
        {"way": "denoiser: fp8", "rows": 16},
    ]
    drawn = svg("sdxl", "a card", rows)
    assert drawn.count("<rect") == 3
    assert "lane &lt;1&gt;: 8 equal" in drawn


@pytest.fixture(scope="module")
def script() -> Any:
    """The script as a module: it has no suffix that Python knows."""
    loader = importlib.machinery.SourceFileLoader("bench_gpu", str(SCRIPT))
    specification = importlib.util.spec_from_loader("bench_gpu", loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    return module


def test_the_script_writes_a_report_and_keeps_what_it_had(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sd15-(tiny).json"
    row = {"way": "eager", "requests": 1, "workload": "equal", "images_per_s": 2.0, "seconds": [0.5]}
    file.write_text(json.dumps({"rows": [row]}))
    command = ["--model", "sd15", "--device", "cpu", "--tiny", "--dtype", "float32", "--repeats", "1"]
    written: list[int] = []
    write = script.write
    monkeypatch.setattr(script, "write", lambda *given: written.append(1) or write(*given))
    phases = ["--phase", "lane", "--phase", "eager"]
    script.main([*command, "--limit", "0", *phases, "--output", str(tmp_path)])
    report = json.loads(file.read_text())
    assert len(written) == 2
    assert report["rows"] == [row]
    assert report["left_out"][0] == "lane, 1 equal"
    assert "left out, as the time was over" in capsys.readouterr().out
    assert file.with_suffix(".svg").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, on which it would run")
def test_without_a_gpu_it_says_so(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--model", "sd15"])
    assert "there is no CUDA device" in capsys.readouterr().err
