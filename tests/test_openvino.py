"""OpenVINO as the runtime of an export: the same pictures in float32, close ones in bfloat16."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from backends._openvino_session import OpenVinoRuntime
from router.errors import BackendUnavailableError, ConfigError, LoadError
from tests.exports import Exports
from tests.miniatures import FAMILIES, miniature
from tests.onnx_doubles import Lanes, export_like_optimum, generate, loaded, make, psnr_db, request
from tests.plain_pipelines import mixed_requests, online, pixels, plain_picture


@pytest.fixture(params=FAMILIES)
def source(request: pytest.FixtureRequest, miniatures: Path) -> Path:
    return miniature(request.param, miniatures)


@pytest.fixture
def exported(source: Path, exports: Exports) -> Path:
    return exports(source.name)


@pytest.fixture
def sd15(exports: Exports) -> Path:
    return exports("sd15")


OPENVINO = {"runtime": "openvino"}


async def test_pictures_equal_the_plain_pipelines(source: Path, exported: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, exported, options=OPENVINO)
    requests = mixed_requests("image-to-image")
    made = [pixels(each.pictures[0].image) for each in await online(backend, requests)]
    assert min(map(psnr_db, made, [plain_picture(source, each) for each in requests])) >= 60


async def test_bfloat16_is_close_and_is_said(sd15: Path, miniatures: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, sd15, options={**OPENVINO, "precision": "bfloat16"})
    asked = request()
    made = pixels((await generate(backend)).pictures[0].image)
    plain = plain_picture(miniature("sd15", miniatures), asked)
    assert 20 < psnr_db(made, plain) < 60
    assert any(note.startswith("openvino ") and "bfloat16" in note for note in (await backend.probe()).notes)


def test_outputs_outlive_later_runs(sd15: Path) -> None:
    session = OpenVinoRuntime("float32", threads=1).open(sd15 / "vae_decoder" / "model.onnx")
    latents = torch.randn(2, 1, 4, 8, 8)
    first = session.run({"latent_sample": latents[0]})["sample"]
    before = first.clone()
    session.run({"latent_sample": latents[1]})
    assert torch.equal(first, before)


def test_threads_precision_and_the_one_stream_are_what_was_asked_for(sd15: Path) -> None:
    session = OpenVinoRuntime("bfloat16", threads=1).open(sd15 / "vae_decoder" / "model.onnx")
    compiled = session._request.get_compiled_model()
    settings = {
        name: compiled.get_property(name)
        for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "INFERENCE_PRECISION_HINT", "ENABLE_CPU_PINNING")
    }
    assert [str(value) for value in settings.values()] == ["1", "1", "<Type: 'bfloat16'>", "False"]


def test_open_axes(miniatures: Path, tmp_path: Path) -> None:
    folder = export_like_optimum(miniature("sd15", miniatures), tmp_path / "sd15")
    session = OpenVinoRuntime("float32", threads=1).open(folder / "vae_decoder" / "model.onnx")
    assert session.inputs["latent_sample"].shape == (None, 4, None, None)
    assert session.run({"latent_sample": torch.randn(2, 4, 8, 12)})["sample"].shape == (2, 3, 64, 96)


async def test_without_the_library_the_sentence_is_the_cure(
    sd15: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "backends._openvino_session")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'triptych\[openvino\]'\.$"):
        await make(lanes, sd15, options=OPENVINO).probe()


@pytest.mark.parametrize("setting", [{"providers": ["CPUExecutionProvider"]}, {"spinning": True}])
async def test_settings_of_the_other_runtime(setting: dict[str, Any], sd15: Path, lanes: Lanes) -> None:
    with pytest.raises(ConfigError, match="is ONNX Runtime's and `runtime` is 'openvino'; drop it"):
        await make(lanes, sd15, options={**OPENVINO, **setting}).probe()


def test_a_cpu_without_bfloat16_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends._openvino_session.cpu_capabilities", lambda core: ["FP32"])
    assert "this CPU has no bfloat16" in " ".join(OpenVinoRuntime("bfloat16", threads=1).notes)
    assert "this CPU" not in " ".join(OpenVinoRuntime("float32", threads=1).notes)


def test_a_damaged_graph_is_a_load_error(tmp_path: Path) -> None:
    file = tmp_path / "unet" / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(b"damaged")
    with pytest.raises(LoadError, match=r"could not load unet/model\.onnx"):
        OpenVinoRuntime("float32", threads=1).open(file)
