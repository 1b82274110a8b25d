"""The dry run: everything about engines that needs neither TensorRT nor a GPU."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export import engine_checks
from export.engine_settings import EngineSettings
from export.to_tensorrt import dry_run
from router.manifest import Manifest, ParityRecord, PictureParity
from tests.command_line import as_object, pictures_in, triptych
from tests.exports import Exports
from tests.graphs import FILE, SAMPLE, export_of, graph, node, sound, tensor
from tests.miniatures import FAMILIES, Family

DENOISERS = {"sd15": "unet", "sdxl": "unet", "sd3": "transformer", "flux": "transformer"}


def planned(export: Path, *arguments: str) -> dict[str, Any]:
    result = triptych("export", "tensorrt", str(export), "--dry-run", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return as_object(result)


@pytest.fixture
def tiny(folder: Path) -> Path:
    """An export of one graph in the working folder."""
    return written(folder / "tiny", sound())


def written(folder: Path, model: onnx.ModelProto, dtype: str = "float32", **changes: Any) -> Path:
    manifest = export_of(folder, model, **changes)
    profiles = tuple(each.model_copy(update={"dtype": dtype}) for each in manifest.profiles)
    manifest.model_copy(update={"profiles": profiles}).write(folder)
    return folder


def float_graph(kind: int, *nodes: onnx.NodeProto, **fields: Any) -> onnx.ModelProto:
    ends = [tensor(name, SAMPLE, kind) for name in ("sample", "out_sample")]
    return graph(*nodes, inputs=ends[:1], outputs=ends[1:], **fields)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_planned(family: Family, exports: Exports) -> None:
    """As many engines as graphs, of their shapes; what is said of bytes is true of the files."""
    folder = exports(family)
    manifest, plan = Manifest.read(folder), planned(folder)
    graphs = {each.file: each for graphs in manifest.components.values() for each in graphs}
    engines = {engine["graph"]: engine for engine in plan["engines"]}
    assert engines.keys() == graphs.keys()
    for file, engine in engines.items():
        assert engine["file"] == file.replace(".onnx", ".plan")
        shapes = [tuple(each["shape"]) for each in engine["inputs"]]
        assert shapes == [each.shape for each in graphs[file].inputs]
        beside = [*(folder / file).parent.glob("*.onnx_data")]
        assert engine["weights_bytes"] == sum(path.stat().st_size for path in (folder / file, *beside))
    assert plan["weights_bytes"] == sum(engine["weights_bytes"] for engine in engines.values())
    assert plan["not_run"]
    buckets = {engine["rows"] for engine in engines.values() if engine["component"] == DENOISERS[family]}
    assert buckets == set(manifest.profiles[0].row_buckets)


def test_the_bytes_of_a_run_are_those_of_its_tensors(tiny: Path) -> None:
    (engine,) = planned(tiny)["engines"]
    assert engine["io_bytes"] == 2 * (2 * 4) * 4


def test_the_command_line_for_trtexec_says_the_same(tiny: Path) -> None:
    arguments = ("--workspace-mib", "512", "--hardware", "ampere-plus", "--version-compatible")
    (engine,) = planned(tiny, *arguments, "-o", "my engines", "--timing-cache", "t")["engines"]
    assert shlex.split(engine["trtexec"]) == [
        "trtexec",
        f"--onnx={tiny}/unet/model.onnx",
        "--saveEngine=my engines/unet/model.plan",
        "--stronglyTyped",
        "--builderOptimizationLevel=3",
        "--memPoolSize=workspace:512",
        "--noTF32",
        "--versionCompatible",
        "--hardwareCompatibilityLevel=ampere+",
        "--timingCacheFile=t",
        "--skipInference",
    ]


def test_open_axes_are_fixed_for_the_rows_asked_for(folder: Path) -> None:
    given, made = (tensor(name, ("batch_size", 4)) for name in ("sample", "out_sample"))
    export = written(folder / "open", graph(node("Neg", "sample"), inputs=[given], outputs=[made]))
    engines = planned(export, "--rows", "1,3")["engines"]
    assert [(each["file"], each["rows"]) for each in engines] == [
        ("unet/model.plan", 1),
        ("unet/model-r3.plan", 3),
    ]
    for which in ("min", "opt", "max"):
        assert f"--{which}Shapes=sample:3x4" in shlex.split(engines[1]["trtexec"])


def test_only_the_chosen_rows_are_planned(exports: Exports) -> None:
    engines = planned(exports("sd15"), "--rows", "8", "--profile", "64x64")["engines"]
    assert [each["file"] for each in engines if each["component"] == "unet"] == ["unet/64x64-r8.plan"]
    assert len(engines) == 4


def test_the_plan_is_told_to_people_too(tiny: Path) -> None:
    result = triptych("export", "tensorrt", "tiny", "--dry-run")
    assert result.exit_code == 0
    assert "sample float32 [2, 4]" in result.stdout
    assert "trtexec --onnx=tiny/unet/model.onnx --saveEngine=tiny-tensorrt/unet/model.plan" in result.stdout
    assert "note: The export was never compared with its source" in result.stderr
    assert "note: not run: building and comparing the engines" in result.stderr
    assert pictures_in(tiny.parent) == ["tiny"]


# --- refusals


def refused(exit_code: int, words: str, *arguments: str) -> None:
    result = triptych("export", "tensorrt", "tiny", "--dry-run", *arguments)
    assert result.exit_code == exit_code
    assert words in result.stderr
    assert result.stdout == ""


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--profile", "poster"), "`--profile` is 'poster'; this export has 64x64: use one of these"),
        (("--rows", "3"), "`--rows` holds 3, and this export has 2 at 64x64; use these, or export the model"),
        (("--rows", "0"), "`--rows` holds 0; use numbers from 1 to 32"),
        (("--rows", "two"), "`--rows` is 'two'; write numbers"),
        (("--optimization-level", "9"), "`--optimization-level` is 9; use 0 to 5"),
        (("--hardware", "any"), "`--hardware` is 'any'; use one of exact, same-compute-capability"),
        (("--workspace-mib", "0"), "`--workspace-mib` is 0; use 1 or more"),
        (("-o", "tiny"), "`--output` 'tiny' is there already"),
        (
            ("-o", "tiny", "--force"),
            "'tiny' is no export, so `--force` does not replace it: it has no engines.json",
        ),
        (("--verify",), "`--verify` compares engines that are there: name them with `--output`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    refused(2, words, *arguments)


def test_a_folder_that_is_no_export_is_refused(folder: Path) -> None:
    (folder / "tiny").mkdir()
    refused(1, "'tiny' has no readable manifest.json; name the folder of an export")


def test_a_changed_file_is_refused(tiny: Path) -> None:
    (tiny / FILE).write_bytes((tiny / FILE).read_bytes()[:-1] + b"x")
    refused(1, "`unet/model.onnx` has changed since the export; copy the export again")


def test_too_small_a_disk_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    refused(
        1, f"needs {(tiny / FILE).stat().st_size} bytes, and the disk of `--output` 'tiny-tensorrt' has 10"
    )


def test_an_operator_that_tensorrt_lacks_is_named_though_the_export_never_promised_it(folder: Path) -> None:
    model = graph(
        node("Det", "sample"), inputs=[tensor("sample", (2, 4, 4))], outputs=[tensor("out_sample", (2,))]
    )
    written(folder / "tiny", model, runtimes=("onnxruntime",))
    refused(1, "`unet/model.onnx` has operators that tensorrt lacks (Det)")


# --- precision


def resize(given: str, made: str) -> onnx.NodeProto:
    return node("Resize", f"{given} none scales", made, mode="nearest")


SCALES = {"none": np.zeros(0, np.float32), "scales": np.ones(2, np.float32)}


def test_bfloat16_resize_is_a_trap(folder: Path) -> None:
    model = float_graph(TensorProto.BFLOAT16, resize("sample", "out_sample"), weights=SCALES, opset=22)
    written(folder / "tiny", model, "bfloat16", opset=22)
    refused(1, "has 1 Resize in bfloat16, first 'out_sample_of_Resize', which TensorRT lacks; export")


def test_bfloat16_einsum_is_a_trap_even_where_the_checker_is_blind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_checks, "check_folder", lambda *_: [])
    model = float_graph(TensorProto.BFLOAT16, node("Einsum", "sample", equation="ab->ab"), opset=22)
    written(folder / "tiny", model, "bfloat16", opset=22)
    refused(1, "has 1 Einsum in bfloat16, first 'out_sample_of_Einsum', which TensorRT lacks")


def test_a_resize_in_float32_is_none(folder: Path) -> None:
    model = float_graph(
        TensorProto.BFLOAT16,
        node("Cast", "sample", "wide", to=TensorProto.FLOAT),
        resize("wide", "resized"),
        node("Cast", "resized", to=TensorProto.BFLOAT16),
        weights=SCALES,
        opset=22,
    )
    values = [tensor(name) for name in ("wide", "resized")]
    model.graph.value_info.extend(values)
    assert len(planned(written(folder / "tiny", model, "bfloat16", opset=22))["engines"]) == 1


def scaling(by: float) -> onnx.ModelProto:
    weights = {"by": np.array(by, np.float16)}
    inside = (node("Mul", "sample by", "large"), node("Div", "large by"))
    model = float_graph(TensorProto.FLOAT16, *inside, weights=weights)
    model.graph.value_info.append(tensor("large", SAMPLE, TensorProto.FLOAT16))
    return model


def test_float16_is_scanned_where_no_gate_has_told_its_range(folder: Path) -> None:
    found = planned(written(folder / "fits", scaling(1000), "float16"))["largest_values"]
    assert 1000 < found["unet"] < 5000
    written(folder / "tiny", scaling(60_000), "float16")
    refused(1, "`unet/model.onnx` leaves the range of float16 at node 'large_of_Mul'")


def test_what_the_gate_saw_is_not_scanned_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(*_: Any) -> Callable[..., Any]:
        raise AssertionError("scanned")

    monkeypatch.setattr(engine_checks, "RangeScan", scan)
    parity = ParityRecord(
        components={"unet": 1e-3},
        pictures=(PictureParity(name="one", profile="64x64", psnr_db=50, largest_difference=2),),
        max_component_error=5e-3,
        min_psnr_db=45,
        runtime="onnxruntime 1.31.1",
        largest_values={"unet": 1234.5},
    )
    export = written(folder / "tiny", scaling(60_000), "float16", parity=parity)
    plan = dry_run(export, settings=EngineSettings())
    assert (plan.checked.largest_values, plan.checked.notes) == ({"unet": 1234.5}, ())


def test_all_findings_are_told(folder: Path) -> None:
    det = node("Det", "sample")
    model = graph(det, inputs=[tensor("sample", (2, 4, 4))], outputs=[tensor("out_sample", (2,))])
    written(folder / "tiny", model)
    error = as_object(triptych("export", "tensorrt", "tiny", "--dry-run", "--json"))["error"]
    lacking = [said.partition(" lacks")[0].split()[-1] for said in error["findings"]]
    assert lacking == ["openvino", "tensorrt"]
