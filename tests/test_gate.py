"""The gate as a whole, on a miniature's export: what passes, and faults planted in what passed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from export import gate
from export.errors import GateError
from router.manifest import FileRecord, Manifest, ParityRecord
from tests.exports import Exports
from tests.miniatures import miniature


class Watched:
    """A `Progress` that keeps what it was told."""

    def __init__(self) -> None:
        self.total = 0
        self.steps: list[str] = []

    def begin(self, stage: str, total: int) -> None:
        self.total = total

    def step(self, name: str) -> None:
        self.steps.append(name)


@pytest.fixture
def export(exports: Exports, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exports("sd15"), tmp_path / "export"))


@pytest.fixture
def source(miniatures: Path) -> Path:
    return miniature("sd15", miniatures)


def check(folder: Path, source: Path, progress: Watched | None = None) -> ParityRecord:
    return gate.check(folder, source, Manifest.read(folder), progress=progress)


def refused(folder: Path, source: Path) -> tuple[str, ...]:
    with pytest.raises(GateError) as caught:
        check(folder, source)
    assert str(caught.value).startswith(caught.value.findings[0])
    assert caught.value.exit_code == 1
    return caught.value.findings


def change_weight(folder: Path, file: str, factor: float) -> None:
    """The last matrix of a graph; the manifest's hash follows, as if it had been exported so."""
    model = onnx.load(folder / file)
    weight = [each for each in model.graph.initializer if len(each.dims) > 1 and each.data_type == 1][-1]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    onnx.save(model, folder / file)
    rehash(folder, file)


def rehash(folder: Path, name: str) -> None:
    manifest = Manifest.read(folder)
    files = manifest.files | {name: FileRecord.of(folder / name)}
    manifest.model_copy(update={"files": files}).write(folder)


def test_a_true_export_passes_and_tells_what_was_measured(export: Path, source: Path) -> None:
    progress = Watched()
    record = check(export, source, progress)
    assert set(record.components) == {"text_encoder", "unet", "vae_decoder", "vae_encoder"}
    assert 0 < max(record.components.values()) < 1e-5
    assert [picture.name.split(",")[0] for picture in record.pictures] == [
        "text-to-image", "text-to-image", "image-to-image", "inpainting",
    ]  # fmt: skip
    assert len({picture.name for picture in record.pictures}) == 4
    assert all(picture.psnr_db is None or picture.psnr_db > 70 for picture in record.pictures)
    assert record.runtime.startswith("onnxruntime 1.")
    assert (record.max_component_error, record.min_psnr_db) == (1e-4, 60)
    assert record.largest_values == {}
    assert len(progress.steps) == progress.total
    with Image.open(export / "parity.png") as sheet:
        assert sheet.width > 3 * 64
        assert sheet.height > 4 * 64


@pytest.mark.parametrize("file", ["text_encoder/model.onnx", "unet/64x64-r8.onnx", "vae_encoder/model.onnx"])
def test_a_wrong_weight_is_told_with_its_graph_and_by_how_much(export: Path, source: Path, file: str) -> None:
    change_weight(export, file, factor=1.1)
    (said,) = refused(export, source)
    assert said.startswith(f"`{file}` is ")
    assert "away from the source in '" in said
    assert not (export / "parity.png").exists()


def test_a_graph_that_is_not_sound_is_never_run(export: Path, source: Path) -> None:
    progress = Watched()
    file = export / "vae_decoder/model.onnx"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(GateError, match=r"`vae_decoder/model.onnx` has \d+ bytes instead of \d+"):
        check(export, source, progress)
    assert progress.steps == ["files and graphs"]


def test_all_findings_are_told_and_the_first_is_the_sentence(export: Path, source: Path) -> None:
    (export / "scheduler/scheduler_config.json").unlink()
    raw = json.loads((export / "manifest.json").read_text())
    (export / "manifest.json").write_text(json.dumps(raw | {"opset": 21}))
    with pytest.raises(GateError, match=r"copy the whole export\. \(5 more findings\.\)$") as caught:
        check(export, source)
    assert (
        len([each for each in caught.value.findings if "has opset 20, but the manifest says 21" in each]) == 5
    )


def test_a_picture_that_cannot_be_made_is_told(export: Path, source: Path) -> None:
    """Every graph is right; what the pipeline reads beside them is not."""
    name = "tokenizer/tokenizer_config.json"
    (export / name).write_text("{")
    rehash(export, name)
    (said,) = refused(export, source)
    assert said.startswith("A whole picture could not be made: export")


def test_pictures_that_differ_although_the_components_do_not_are_told(export: Path, source: Path) -> None:
    """The scheduler is no component, and makes the picture all the same."""
    name = "scheduler/scheduler_config.json"
    config = json.loads((export / name).read_text())
    (export / name).write_text(json.dumps(config | {"beta_end": 0.02}))
    rehash(export, name)
    findings = refused(export, source)
    assert len(findings) == 4
    assert findings[0].startswith("The picture 'text-to-image, 4 steps, guidance 7.5' at 64x64 is at ")
    assert "dB beside the source's and must be at 60, though every component passed" in findings[0]


def test_an_export_of_another_family_is_told(export: Path, miniatures: Path) -> None:
    with pytest.raises(GateError) as caught:
        check(export, miniature("sd3", miniatures))
    assert (
        caught.value.findings[0]
        == "`unet` is no component of the stable-diffusion-3 source; name the one it was made from."
    )
