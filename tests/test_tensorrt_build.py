"""Building engines, on a double of TensorRT: what it is asked for, and what stays when it fails."""

from __future__ import annotations

import errno
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import TensorProto

from export.engine_manifest import FILE_NAME, EngineManifest
from export.engine_settings import EngineSettings
from export.errors import ExportError, GateError, UnsupportedExportError
from export.to_tensorrt import to_tensorrt
from router.errors import BackendUnavailableError
from router.manifest import FileRecord
from tests.command_line import triptych
from tests.exports import Exports
from tests.graphs import SAMPLE, export_of, graph, node, sound, tensor
from tests.tensorrt_double import GPU, TensorRT

pytest_plugins = ["tests.tensorrt_machine"]


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An export of one graph."""
    export_of(tmp_path / "tiny", sound()).write(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(scope="session")
def sd15(exports: Exports) -> Path:
    """Made, where it is not there yet, before any test's GPU: PyTorch would look for it."""
    return exports("sd15")


def opened(folder: Path) -> Path:
    """An export of one graph, whose batch axis is open."""
    axes = ("batch_size", 4)
    model = graph(
        node("Neg", "sample"), inputs=[tensor("sample", axes)], outputs=[tensor("out_sample", axes)]
    )
    export_of(folder / "open", model).write(folder / "open")
    return folder / "open"


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_export_becomes_engines(tensorrt: TensorRT, sd15: Path, tmp_path: Path) -> None:
    output = tmp_path / "engines"
    made = to_tensorrt(sd15, output)
    assert made == EngineManifest.read(output)
    assert [record.file for record in made.engines] == [
        "text_encoder/model.plan",
        "unet/model.plan",
        "unet/64x64-r8.plan",
        "vae_decoder/model.plan",
        "vae_encoder/model.plan",
    ]
    for record in made.engines:
        assert FileRecord.of(output / record.file).sha256 == record.sha256
        assert record.error == 0
    assert (made.machine.gpu, made.machine.tensorrt) == (GPU, tensorrt.__version__)
    assert made.export_sha256 == FileRecord.of(sd15 / "manifest.json").sha256
    assert made.engines[1].graph_sha256 == FileRecord.of(sd15 / "unet/model.onnx").sha256
    assert "on the CPU" in made.compared_with
    assert not made.export_compared
    assert (tmp_path / "engines.timings").read_bytes() == b"+++++"
    assert left(tmp_path) == ["engines", "engines.timings"]


def test_the_network_is_strongly_typed_and_no_more_is_asked_for(tensorrt: TensorRT, export: Path) -> None:
    to_tensorrt(export)
    ((network, config),) = tensorrt.built
    assert network.flags == 1 << tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert network.parser_flags == ["NATIVE_INSTANCENORM"]
    assert config.builder_optimization_level == 3
    assert config.hardware_compatibility_level is None
    asked = {name: config.calls[name] for name in ("set", "cleared", "profiles", "pools")}
    assert asked == {"set": [], "cleared": ["TF32"], "profiles": [], "pools": {}}
    assert tensorrt.host_code_allowed == [False]


def test_a_tensorrt_that_no_longer_knows_the_flag_needs_none(tensorrt: TensorRT, export: Path) -> None:
    tensorrt.NetworkDefinitionCreationFlag = type("NetworkDefinitionCreationFlag", (), {})
    to_tensorrt(export)
    assert tensorrt.built[0][0].flags == 0


def test_settings_reach_the_builder(tensorrt: TensorRT, export: Path) -> None:
    settings = EngineSettings(
        workspace_mib=512, optimization_level=5, hardware="ampere-plus", version_compatible=True, tf32=True
    )
    made = to_tensorrt(export, settings=settings)
    ((_, config),) = tensorrt.built
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level == tensorrt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.calls["pools"] == {"WORKSPACE": 512 * 2**20}
    assert (config.calls["set"], config.calls["cleared"]) == (["VERSION_COMPATIBLE"], [])
    assert tensorrt.host_code_allowed == [True]
    assert made.hardware == "ampere-plus"


