"""Exports and settings that cannot serve: each is one sentence, and nothing crashes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from router.errors import BackendUnavailableError, ConfigError, LoadError, RouterError
from router.manifest import FileRecord
from tests.exports import Exports
from tests.miniatures import miniature
from tests.onnx_doubles import Lanes, change_manifest, loaded, make

Damage = Callable[[Path], Any]

PARITY: dict[str, Any] = {
    "pictures": [{"name": "one", "profile": "64x64", "psnr_db": None, "largest_difference": 0}],
    "components": {},
    "max_component_error": 1e-4,
    "min_psnr_db": 60,
}
"""What a gate writes that was passed."""


@pytest.fixture
def folder(exports: Exports, tmp_path: Path) -> Path:
    """An export that a test may damage."""
    return Path(shutil.copytree(exports("sd15"), tmp_path / "sd15"))


async def refused(lanes: Lanes, folder: Path, kind: type[RouterError] = LoadError, **fields: Any) -> str:
    with pytest.raises(kind) as caught:
        await loaded(lanes, folder, **fields)
    sentence = str(caught.value)
    assert sentence.endswith((".", "?"))
    assert str(folder.parent) not in sentence
    return sentence


def manifest(change: Callable[[dict[str, Any]], Any]) -> Damage:
    return lambda folder: change_manifest(folder, change)


def rewrite(folder: Path, file: str, change: Callable[[onnx.ModelProto], Any]) -> None:
    """Change a graph, and the manifest's hash of it: what somebody would do who means harm."""
    model = onnx.load(folder / file)
    change(model)
    (folder / file).write_bytes(model.SerializeToString())
    record = FileRecord.of(folder / file).model_dump()
    change_manifest(folder, lambda content: content["files"].update({file: record}))


def rename_input(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = ["latents" if name == "latent_sample" else name for name in node.input]
        model.graph.input[0].name = "latents"

    rewrite(folder, "vae_decoder/model.onnx", change)


def newer_opset(folder: Path) -> None:
    rewrite(folder, "unet/model.onnx", lambda model: setattr(model.opset_import[0], "version", 99))


def lead_outside(folder: Path) -> None:
    """Weights that a graph reads from beside the export's folder."""
    (folder.parent / "secret").write_bytes(bytes(1_000_000))

    def change(model: onnx.ModelProto) -> None:
        weight = max(model.graph.initializer, key=lambda each: each.ByteSize())
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../../secret")

    rewrite(folder, "unet/model.onnx", change)


def without_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    for file in folder.glob("unet/*-r8.onnx"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "unet/config.json").unlink(), "lacks unet/config.json; copy it again"),
        (lambda folder: (folder / "text_encoder/config.json").unlink(), "lacks text_encoder/config.json"),
        (lambda folder: (folder / "vae_decoder/config.json").unlink(), "lacks vae_decoder/config.json"),
        (lambda folder: (folder / "model_index.json").unlink(), "lacks model_index.json"),
        (lambda folder: (folder / "unet/model.onnx").unlink(), "lacks unet/model.onnx; copy the whole"),
        (lambda folder: (folder / "tokenizer/vocab.json").unlink(), "`tokenizer/vocab.json` is missing"),
        (lambda folder: (folder / "unet/model.onnx").write_bytes(b"short"), "has 5 bytes instead of"),
        (manifest(lambda content: content.update(schema_version=2)), "has schema_version 2, this Triptych"),
        (manifest(lambda content: content.update(opset="new")), "manifest.json of 'sd15'"),
        (manifest(lambda content: content["components"].pop("vae_decoder")), "no graph of 'vae_decoder'"),
        (
            manifest(lambda content: content["profiles"][0].update(height=128)),
            "of another size than its graph",
        ),
        (rename_input, "a graph vae_decoder/model.onnx with other inputs than manifest.json says"),
        (newer_opset, "does not know the opset of unet/model.onnx; install a newer one, or export"),
        (lead_outside, "could not load unet/model.onnx"),
        (lambda folder: (folder / "manifest.json").unlink(), "several graphs of 'unet' and no manifest.json"),
        (without_manifest, "graphs of fixed shapes, unet/model.onnx, and no manifest.json"),
    ],
)
async def test_a_folder_that_is_not_as_it_was_exported(
    damage: Damage, says: str, folder: Path, lanes: Lanes
) -> None:
    await asyncio.to_thread(damage, folder)
    assert says in await refused(lanes, folder)


