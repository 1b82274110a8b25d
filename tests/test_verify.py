"""The gate again on a finished export: what is checked without a source, and beside one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from export.errors import GateError, UnsupportedExportError
from export.verify import WITHOUT_SOURCE, verify
from router.errors import LoadError
from router.manifest import Manifest
from tests.exports import Exports
from tests.miniatures import miniature
from tests.test_manifest import PARITY


@pytest.fixture
def export(exports: Exports, tmp_path: Path) -> Path:
    """As it stands after its gate."""
    folder = Path(shutil.copytree(exports("sd15"), tmp_path / "export"))
    Manifest.read(folder).model_copy(update={"parity": PARITY}).write(folder)
    return folder


def edit(folder: Path, **values: object) -> None:
    raw = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(raw | values))


def refused(folder: Path, source: Path | None = None) -> GateError:
    with pytest.raises(GateError) as caught:
        verify(folder, str(source) if source else None)
    return caught.value


def test_without_a_source_it_says_what_was_not_run(export: Path) -> None:
    verified = verify(export)
    assert verified.parity is None
    assert verified.not_run == WITHOUT_SOURCE
    assert "whole pictures beside the source's" in verified.not_run


def test_beside_its_source_everything_is_run_and_nothing_is_written(
    export: Path, miniatures: Path, tmp_path: Path
) -> None:
    before = {file: file.stat().st_mtime_ns for file in export.rglob("*")}
    verified = verify(export, str(miniature("sd15", miniatures)), sheet=tmp_path / "sheet.png")
    assert verified.not_run == ()
    assert verified.parity is not None
    assert verified.parity.components["unet"] < 1e-5
    assert (tmp_path / "sheet.png").is_file()
    assert {file: file.stat().st_mtime_ns for file in export.rglob("*")} == before


def test_another_source_is_told_by_its_weights(export: Path, miniatures: Path) -> None:
    said = str(refused(export, miniature("sd3", miniatures)))
    assert said.startswith("The weights of 'sd3' (SHA-256 ")
    assert said.endswith("name that source, or export the model again.")


def test_a_source_that_is_not_there_is_told(export: Path) -> None:
    with pytest.raises(UnsupportedExportError, match="There is no model folder 'gone'"):
        verify(export, "./gone")


def test_a_truncated_file_is_told(export: Path) -> None:
    data = export / "unet/model.onnx_data"
    data.write_bytes(data.read_bytes()[:-1])
    assert str(refused(export)).startswith("`unet/model.onnx_data` has ")


def test_a_changed_file_is_told(export: Path) -> None:
    file = export / "scheduler/scheduler_config.json"
    file.write_text(file.read_text().replace("0.012", "0.013"))
    said = "`scheduler/scheduler_config.json` has changed since the export; copy the export again."
    assert refused(export).findings == (said,)


def test_a_manifest_that_was_edited_is_told(export: Path) -> None:
    edit(export, opset=23)
    assert "has opset 20, but the manifest says 23" in str(refused(export))
    edit(export, opset=20, runtimes=["onnxruntime"], profiles=[])
    with pytest.raises(LoadError, match="`profiles` is a list: "):
        verify(export)


def test_an_export_that_was_never_compared_is_no_finished_one(export: Path) -> None:
    edit(export, parity=None)
    assert str(refused(export)) == "The export was never compared with its source; name that with `against`."


def test_a_folder_that_is_no_export_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"has no readable manifest\.json; name the folder of an export"):
        verify(tmp_path)