def test_a_hardware_level_that_this_tensorrt_lacks_is_a_sentence(tensorrt: TensorRT, export: Path) -> None:
    settings = EngineSettings(hardware="same-compute-capability")
    if hasattr(tensorrt.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY"):
        assert to_tensorrt(export, settings=settings).hardware == "same-compute-capability"
        return
    with pytest.raises(UnsupportedExportError, match=r"is not known to TensorRT 10\.13\.2; install"):
        to_tensorrt(export, settings=settings)


def test_an_open_axis_is_fixed_by_a_profile_for_each_number_of_rows(
    tensorrt: TensorRT, tmp_path: Path
) -> None:
    made = to_tensorrt(opened(tmp_path), settings=EngineSettings(rows=(2, 4)))
    assert [record.file for record in made.engines] == ["unet/model.plan", "unet/model-r4.plan"]
    assert [config.calls["profiles"] for _, config in tensorrt.built] == [
        [{"sample": [(rows, 4)] * 3}] for rows in (2, 4)
    ]
    assert [record.outputs[0].shape for record in made.engines] == [(2, 4), (4, 4)]


def test_timings_of_another_gpu_are_told_and_begun_anew(tensorrt: TensorRT, export: Path) -> None:
    timings = export.with_name("mine.timings")
    timings.write_bytes(b"another GPU's")
    result = triptych("export", "tensorrt", str(export), "--timing-cache", str(timings))
    assert result.exit_code == 0
    assert "note: The timing cache is of another GPU or TensorRT; a new one is begun." in result.stderr
    assert timings.read_bytes() == b"+"


# --- what fails leaves nothing under the name


def refused(export: Path, kind: type[Exception], words: str, **settings: Any) -> None:
    before = left(export.parent)
    with pytest.raises(kind, match=words):
        to_tensorrt(export, settings=EngineSettings(**settings))
    assert set(left(export.parent)) - set(before) <= {f"{export.name}-tensorrt.timings"}


def test_an_engine_that_differs_from_its_graph_does_not_exist(tensorrt: TensorRT, export: Path) -> None:
    tensorrt.distortion = 0.01
    words = r"`unet/model.plan` is 0\.\d+ away from onnxruntime .* in 'out_sample', and may be 0.0001; build"
    refused(export, GateError, words)


def test_an_engine_of_other_dtypes_is_not_run(tensorrt: TensorRT, export: Path) -> None:
    tensorrt.wrong_dtypes = {"out_sample": "HALF"}
    words = r"has 'out_sample' as DataType.HALF \[2, 4\], and its graph as DataType.FLOAT \[2, 4\]; build it"
    refused(export, ExportError, words)


def test_what_the_parser_lacks_is_said_in_its_words(tensorrt: TensorRT, tmp_path: Path) -> None:
    export_of(tmp_path / "tiny", graph(node("Softsign", "sample"))).write(tmp_path / "tiny")
    version = tensorrt.__version__
    words = f"TensorRT {version} cannot read `unet/model.onnx`: no such layer \\(node 'out_sample_of_Soft"
    refused(tmp_path / "tiny", ExportError, words)


def test_what_the_builder_cannot_is_said_in_its_words(tensorrt: TensorRT, tmp_path: Path) -> None:
    export_of(tmp_path / "unbuildable", sound()).write(tmp_path / "unbuildable")
    words = "could not build `unet/model.plan`: Could not find any implementation."
    refused(tmp_path / "unbuildable", ExportError, words)


@pytest.mark.usefixtures("tensorrt")
def test_a_full_disk_is_a_sentence(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.suffix == ".plan":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    refused(export, ExportError, "The disk of `output` 'tiny-tensorrt' is full; make room")


def test_ctrl_c_stops_the_builder_and_leaves_nothing(tensorrt: TensorRT, export: Path) -> None:
    tensorrt.during_build = lambda: signal.raise_signal(signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    assert triptych("export", "tensorrt", str(export)).exit_code == 130
    assert left(export.parent) == ["tiny"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("tensorrt")
def test_engines_that_are_there_are_kept_unless_forced(export: Path) -> None:
    first = to_tensorrt(export)
    with pytest.raises(UnsupportedExportError, match="'tiny-tensorrt' is there already; name another folder"):
        to_tensorrt(export)
    assert to_tensorrt(export, force=True) == first
    with pytest.raises(UnsupportedExportError, match=f"'tiny' is no export, .* it has no {FILE_NAME}"):
        to_tensorrt(export, export, force=True)


# --- the machine


def test_without_tensorrt_the_sentence_has_the_cure(export: Path) -> None:
    result = triptych("export", "tensorrt", str(export))
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: Engines are built by TensorRT, and tensorrt is missing; pip install 'triptych[onnx-gpu,"
    )


@pytest.mark.usefixtures("tensorrt")
def test_without_a_gpu_the_sentence_has_the_cure(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused_machine(export, "sees none here; go to a machine with one")


@pytest.mark.usefixtures("tensorrt")
def test_a_gpu_that_is_not_there_is_named(export: Path) -> None:
    refused_machine(export, "`device` is 3, and there are 1 GPUs", device=3)


def refused_machine(export: Path, words: str, **options: Any) -> None:
    with pytest.raises(BackendUnavailableError, match=words):
        to_tensorrt(export, **options)
    assert left(export.parent) == ["tiny"]


@pytest.mark.usefixtures("tensorrt")
def test_float16_goes_in_and_comes_out(tmp_path: Path) -> None:
    ends = {name: tensor(name, SAMPLE, TensorProto.FLOAT16) for name in ("sample", "out_sample")}
    model = graph(node("Neg", "sample"), inputs=[ends["sample"]], outputs=[ends["out_sample"]])
    manifest = export_of(tmp_path / "half", model)
    (profile,) = manifest.profiles
    profiles = (profile.model_copy(update={"dtype": "float16"}),)
    manifest.model_copy(update={"profiles": profiles}).write(tmp_path / "half")
    assert to_tensorrt(tmp_path / "half").engines[0].error == 0
