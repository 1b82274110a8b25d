"""`triptych export onnx`: bad input is one sentence, and what fails leaves nothing under the name."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from export import to_onnx
from export.errors import GateError
from router.manifest import Manifest
from tests.command_line import as_object, pictures_in, triptych
from tests.exports import Exports

OUTPUT = ("-o", "out")


@pytest.fixture
def source(folder: Path, model_folder: Path) -> Path:
    """`model` in the working folder; pytest's own `model_folder` is beside it already."""
    assert model_folder.parent == folder
    return model_folder


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, exports: Exports) -> None:
    """Instead of tracing again: the export of the miniature that is there."""

    def write(source: Path, folder: Path, *_: Any) -> Manifest:
        shutil.copytree(exports("sd15"), folder, dirs_exist_ok=True)
        return Manifest.read(folder)

    monkeypatch.setattr(to_onnx, "write_folder", write)


def gate_that(raises: BaseException) -> Callable[..., Any]:
    def check(*_: Any, **__: Any) -> Any:
        raise raises

    return check


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--profile", "poster"), "`--profile` is 'poster'; for stable-diffusion use square"),
        (
            ("--profile", "100x64"),
            "this model takes multiples of 8: try 96 or 104",
        ),
        (("--rows", "2,many"), "`--rows` is '2,many'; write numbers with commas between them"),
        (("--rows", "0"), "`--rows` holds 0"),
        (("--text-length", "32"), "`--text-length` is T5's, and stable-diffusion has no T5"),
        (("--opset", "9"), "`--opset` is 9; use 18 to 23"),
        (("--dtype", "int8"), "`--dtype` is 'int8'; use one of float32"),
        (("--dtype", "bfloat16"), "bfloat16 needs opset 22 or later, not 20: set `--opset` to 23"),
        (("--runtime", "coreml"), "`--runtime` is 'coreml'; use one of onnxruntime"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_one_sentence(source: Path, arguments: tuple[str, ...], words: str) -> None:
    refused(source, ("export", "onnx", "model", *OUTPUT, *arguments), 2, words)


def refused(source: Path, arguments: tuple[str, ...], exit_code: int, words: str) -> None:
    """One sentence, nothing left behind, and the same as an object."""
    before = pictures_in(source.parent)
    result = triptych(*arguments)
    assert result.exit_code == exit_code
    assert words in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""
    assert pictures_in(source.parent) == before
    error = as_object(triptych(*arguments, "--json"))["error"]
    assert words in error["message"]


def test_a_source_that_is_not_there_is_refused(source: Path) -> None:
    refused(source, ("export", "onnx", "./nowhere", *OUTPUT), 2, "There is no model folder 'nowhere'")


def test_a_source_of_an_unknown_family_is_refused(source: Path) -> None:
    index = json.loads((source / "model_index.json").read_text())
    (source / "model_index.json").write_text(json.dumps(index | {"_class_name": "SanaPipeline"}))
    refused(source, ("export", "onnx", "model", *OUTPUT), 2, "is a SanaPipeline, which has no export")


def test_a_pickled_source_is_refused(source: Path) -> None:
    weights = source / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refused(source, ("export", "onnx", "model", *OUTPUT), 1, "has pickled weights in 'unet'")


def test_a_half_copied_source_is_refused(source: Path) -> None:
    weights = source / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(source, ("export", "onnx", "model", *OUTPUT), 1, "that is cut short: 100 bytes are missing")


def test_a_source_that_diffusers_cannot_read_is_a_sentence(source: Path) -> None:
    config = source / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 33}))
    words = "cannot read 'text_encoder' of source 'model'"
    refused(source, ("export", "onnx", "model", *OUTPUT), 1, words)


def test_an_output_that_is_there_is_refused(source: Path, exports: Exports) -> None:
    shutil.copytree(exports("sd15"), source.parent / "out")
    words = "`--output` 'out' is there already; name another folder, or replace it with `--force`"
    refused(source, ("export", "onnx", "model", *OUTPUT), 2, words)


def test_force_does_not_replace_what_is_no_export(source: Path) -> None:
    refused(source, ("export", "onnx", "model", "-o", "model", "--force"), 2, "'model' is no export")


def test_too_small_a_disk_is_refused_before_anything_is_written(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000))
    refused(source, ("export", "onnx", "model", *OUTPUT), 1, "has 1,000 left; make room")


def test_a_missing_library_is_a_sentence_with_its_cure(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "onnxscript" else find(name, *args)
    )
    words = "Exports need onnxscript; pip install 'triptych[export]'."
    refused(source, ("export", "onnx", "model", *OUTPUT), 1, words)


@pytest.mark.usefixtures("written")
def test_what_the_gate_refuses_does_not_exist(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = ("`unet/model.onnx` differs by 0.3", "`vae_decoder/model.onnx` gives NaN")
    failure = GateError("The export is not as its source: 2 findings.", findings)
    monkeypatch.setattr(to_onnx.gate, "check", gate_that(failure))
    result = triptych("export", "onnx", "model", *OUTPUT)
    assert result.exit_code == 1
    for finding in findings:
        assert finding in result.stderr
    assert result.stderr.rstrip().endswith("error: The export is not as its source: 2 findings.")
    assert pictures_in(source.parent) == ["model"]
    error = as_object(triptych("export", "onnx", "model", *OUTPUT, "--json"))["error"]
    assert error["findings"] == list(findings)


@pytest.mark.usefixtures("written")
def test_ctrl_c_leaves_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_onnx.gate, "check", gate_that(KeyboardInterrupt()))
    assert triptych("export", "onnx", "model", *OUTPUT).exit_code == 130
    assert pictures_in(source.parent) == ["model"]


def test_a_folder_that_is_no_export_is_not_verified(source: Path) -> None:
    words = "'model' has no readable manifest.json; name the folder of an export"
    refused(source, ("export", "verify", "model"), 1, words)


def test_a_sheet_needs_a_source_to_draw(source: Path) -> None:
    words = "`--sheet` draws the export beside its source; name that with `--against`"
    refused(source, ("export", "verify", "model", "--sheet", "sheet.png"), 2, words)