async def test_a_changed_weight_is_seen_by_its_hash(folder: Path, lanes: Lanes) -> None:
    file = folder / "unet" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "`unet/model.onnx` has changed since the export" in await refused(lanes, folder)


async def test_a_model_folder_is_no_export(miniatures: Path, lanes: Lanes) -> None:
    sentence = await refused(lanes, miniature("sd15", miniatures))
    assert "is no export: it has neither manifest.json nor unet/model.onnx" in sentence
    assert "backend 'diffusers'" in sentence


async def test_an_export_that_no_gate_has_passed(folder: Path, lanes: Lanes) -> None:
    sentence = await refused(lanes, folder, options={"unverified": False})
    assert "was never verified; run `python -m export.verify` on it, or set option `unverified`" in sentence
    assert any("unverified" in note for note in (await make(lanes, folder).probe()).notes)


async def test_an_export_that_passed_for_another_runtime(folder: Path, lanes: Lanes) -> None:
    passed = {"runtimes": ["tensorrt"], "parity": {**PARITY, "runtime": "onnxruntime 1.20.0"}}
    change_manifest(folder, lambda content: content.update(passed))
    sentence = await refused(lanes, folder, options={"unverified": False})
    assert "was checked for tensorrt and not for onnxruntime; export it with `--runtime onnx" in sentence


async def test_a_runtime_older_than_at_the_gate(folder: Path, lanes: Lanes) -> None:
    change_manifest(folder, lambda content: content.update(parity={**PARITY, "runtime": "onnxruntime 99.1"}))
    assert f"with onnxruntime 99.1, not {onnxruntime.__version__}; pip install" in await refused(
        lanes, folder
    )


@pytest.mark.parametrize(
    ("fields", "kind", "says"),
    [
        (
            {"options": {"providers": ["CUDAExecutionProvider"]}},
            BackendUnavailableError,
            "has no provider 'CUDAExecutionProvider', it has AzureExecutionProvider, CPUExecutionProvider;"
            " pip install 'triptych[onnx-gpu]'",
        ),
        ({"options": {"providers": ["Cpu"]}}, BackendUnavailableError, "no provider 'Cpu'"),
        ({"options": {"profiles": ["1x1"]}}, LoadError, "no profile '1x1', it has 64x64; correct option"),
        ({"options": {"precision": "bfloat16"}}, ConfigError, "only `runtime` 'openvino' has"),
        ({"options": {"provider": "x"}}, ConfigError, "option `provider` is not known"),
        ({"dtype": "float16"}, ConfigError, "`dtype` is 'float16', but the export is in float32"),
        ({"device": "gpu"}, ConfigError, "`device` is 'gpu'"),
        ({"device": "meta"}, ConfigError, "`device` is 'meta'"),
    ],
)
async def test_settings_that_cannot_be(
    fields: dict[str, Any], kind: type[RouterError], says: str, folder: Path, lanes: Lanes
) -> None:
    assert says in await refused(lanes, folder, kind, **fields)


async def test_a_dtype_that_the_runtime_does_not_run(folder: Path, lanes: Lanes) -> None:
    change_manifest(folder, lambda content: content["profiles"][0].update(dtype="bfloat16"))
    assert (
        "is in bfloat16, which onnxruntime does not run on cpu; export the model in float32 or float16"
        in (await refused(lanes, folder))
    )


async def test_a_source_that_is_not_there(tmp_path: Path, lanes: Lanes) -> None:
    assert "there is no folder 'nowhere'; make it with" in await refused(lanes, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="`source` is missing"):
        await loaded(lanes, "")
