"""The manifest: written and read back, and one sentence for everything that is not as it should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.errors import LoadError
from router.manifest import (
    FileRecord,
    GraphRecord,
    Manifest,
    ParityRecord,
    PictureParity,
    ProfileRecord,
    TensorRecord,
)
from router.types import ShapeProfile

PARITY = ParityRecord(
    components={"unet": 1e-6},
    pictures=(
        PictureParity(name="text-to-image", profile="64x64", psnr_db=72.5, largest_difference=1),
        PictureParity(name="inpainting", profile="64x64", psnr_db=None, largest_difference=0),
    ),
    max_component_error=1e-4,
    min_psnr_db=60,
    runtime="onnxruntime 1.31.1",
)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A folder with one graph and its manifest."""
    folder = tmp_path / "tiny-export"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet/model.onnx").write_bytes(b"graph")
    graph = GraphRecord(
        file="unet/model.onnx",
        profile="64x64",
        rows=2,
        inputs=(TensorRecord(name="sample", dtype="float32", shape=(2, 4, 8, 8)),),
        outputs=(TensorRecord(name="out_sample", dtype="float32", shape=(2, 4, "height", "width")),),
    )
    Manifest(
        family="stable-diffusion",
        pipeline="StableDiffusionPipeline",
        profiles=(ProfileRecord(name="64x64", height=64, width=32, dtype="float32", row_buckets=(2,)),),
        components={"unet": (graph,)},
        timestep="per-row",
        opset=20,
        tools={"torch": "2.13.0"},
        source_sha256="0" * 64,
        files={"unet/model.onnx": FileRecord.of(folder / "unet/model.onnx")},
        runtimes=("onnxruntime", "tensorrt"),
        parity=PARITY,
    ).write(folder)
    return folder


def change(folder: Path, **values: Any) -> None:
    """Write values into the manifest as an editor would."""
    raw = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(raw | values))


def refused(folder: Path) -> str:
    with pytest.raises(LoadError) as caught:
        Manifest.read(folder)
    said = str(caught.value)
    assert str(folder.parent) not in said
    return said


def test_what_was_written_is_read_back(export: Path) -> None:
    manifest = Manifest.read(export)
    manifest.write(export)
    assert Manifest.read(export) == manifest
    assert manifest.components["unet"][0].outputs[0].shape == (2, 4, "height", "width")
    assert manifest.profiles[0].shape_profile() == ShapeProfile("64x64", 64, 32, "float32", (2,))
    assert manifest.check_files(export) == []


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone").startswith("'gone' has no readable manifest.json; name the folder")


@pytest.mark.parametrize("content", [b"{", b"\xff", b""])
def test_a_manifest_that_is_not_json_is_refused(export: Path, content: bytes) -> None:
    (export / "manifest.json").write_bytes(content)
    assert refused(export) == "manifest.json of 'tiny-export' is not JSON; export the model again."


def test_a_newer_schema_is_refused_whatever_else_it_holds(export: Path) -> None:
    change(export, schema_version=2, novelty=True)
    assert "has schema_version 2, this Triptych reads 1; update Triptych" in refused(export)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"parityy": {}}, "there is no key `parityy`; did you mean parity?"),
        ({"opset": 0}, "`opset` is 0: input should be greater than or equal to 1."),
        ({"timestep": "vector"}, "`timestep` is 'vector': input should be 'per-row' or 'scalar'."),
        ({"source_sha256": "abc"}, "`source_sha256` is 'abc': "),
        ({"schema_version": "one"}, "`schema_version` is 'one': "),
        ({"profiles": []}, "`profiles` is a list: "),
        ({"files": {}}, ": no hash of unet/model.onnx among the files."),
        ({"parity": {"components": {}, "picture": 0.1}}, "no key `parity.picture`; did you mean pictures?"),
        ({"parity": PARITY.model_dump(mode="json") | {"pictures": []}}, "`parity.pictures` is a list: "),
        ({"runtimes": ["onnx"]}, "`runtimes[0]` is 'onnx': input should be 'onnxruntime', 'openvino' or"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_sentence(export: Path, values: dict[str, Any], sentence: str) -> None:
    change(export, **values)
    said = refused(export)
    assert said.startswith("manifest.json of 'tiny-export': ")
    assert sentence in said


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [("rows", 3, "no profile '64x64' of 3 rows"), ("profile", "8x8", "no profile '8x8' of 2 rows")],
)
def test_a_graph_of_an_unknown_profile_is_refused(export: Path, key: str, value: Any, sentence: str) -> None:
    graphs = json.loads((export / "manifest.json").read_text())["components"]
    graphs["unet"][0][key] = value
    change(export, components=graphs)
    assert f"{sentence} for unet/model.onnx" in refused(export)


def test_a_text_encoder_has_one_row_whatever_the_buckets(export: Path) -> None:
    manifest = Manifest.read(export)
    graph = manifest.components["unet"][0].model_copy(update={"rows": 1})
    manifest.model_copy(update={"components": {"text_encoder": (graph,)}}).write(export)
    assert Manifest.read(export).components["text_encoder"][0].rows == 1


def test_a_graph_of_any_number_of_rows_needs_no_bucket(export: Path) -> None:
    manifest = Manifest.read(export)
    tensor = TensorRecord(name="sample", dtype="float32", shape=("batch_size", 4, 8, 8))
    graph = manifest.components["unet"][0].model_copy(update={"rows": 4, "inputs": (tensor,)})
    manifest.model_copy(update={"components": {"unet": (graph,)}}).write(export)
    assert Manifest.read(export).components["unet"][0].dynamic_batch


def test_an_export_may_wait_for_its_comparison(export: Path) -> None:
    manifest = Manifest.read(export)
    manifest.model_copy(update={"parity": None}).write(export)
    assert Manifest.read(export).parity is None


def test_a_manifest_that_is_no_table_is_refused(export: Path) -> None:
    (export / "manifest.json").write_text("[]")
    assert refused(export) == "manifest.json of 'tiny-export': it must be a table."


def test_a_missing_file_is_named(export: Path) -> None:
    manifest = Manifest.read(export)
    (export / "unet/model.onnx").unlink()
    assert manifest.check_files(export) == ["`unet/model.onnx` is missing; copy the whole export."]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"gr", "`unet/model.onnx` has 2 bytes instead of 5; copy"),
        (b"grapf", "`unet/model.onnx` has changed"),
    ],
)
def test_a_changed_file_is_named(export: Path, content: bytes, sentence: str) -> None:
    manifest = Manifest.read(export)
    (export / "unet/model.onnx").write_bytes(content)
    (said,) = manifest.check_files(export)
    assert said.startswith(sentence)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/hostname", "unet/../../outside.onnx", "link.onnx"])
def test_a_path_out_of_the_folder_is_named_and_not_read(export: Path, name: str) -> None:
    outside = export.parent / "outside.onnx"
    outside.write_bytes(b"graph")
    (export / "link.onnx").symlink_to(outside)
    manifest = Manifest.read(export)
    manifest = manifest.model_copy(update={"files": {name: FileRecord.of(outside)}})
    assert manifest.check_files(export) == [
        f"`{name}` lies outside the export's folder; export the model again."
    ]
