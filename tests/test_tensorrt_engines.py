"""Finished engines: which machine may load them, which not, and the command that builds them again."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from export.engine_manifest import FILE_NAME, EngineManifest, Machine
from export.errors import GateError
from export.to_tensorrt import to_tensorrt, verify_engines
from export.to_triton import to_triton
from export.triton_settings import TritonSettings
from router.errors import LoadError
from tests.command_line import as_object, triptych
from tests.graphs import export_of, graph, node, sound
from tests.tensorrt_double import GPU, TensorRT

pytest_plugins = ["tests.tensorrt_machine"]

HERE = Machine(gpu=GPU, compute_capability=(9, 0), tensorrt="10.13.2", cuda="12.8", platform="linux-x86_64")
PLAN = b"plan"
CONTENT: dict[str, Any] = {
    "family": "stable-diffusion",
    "pipeline": "StableDiffusionPipeline",
    "profiles": [{"name": "64x64", "height": 64, "width": 64, "dtype": "float32", "row_buckets": [2]}],
    "timestep": "per-row",
    "machine": HERE.model_dump(),
    "hardware": "exact",
    "version_compatible": False,
    "tf32": False,
    "compared_with": "onnxruntime 1.31.1, on the CPU",
    "export": "sdxl",
    "export_sha256": "0" * 64,
    "source_sha256": "0" * 64,
    "export_compared": True,
    "options": ["--profile", "64x64"],
    "engines": [
        {
            "file": "unet/model.plan",
            "component": "unet",
            "profiles": ["64x64"],
            "rows": 2,
            "graph": "unet/model.onnx",
            "graph_sha256": "0" * 64,
            "inputs": [],
            "outputs": [],
            "size_bytes": len(PLAN),
            "sha256": hashlib.sha256(PLAN).hexdigest(),
            "error": 0.0,
        }
    ],
}


def built(folder: Path, **changes: Any) -> EngineManifest:
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    (folder / "unet/model.plan").write_bytes(PLAN)
    (folder / FILE_NAME).write_text(json.dumps(CONTENT | changes))
    return EngineManifest.read(folder)


def machine(**changes: Any) -> Machine:
    return HERE.model_copy(update=changes)


AMPERE = {"gpu": "NVIDIA A100-SXM4-80GB", "compute_capability": (8, 0)}
SISTER = {"gpu": "NVIDIA H200"}
EXACT: dict[str, Any] = {}
SAME = {"hardware": "same-compute-capability"}
PLUS = {"hardware": "ampere-plus"}
COMPATIBLE = {"version_compatible": True}


@pytest.mark.parametrize(
    ("engines", "here", "runs"),
    [
        (EXACT, {}, True),
        (EXACT, SISTER, False),
        (EXACT, AMPERE, False),
        (EXACT, {"tensorrt": "10.13.3"}, False),
        (EXACT, {"tensorrt": "11.1.0"}, False),
        (EXACT, {"cuda": "12.9"}, True),
        (EXACT, {"cuda": "13.0"}, False),
        (EXACT, {"platform": "win32-AMD64"}, False),
        (SAME, SISTER, True),
        (SAME, AMPERE, False),
        (PLUS, SISTER, True),
        (PLUS, AMPERE, True),
        (PLUS, {"gpu": "Tesla T4", "compute_capability": (7, 5)}, False),
        (COMPATIBLE, {"tensorrt": "10.14.0"}, True),
        (COMPATIBLE, {"tensorrt": "10.9.0"}, False),
        (COMPATIBLE, {"tensorrt": "11.1.0"}, False),
        (COMPATIBLE, SISTER, False),
    ],
    ids=str,
)
def test_engines_run_where_tensorrt_promises_it(
    engines: dict[str, Any], here: dict[str, Any], runs: bool, tmp_path: Path
) -> None:
    found = built(tmp_path, **engines)
    if runs:
        found.check(tmp_path, machine(**here))
        return
    with pytest.raises(LoadError, match="build them again here: python -m export"):
        found.check(tmp_path, machine(**here))


def test_the_refusal_names_both_machines_and_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "my engines"
    with pytest.raises(LoadError) as caught:
        built(folder).check_machine(folder, machine(tensorrt="11.1.0", cuda="13.0", **AMPERE))
    assert str(caught.value) == (
        "The engines in 'my engines' are for TensorRT 10.13.2 with CUDA 12.8 on NVIDIA H100 80GB HBM3"
        " (compute capability 9.0, linux-x86_64), and here is TensorRT 11.1.0 with CUDA 13.0 on"
        " NVIDIA A100-SXM4-80GB (compute capability 8.0, linux-x86_64); build them again here:"
        " python -m export.to_tensorrt sdxl --profile 64x64 --output 'my engines' --force"
    )


def test_a_changed_or_missing_engine_is_refused(tmp_path: Path) -> None:
    found = built(tmp_path)
    (tmp_path / "unet/model.plan").write_bytes(b"plam")
    with pytest.raises(LoadError, match=r"`unet/model.plan` of .* has changed since it was built; copy"):
        found.check(tmp_path, HERE)
    (tmp_path / "unet/model.plan").unlink()
    with pytest.raises(LoadError, match="is missing; copy the whole folder"):
        found.check(tmp_path, HERE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not JSON; build the engines again"),
        ("[]", "must be"),
        (json.dumps(CONTENT | {"schema_version": 2}), "has schema_version 2, this Triptych reads 1; update"),
        (json.dumps(CONTENT | {"engines": []}), "`engines`"),
        (json.dumps(CONTENT | {"hardware": "any"}), "`hardware` is 'any'"),
        (
            json.dumps(CONTENT | {"engines": [CONTENT["engines"][0] | {"file": "../model.plan"}]}),
            "`engines[0].file` is '../model.plan'",
        ),
    ],
    ids=["empty", "list", "newer", "none", "unknown", "outside"],
)
def test_a_damaged_manifest_is_a_sentence(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(LoadError) as caught:
        EngineManifest.read(tmp_path)
    assert words in str(caught.value)


def test_a_folder_without_a_manifest_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"has no readable engines\.json; name a folder that"):
        EngineManifest.read(tmp_path)


# --- comparing them again


@pytest.fixture
def export(tmp_path: Path) -> Path:
    export_of(tmp_path / "tiny", sound()).write(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_the_command_that_builds_again_is_one_that_builds(
    tensorrt: TensorRT, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same settings, in the folder where both lie."""
    monkeypatch.chdir(export.parent)
    asked = ("--profile", "64x64", "--rows", "2", "--workspace-mib", "64", "--optimization-level", "4")
    flags = ("--hardware", "ampere-plus", "--version-compatible", "--tf32")
    assert triptych("export", "tensorrt", "tiny", "-o", "mine", *asked, *flags).exit_code == 0
    first = EngineManifest.read(Path("mine"))
    again = shlex.split(first.rebuild_command(Path("mine")))
    assert again[:3] == ["python", "-m", "export.to_tensorrt"]
    assert triptych("export", "tensorrt", *again[3:]).exit_code == 0
    assert EngineManifest.read(Path("mine")) == first
    assert len(tensorrt.built) == 2


