"""The pipeline model without a server: one end for each request, a bounded queue, clients that leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends._stub_pipeline import PipelineModel
from backends._stub_settings import PipelineSettings
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import ConfigError, LoadError
from tests.triton_stub import TRITON, Request, arguments

SLOW = {"prompt": "slow", "num_inference_steps": 100}
MODEL_FILE = Path(__file__).parents[1] / "model_repository" / "pipeline" / "1" / "model.py"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PipelineModel]:
    """Over the fake backend, 50 ms a step; two requests at once, and one that may wait."""
    real = PipelineSettings.router_config

    def with_fake(settings: PipelineSettings, name: str, version: Path) -> RouterConfig:
        fake = InstanceConfig(name=name, backend="fake", options={"step_s": 0.05, "faults": FAULTS})
        models = (ModelConfig(name=name, instances=(fake,)),)
        return real(settings, name, version).model_copy(update={"models": models})

    monkeypatch.setattr(PipelineSettings, "router_config", with_fake)
    made = PipelineModel(arguments(str(tmp_path), triptych="1", concurrency="2", queue="1"), TRITON)
    yield made
    made.finalize()


FAULTS = [{"at": "generate", "error": "memory_budget", "times": 0, "prompt": "huge"}]


def execute(model: PipelineModel, **fields: Any) -> Request:
    request = Request(**fields)
    model.execute([request])
    return request


def test_a_request_gets_its_steps_its_picture_and_one_end(model: PipelineModel) -> None:
    request = execute(model, prompt="a circle", num_inference_steps=2, num_images_per_prompt=2)
    assert request.sender.error == ""
    assert request.sender.names() == [["progress"]] * 4 + [["index", "facts", "picture"]] * 2


def test_execute_waits_for_nothing(model: PipelineModel) -> None:
    assert not execute(model, **SLOW).sender.ended.is_set()


def test_one_more_than_may_wait_is_refused(model: PipelineModel) -> None:
    begun = [execute(model, **SLOW) for _ in range(3)]
    assert execute(model, **SLOW).sender.error.startswith("queue_full: ")
    assert not any(each.sender.ended.is_set() for each in begun)


def test_who_leaves_while_waiting_is_forgotten(model: PipelineModel) -> None:
    _, _, waiting = [execute(model, **SLOW) for _ in range(3)]
    waiting.sender.cancelled = True
    assert waiting.sender.error.startswith("cancelled: ")
    assert waiting.sender.responses[-1].error.code == TRITON.TritonError.CANCELLED
    assert waiting.sender.names() == [[]]


def test_a_deadline_is_kept(model: PipelineModel) -> None:
    request = execute(model, **SLOW, timeout=100_000)
    assert request.sender.error.startswith("deadline_exceeded: ")


@pytest.mark.parametrize("what", ["progress", "index"])
def test_what_cannot_be_sent_ends_that_request_alone(
    model: PipelineModel, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    broken, whole = (Request(prompt=prompt, num_inference_steps=4) for prompt in ("a circle", "a ring"))
    send = broken.sender.send

    def fail(response: Any = None, flags: int = 0) -> None:
        if response is not None and what in [tensor.name() for tensor in response.output_tensors]:
            raise RuntimeError("no memory for the response")
        send(response, flags)

    monkeypatch.setattr(broken.sender, "send", fail)
    model.execute([broken, whole])
    assert broken.sender.error in (
        "cancelled: The request was cancelled.",
        "internal_error: The server failed with RuntimeError; see its log.",
    )
    assert whole.sender.error == ""
    assert whole.sender.names()[-1] == ["index", "facts", "picture"]


def test_errors_have_triton_codes_that_say_whose_they_are(model: PipelineModel) -> None:
    codes = TRITON.TritonError
    for fields, code in (
        ({"prompt": ""}, codes.INVALID_ARG),
        ({"prompt": np.array([b"one", b"two"])}, codes.INVALID_ARG),
        ({"prompt": "x", "image": np.zeros((8, 8), np.uint8)}, codes.INVALID_ARG),
        ({"prompt": "huge"}, codes.UNAVAILABLE),
    ):
        sender = execute(model, **fields).sender
        assert sender.error
        assert sender.responses[-1].error.code == code


def test_at_the_end_everybody_is_answered(
    model: PipelineModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = [execute(model, **SLOW) for _ in range(3)]
    other = PipelineModel(arguments(str(tmp_path), triptych="1"), TRITON)
    begun += [execute(other, **SLOW) for _ in range(3)]
    other.finalize()
    assert [each.sender.error.split(":")[0] for each in begun[3:]] == ["cancelled"] * 3


# --- what cannot be loaded


def test_a_wrong_parameter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.pbtxt of 'model', parameters: `concurrency` is '0'"):
        PipelineModel(arguments(str(tmp_path), triptych="1", concurrency="0"), TRITON)
    with pytest.raises(ConfigError, match=r"there is no key `que`; did you mean queue\?"):
        PipelineModel(arguments(str(tmp_path), triptych="1", que="1"), TRITON)


def test_an_export_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no folder 'export'"):
        PipelineModel(arguments(str(tmp_path), triptych="1", device="cpu"), TRITON)


def test_a_python_without_the_package_says_so(tmp_path: Path) -> None:
    done = _import_model(tmp_path, site_packages="")
    assert "'shapes': Python 3." in done
    assert "has no module 'numpy'; install triptych[onnx]" in done
    assert "in the parameter `site_packages` of config.pbtxt" in done


def test_the_parameter_leads_to_the_package(tmp_path: Path) -> None:
    site = next(path for path in sys.path if path.endswith("site-packages"))
    done = _import_model(tmp_path, site_packages=site)
    assert done.endswith("ModuleNotFoundError: No module named 'triton_python_backend_utils'")


def _import_model(folder: Path, site_packages: str) -> str:
    """The last line of what an isolated Python says that imports the model as a stub does."""
    version = folder / "shapes" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_bytes(MODEL_FILE.read_bytes())
    parameter = f'parameters {{ key: "site_packages" value {{ string_value: "{site_packages}" }} }}\n'
    (folder / "shapes" / "config.pbtxt").write_text(parameter)
    line = [sys.executable, "-I", "-S", version / "model.py"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ})
    return done.stderr.strip().splitlines()[-1]
