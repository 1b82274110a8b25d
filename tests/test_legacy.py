"""Names of earlier systems in the environment: taken with leave alone, each told with what it is now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.config import RouterConfig
from router.errors import ConfigError
from router.legacy import RENAMED, REPLACED, SWITCH
from router.settings import load_config
from router.variables import SETS, variable
from tests.command_line import as_object, configure, triptych
from tests.configurations import make_model

TYPED = """
MODEL_ID DEVICE DTYPE DEFAULT_WIDTH DEFAULT_HEIGHT DEFAULT_STEPS DEFAULT_GUIDANCE DEFAULT_SIZE MAX_WIDTH
MAX_HEIGHT MAX_STEPS MAX_CONCURRENCY MODEL_ROOT MODEL SDXL_MODEL_ROOT SDXL_MODEL USE_SDXL CUDA_DTYPE
CUDA_ENABLE_XFORMERS CUDA_ATTENTION_SLICING NUM_WORKERS DIFFUSERS_ENABLED TRITON_SERVER_URL TRITON_GRPC_URL
TRITON_TIMEOUT
"""
ON = {SWITCH: "1"}


def read(folder: Path, **environ: str) -> RouterConfig:
    return load_config(environ=environ, directory=folder)


def refused(folder: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, **ON, **environ)
    return str(caught.value)


def seen(config: RouterConfig) -> dict[str, Any]:
    """What a setting of the table below is after reading."""
    model = config.models[0]
    instance, defaults, limits = model.instances[0], model.defaults, config.limits
    return {
        "DEVICE": instance.device,
        "DTYPE": instance.dtype,
        "DEFAULT_WIDTH": defaults.width,
        "DEFAULT_HEIGHT": defaults.height,
        "DEFAULT_SIZE": defaults.size or (defaults.width, defaults.height),
        "DEFAULT_STEPS": defaults.num_inference_steps,
        "DEFAULT_GUIDANCE": defaults.guidance_scale,
        "MAX_WIDTH": limits.max_width,
        "MAX_HEIGHT": limits.max_height,
        "MAX_STEPS": limits.max_steps,
        "MAX_CONCURRENCY": limits.concurrency,
        "TRITON_TIMEOUT": config.deadline_s,
    }


def test_every_name_that_users_typed_is_known_once_and_leads_to_one_that_is() -> None:
    assert set(TYPED.split()) == RENAMED.keys() | REPLACED.keys()
    assert not RENAMED.keys() & REPLACED.keys()
    told = (Path(__file__).parent.parent / "docs/environment.md").read_text(encoding="utf-8")
    assert [name for name in TYPED.split() if f"`{name}`" not in told] == []
    assert set(RENAMED.values()) <= {variable(name) for name in SETS}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DEVICE", "cpu", "cpu"),
        ("DTYPE", "torch.bfloat16", "bfloat16"),
        ("DTYPE", "fp16", "float16"),
        ("DEFAULT_WIDTH", "96", 96),
        ("DEFAULT_HEIGHT", "80", 80),
        ("DEFAULT_SIZE", "m", "m"),
        ("DEFAULT_SIZE", "96", (96, 96)),
        ("DEFAULT_SIZE", "96x64", (96, 64)),
        ("DEFAULT_STEPS", "7", 7),
        ("DEFAULT_GUIDANCE", "2.5", 2.5),
        ("MAX_WIDTH", "700", 700),
        ("MAX_HEIGHT", "800", 800),
        ("MAX_STEPS", "40", 40),
        ("MAX_CONCURRENCY", "3", 3),
        ("TRITON_TIMEOUT", "30", 30.0),
    ],
)
def test_a_name_sets_with_leave_what_its_new_name_sets_and_nothing_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, value: str, expected: object
) -> None:
    taken = read(tmp_path, **ON, **{name: value})
    assert seen(taken)[name] == expected
    (note,) = taken.legacy
    assert note.startswith(f"{name} is taken as {RENAMED[name]}=")
    assert note in caplog.messages
    assert any(line.endswith(f": {name} (now {RENAMED[name]})") for line in taken.sources)
    caplog.clear()
    left = read(tmp_path, **{name: value})
    assert seen(left) == seen(read(tmp_path))
    assert (left.legacy, caplog.messages) == ((), [])
    assert any(f"{name} has no effect: its name is {RENAMED[name]} now" in line for line in left.sources)


@pytest.mark.parametrize("name", REPLACED)
def test_a_name_without_meaning_here_is_told_with_what_replaces_it(tmp_path: Path, name: str) -> None:
    config = read(tmp_path, **ON, **{name: "1"})
    (note,) = config.legacy
    assert note.startswith(f"{name} is not taken: {REPLACED[name]}")
    assert config.model_copy(update={"sources": (), "legacy": ()}) == read(tmp_path, **ON).model_copy(
        update={"sources": (), "legacy": ()}
    )


# --- models


@pytest.mark.parametrize(
    "environ",
    [
        {"MODEL": "photo"},
        {"MODEL_ROOT": "models", "MODEL": "photo"},
        {"MODEL_ROOT": "models/photo"},
        {"SDXL_MODEL_ROOT": "models", "SDXL_MODEL": "photo", "USE_SDXL": "1"},
        {"SDXL_MODEL": "elsewhere", "MODEL": "models/photo", "USE_SDXL": "false"},
        {"MODEL_ID": "models/photo", "MODEL": "models/photo"},
    ],
)
def test_a_model_is_found_by_its_old_names(tmp_path: Path, environ: dict[str, str]) -> None:
    place = make_model(tmp_path / "models/photo")
    make_model(tmp_path / "photo")
    config = read(tmp_path, **ON, **environ)
    assert config.default_model == "photo"
    assert config.models[-1].instances[0].source in (str(place), str(tmp_path / "photo"))
    told = " ".join(config.legacy)
    assert all(name in told for name in environ)


def test_a_hub_id_too_and_names_that_disagree_are_a_mistake(tmp_path: Path) -> None:
    assert read(tmp_path, **ON, MODEL_ID="someone/photo").default_model == "someone/photo"
    said = refused(tmp_path, MODEL_ID="someone/photo", MODEL="someone/sketch")
    assert said == "MODEL and MODEL_ID name different models; set TRIPTYCH_MODEL to one of them."


def test_cuda_dtype_is_for_cuda_devices(tmp_path: Path) -> None:
    on_cuda = read(tmp_path, **ON, DEVICE="cuda:0", CUDA_DTYPE="float16")
    elsewhere = read(tmp_path, **ON, CUDA_DTYPE="float16")
    assert on_cuda.models[0].instances[0].dtype == "float16"
    assert elsewhere.models[0].instances[0].dtype == "auto"
    assert elsewhere.legacy[0].startswith("CUDA_DTYPE is not taken: no CUDA device is named")


# --- conflicts and mistakes


def test_our_own_name_goes_before_the_old_one(tmp_path: Path) -> None:
    config = read(tmp_path, **ON, MAX_STEPS="40", TRIPTYCH_MAX_STEPS="50")
    assert config.limits.max_steps == 50
    assert config.legacy == ("MAX_STEPS is not taken: TRIPTYCH_MAX_STEPS goes before it.",)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"DEFAULT_WIDTH": "wide"}, "`DEFAULT_WIDTH (now TRIPTYCH_DEFAULT_WIDTH)` is 'wide': input"),
        ({"MAX_STEPS": "0"}, "`MAX_STEPS (now TRIPTYCH_MAX_STEPS)` is '0'"),
        ({"DEFAULT_SIZE": "xl"}, "DEFAULT_SIZE (now TRIPTYCH_DEFAULT_SIZE)` is 'xl'"),
        ({"DEVICE": "gpu"}, "DEVICE is 'gpu'; use auto, cpu, cuda:0 or mps"),
        ({"DTYPE": "int4"}, "DTYPE is 'int4'; use auto, float16"),
        ({"USE_SDXL": "perhaps"}, "USE_SDXL is 'perhaps'; use 1 or 0."),
        ({"MODEL": "./gone"}, "MODEL (now TRIPTYCH_MODEL) is './gone', which is no model"),
        ({"DEFAULT_SIZE": "m", "DEFAULT_WIDTH": "64"}, "are both set; unset one"),
        ({"DEFAULT_STEPS": "99", "MAX_STEPS": "40"}, "(DEFAULT_STEPS (now TRIPTYCH_DEFAULT_STEPS))"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_by_the_name_that_it_was_set_by(
    tmp_path: Path, environ: dict[str, str], said: str
) -> None:
    assert said in refused(tmp_path, **environ)


def test_the_switch_itself_is_on_or_off(tmp_path: Path) -> None:
    assert read(tmp_path, **{SWITCH: "0"}, MAX_STEPS="40").limits.max_steps == 150
    with pytest.raises(ConfigError, match=f"{SWITCH} is 'maybe'; use 1 or 0"):
        read(tmp_path, **{SWITCH: "maybe"})


# --- the command line


def test_a_command_tells_on_stderr_what_it_took(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_SIZE", "96x80")
    monkeypatch.setenv("NUM_WORKERS", "4")
    without = as_object(triptych("generate", "a circle", "-o", "a.png", "--json"))
    assert without["pictures"][0]["parameters"]["width"] == 64
    monkeypatch.setenv(SWITCH, "1")
    taken = triptych("generate", "a circle", "-o", "b.png", "--json")
    parameters = as_object(taken)["pictures"][0]["parameters"]
    assert (parameters["width"], parameters["height"]) == (96, 80)
    assert "note: DEFAULT_SIZE is taken as TRIPTYCH_DEFAULT_SIZE=96x80; set that instead." in taken.stderr
    assert "note: NUM_WORKERS is not taken: one process owns the devices" in taken.stderr


def test_check_tells_of_old_names_that_have_no_effect(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_STEPS", "1")
    checked = triptych("check")
    assert checked.exit_code == 0
    assert "environment: MAX_STEPS has no effect: its name is TRIPTYCH_MAX_STEPS now" in checked.stdout
    assert "MAX_STEPS" not in triptych("models").output


def test_a_file_stays_below_the_old_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[limits]\nmax_steps = 9\n[[models.demo.instances]]\nbackend = "fake"\n'
    configure(folder, text)
    monkeypatch.setenv(SWITCH, "1")
    monkeypatch.setenv("MAX_STEPS", "2")
    refusal = triptych("generate", "a circle", "--steps", "3")
    assert (refusal.exit_code, "may be at most 2, not 3" in refusal.stderr) == (3, True)