def test_engines_are_compared_again(tensorrt: TensorRT, export: Path) -> None:
    to_tensorrt(export)
    engines = export.with_name("tiny-tensorrt")
    arguments = ("export", "tensorrt", str(export), "-o", str(engines), "--verify")
    assert as_object(triptych(*arguments, "--json")) == {"engines": {"unet/model.plan": 0.0}}
    said = triptych(*arguments)
    assert said.stdout == "unet/model.plan: largest difference from its graph 0.0e+00\n"
    assert len(tensorrt.built) == 1


@pytest.mark.usefixtures("tensorrt")
def test_engines_of_another_machine_are_not_even_loaded(export: Path) -> None:
    to_tensorrt(export)
    engines = export.with_name("tiny-tensorrt")
    content = json.loads((engines / FILE_NAME).read_text())
    content["machine"]["gpu"] = "NVIDIA L4"
    (engines / FILE_NAME).write_text(json.dumps(content))
    (engines / "unet/model.plan").unlink()
    with pytest.raises(LoadError, match=r"are for TensorRT .* on NVIDIA L4"):
        verify_engines(export, engines)


@pytest.mark.usefixtures("tensorrt")
def test_engines_of_another_export_are_refused(export: Path) -> None:
    to_tensorrt(export)
    other = Path(shutil.copytree(export, export.with_name("other")))
    export_of(other, graph(node("Neg", "sample"))).write(other)
    with pytest.raises(LoadError, match=r"was built from another graph than this export's `unet/"):
        verify_engines(other, export.with_name("tiny-tensorrt"))


def test_an_engine_that_no_longer_equals_its_graph_is_named(tensorrt: TensorRT, export: Path) -> None:
    """As after an update of the driver."""
    to_tensorrt(export)
    engines = export.with_name("tiny-tensorrt")
    content = json.loads((engines / FILE_NAME).read_text())
    plan = (engines / "unet/model.plan").read_bytes().replace(b'"distortion": 0.0', b'"distortion": 0.5')
    (engines / "unet/model.plan").write_bytes(plan)
    content["engines"][0] |= {"size_bytes": len(plan), "sha256": hashlib.sha256(plan).hexdigest()}
    (engines / FILE_NAME).write_text(json.dumps(content))
    with pytest.raises(GateError, match=r"`unet/model\.plan` is 0\.\d+ away from onnxruntime"):
        verify_engines(export, engines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"graph_sha256": "1" * 64}, "was built from another graph than this export's `unet/model.onnx`"),
        ({"sha256": "1" * 64}, "`unet/model.plan` of 'engines' has changed since it was built"),
    ],
    ids=["graph", "engine"],
)
def test_no_repository_is_written_with_wrong_engines(
    export: Path, tmp_path: Path, change: dict[str, str], words: str
) -> None:
    content = json.loads((export / "manifest.json").read_text())
    own = {"graph_sha256": content["files"]["unet/model.onnx"]["sha256"]}
    built(tmp_path / "engines", engines=[CONTENT["engines"][0] | own | change])
    settings = TritonSettings(name="tiny", runtime="tensorrt", engines=tmp_path / "engines", unverified=True)
    with pytest.raises(LoadError, match=re.escape(words)):
        to_triton(export, tmp_path / "repository", settings)
    assert not (tmp_path / "repository").exists()
