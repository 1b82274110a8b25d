"""`triptych export triton`: a whole repository as Triton's own schema has it, or one sentence and nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from pydantic import TypeAdapter
from tritonclient.grpc import model_config_pb2 as schema

from backends._stub_settings import CONTRACT, PipelineSettings
from export import triton_pipeline
from export.errors import UnsupportedExportError
from export.to_triton import TritonSettings, to_triton
from router.capabilities import Capabilities
from router.manifest import Manifest
from tests.command_line import as_object, pictures_in, triptych
from tests.exports import Exports
from tests.miniatures import miniature
from tests.onnx_doubles import change_manifest, export

COMPONENTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")


@pytest.fixture
def exported(folder: Path, exports: Exports) -> Path:
    """An export called `sd15` in the working folder, which a test may damage."""
    return Path(shutil.copytree(exports("sd15"), folder / "sd15"))


def config_of(repository: Path, model: str) -> Any:
    return text_format.Parse((repository / model / "config.pbtxt").read_text(), schema.ModelConfig())


def write(source: Path, repository: Path, **settings: Any) -> Path:
    to_triton(source, repository, TritonSettings(name="sd15", unverified=True, **settings))
    return repository


def shapes(tensors: Any) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.dims) for tensor in tensors}


# --- the pipeline


def test_the_pipeline_is_one_decoupled_model_with_its_export(exported: Path, folder: Path) -> None:
    found = config_of(write(exported, folder / "repo", concurrency=4, queue=2), "sd15")
    assert (found.backend, found.max_batch_size, found.model_transaction_policy.decoupled) == (
        "python", 0, True
    )  # fmt: skip
    assert [each.count for each in found.instance_group] == [1]
    assert [each.name for each in found.input if not each.optional] == ["prompt"]
    version = folder / "repo/sd15/1"
    assert Manifest.read(version / "export").check_files(version / "export") == []
    compile((version / "model.py").read_text(), "model.py", "exec")


def test_its_parameters_are_what_the_model_reads(exported: Path, folder: Path) -> None:
    found = config_of(write(exported, folder / "repo", concurrency=4, queue=2, threads=1), "sd15")
    parameters = {name: {"string_value": each.string_value} for name, each in found.parameters.items()}
    settings = PipelineSettings.read({"name": "sd15", "parameters": parameters})
    assert (settings.triptych, settings.concurrency, settings.queue) == (CONTRACT, 4, 2)
    limits = settings.router_config("sd15", folder / "repo/sd15/1").limits
    assert (limits.concurrency, limits.queue) == (4, 2)
    assert triton_pipeline.CONTRACT == CONTRACT


def test_its_capabilities_are_the_exports(exported: Path, folder: Path) -> None:
    text = config_of(write(exported, folder / "repo"), "sd15").parameters["capabilities"].string_value
    found = TypeAdapter(Capabilities).validate_json(text)
    assert found.tasks == {"text-to-image", "image-to-image", "inpainting"}
    assert [(each.height, each.width, each.row_buckets) for each in found.profiles] == [(64, 64, (2, 8))]
    assert found.device_memory_bytes is None


# --- the components


def test_under_python_a_component_is_one_model(exported: Path, folder: Path) -> None:
    repository = write(exported, folder / "repo")
    assert sorted(each.name for each in repository.iterdir()) == sorted(
        ["sd15", *(f"sd15_{name}" for name in COMPONENTS)]
    )
    unet = config_of(repository, "sd15_unet")
    assert (unet.max_batch_size, unet.dynamic_batching.max_queue_delay_microseconds) == (8, 0)
    assert shapes(unet.input)["sample"] == [4, 8, 8]
    assert shapes(unet.input)["timestep"] == [1]
    source = repository / "sd15_unet/1" / unet.parameters["source"].string_value
    for graph in json.loads(unet.parameters["graphs"].string_value):
        assert (source / graph).is_file()


def test_under_onnxruntime_a_graph_is_one_model(exported: Path, folder: Path) -> None:
    repository = write(exported, folder / "repo", runtime="onnxruntime", threads=3)
    for rows in (2, 8):
        found = config_of(repository, f"sd15_unet_64x64-r{rows}")
        assert (found.backend, found.max_batch_size) == ("onnxruntime", 0)
        assert shapes(found.input)["timestep"] == [rows]
        assert shapes(found.output) == {"out_sample": [rows, 4, 8, 8]}
        assert found.parameters["intra_op_thread_count"].string_value == "3"
        _runs(repository / f"sd15_unet_64x64-r{rows}/1/model.onnx")
    assert config_of(repository, "sd15_text_encoder").input[0].data_type == schema.TYPE_INT64


def _runs(graph: Path) -> None:
    """With the weights that it needs beside it."""
    import onnxruntime

    assert onnxruntime.InferenceSession(graph).get_inputs()


def test_where_rows_are_open_triton_joins_them_without_delay(
    folder: Path, miniatures: Path, tmp_path: Path
) -> None:
    source = export(miniature("sd15", miniatures), tmp_path / "open", ["64x64"], open_rows=True)

    def add_outputs(content: dict[str, Any]) -> None:
        content["runtimes"] = ["onnxruntime"]

    change_manifest(source, add_outputs)
    found = config_of(write(source, folder / "repo", runtime="onnxruntime"), "sd15_vae_decoder")
    assert found.max_batch_size == 8
    assert found.HasField("dynamic_batching")
    assert found.dynamic_batching.max_queue_delay_microseconds == 0
    assert shapes(found.input) == {"latent_sample": [4, 8, 8]}
    with pytest.raises(UnsupportedExportError, match="leave them open; export the model without `--dynamic"):
        write(source, folder / "engines", runtime="tensorrt", engines=folder)
    assert not (folder / "engines").exists()


def test_tensors_without_rows_keep_requests_apart(folder: Path, exports: Exports) -> None:
    found = config_of(write(exports("flux"), folder / "repo"), "sd15_transformer")
    assert found.max_batch_size == 0
    assert shapes(found.input)["img_ids"] == [16, 3]
    assert shapes(found.input)["timestep"] == [-1]


def test_engines_stand_where_tensorrt_looks(exported: Path, folder: Path) -> None:
    graphs = Manifest.read(exported).components
    for record in (record for records in graphs.values() for record in records):
        plan = folder / "engines" / Path(record.file).with_suffix(".plan")
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_bytes(record.file.encode())
    repository = write(exported, folder / "repo", runtime="tensorrt", engines=folder / "engines")
    found = config_of(repository, "sd15_unet_64x64-r8")
    assert (found.backend, found.instance_group[0].kind) == ("tensorrt", schema.ModelInstanceGroup.KIND_GPU)
    assert shapes(found.input)["sample"] == [8, 4, 8, 8]
    assert (repository / "sd15_unet_64x64-r8/1/model.plan").read_text() == "unet/64x64-r8.onnx"


# --- refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--profile", "poster"), "`--profile` is 'poster'; the export has 64x64."),
        (("--runtime", "coreml"), "`--runtime` is 'coreml'; use one of python, onnxruntime, tensorrt."),
        (("--runtime", "tensorrt"), "`--engines` names the folder of TensorRT's plans"),
        (
            ("--runtime", "tensorrt", "--engines", "engines"),
            "`--engines` has no text_encoder/model.plan; build those of this export with `triptych",
        ),
        (("--name", "a/b"), "`--name` is 'a/b'; use letters, digits"),
        (("--components", "theirs"), "`--components` is 'theirs'; use own or triton."),
        (("--concurrency", "0"), "`--concurrency` is 0; it must be at least 1."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_one_sentence(exported: Path, arguments: tuple[str, ...], words: str) -> None:
    refused(exported, (*arguments, "--unverified"), words)


def test_a_repository_that_is_there_is_refused(exported: Path) -> None:
    (exported.parent / "repo").mkdir()
    refused(exported, ("--unverified",), "`--output` 'repo' is there already; name another folder.")


def test_an_export_that_was_never_compared_is_refused(exported: Path) -> None:
    refused(exported, (), "was never verified; run `python -m export.verify` on it")


def test_an_export_that_has_changed_is_refused(exported: Path) -> None:
    with (exported / "unet/config.json").open("a") as stream:
        stream.write(" ")
    refused(exported, ("--unverified",), "'sd15' is not as it was exported: `unet/config.json` has")


def test_what_is_no_export_is_refused(exported: Path) -> None:
    (exported / "manifest.json").unlink()
    refused(exported, (), "'sd15' has no readable manifest.json")


def refused(exported: Path, arguments: tuple[str, ...], words: str) -> None:
    """One sentence, nothing left behind, and the same as an object."""
    before = pictures_in(exported.parent)
    line = ("export", "triton", "sd15", "-o", "repo", *arguments)
    result = triptych(*line)
    assert result.exit_code in (1, 2)
    assert words in result.stderr
    assert result.stderr.startswith("error: ")
    assert pictures_in(exported.parent) == before
    assert words in as_object(triptych(*line, "--json"))["error"]["message"]


def test_what_breaks_off_leaves_nothing(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    refused(exported, ("--unverified",), "The disk of `--output` 'repo' is full")
