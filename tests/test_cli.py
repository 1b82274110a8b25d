"""The command line, on the fake backend: files, tables, JSON, sentences and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from router import cli, images, registry
from router.types import RawImage

DEMO = '[[models.demo.instances]]\nbackend = "fake"\n'
PATH = str(Path(cli.__file__).parents[2])
PICTURE = RawImage(64, 64, bytes(64 * 64 * 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a configuration of one fake instance."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    configure(tmp_path, DEMO)
    return tmp_path


def configure(folder: Path, text: str) -> None:
    (folder / "triptych.toml").write_text(text)


def triptych(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.app, arguments)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def as_object(result: Result) -> dict[str, Any]:
    """All of stdout is one JSON object."""
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def pictures_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "triptych.toml")


# generate


def test_a_prompt_becomes_a_file_that_tells_how_it_was_made(folder: Path):
    result = triptych("generate", "a red circle", "-o", "out.png", "--seed", "7", "--size", "80x64")
    assert result.exit_code == 0
    assert pictures_in(folder) == ["out.png"]
    data = (folder / "out.png").read_bytes()
    assert (images.decode(data).width, images.decode(data).height) == (80, 64)
    record = json.loads(images.read_metadata(data)["triptych"])
    assert record["parameters"]["prompt"] == "a red circle"
    assert record["parameters"]["seed"] == 7
    assert record["parameters"]["num_inference_steps"] == 4, "the model's default is filled in"
    assert record["instance"] == "demo/fake"


def test_the_user_is_told_where_it_is_and_how_it_came(folder: Path):
    said = triptych("generate", "a red circle", "-o", "out.png", "--seed", "7").stdout
    for words in ("out.png", "seed 7", "64x64", "demo/fake", "generate 0."):
        assert words in said


def test_the_embedded_parameters_make_the_same_picture_again(folder: Path):
    triptych("generate", "a red circle", "-n", "2", "-o", "out.png", "--guidance", "3", "--steps", "5")
    record = json.loads(images.read_metadata((folder / "out-2.png").read_bytes())["triptych"])
    again = record["parameters"]
    options = ("--seed", "--steps", "--guidance")
    fields = ("seed", "num_inference_steps", "guidance_scale")
    given = [
        str(word) for pair in zip(options, (again[name] for name in fields), strict=True) for word in pair
    ]
    triptych("generate", again["prompt"], "-o", "again.png", *given)
    first, second = ((folder / name).read_bytes() for name in ("out-2.png", "again.png"))
    assert images.decode(first) == images.decode(second)


def test_several_pictures_are_saved_beside_a_sheet(folder: Path):
    result = triptych("generate", "a circle", "a square", "--n", "2", "-o", "out.png", "--seed", "7")
    assert result.exit_code == 0
    assert pictures_in(folder) == ["out-1.png", "out-2.png", "out-3.png", "out-4.png", "out.png"]
    sheet = images.decode((folder / "out.png").read_bytes())
    assert sheet.width > 2 * 64
    assert sheet.height > 2 * 64
    records = [
        json.loads(images.read_metadata((folder / f"out-{number}.png").read_bytes())["triptych"])[
            "parameters"
        ]
        for number in (1, 2, 3, 4)
    ]
    assert [(each["prompt"], each["seed"]) for each in records] == [
        ("a circle", 7),
        ("a circle", 8),
        ("a square", 7),
        ("a square", 8),
    ]


def test_without_a_name_nothing_is_overwritten(folder: Path):
    for _ in range(2):
        assert triptych("generate", "a circle", "--seed", "7").exit_code == 0
    assert triptych("generate", "a circle", "a square", "--seed", "7").exit_code == 0
    assert pictures_in(folder) == [
        "triptych-7.png",
        "triptych-7_2.png",
        "triptych-7_3-1.png",
        "triptych-7_3-2.png",
        "triptych-7_3.png",
    ]


def test_a_named_file_is_replaced(folder: Path):
    (folder / "out.png").write_text("an older file")
    assert triptych("generate", "a circle", "-o", "out.png").exit_code == 0
    assert images.decode((folder / "out.png").read_bytes())


@pytest.mark.parametrize(("name", "start"), [("out.jpg", b"\xff\xd8"), ("out.WEBP", b"RIFF")])
def test_the_name_chooses_the_format(folder: Path, name: str, start: bytes):
    assert triptych("generate", "a circle", "-o", name).exit_code == 0
    data = (folder / name).read_bytes()
    assert data.startswith(start)
    assert "a circle" in images.read_metadata(data)["triptych"]


def test_parameters_too_long_for_a_jpeg_are_left_out_and_said(folder: Path):
    result = triptych("generate", "円" * 10_000, "-o", "out.jpg")
    assert result.exit_code == 0
    assert "without its parameters" in result.stderr
    assert images.read_metadata((folder / "out.jpg").read_bytes()) == {}


def test_a_picture_and_a_mask_are_read(folder: Path):
    (folder / "in.png").write_bytes(images.encode(PICTURE))
    options = ("--image", "in.png", "--mask", "in.png", "--strength", "0.5", "--json")
    record = as_object(triptych("generate", "a circle", *options))["pictures"][0]
    assert record["task"] == "inpainting"
    assert record["parameters"]["strength"] == 0.5


def test_every_option_reaches_the_request(folder: Path):
    options = ("--negative-prompt", "a square", "--guidance", "3", "--scheduler", "DDIM", "--model", "demo")
    more = ("--deadline", "60", "--reproducible", "--steps", "3", "--json")
    parameters = as_object(triptych("generate", "a circle", *options, *more))["pictures"][0]["parameters"]
    expected = {"negative_prompt": "a square", "guidance_scale": 3.0, "scheduler": "DDIM", "model": "demo"}
    expected |= {"deadline_s": 60.0, "reproducible": True, "num_inference_steps": 3}
    assert {name: parameters[name] for name in expected} == expected


def test_json_tells_files_seeds_and_timings(folder: Path):
    said = as_object(triptych("generate", "a circle", "-n", "2", "-o", "out.png", "--seed", "7", "--json"))
    assert said["sheet"] == "out.png"
    assert [each["file"] for each in said["pictures"]] == ["out-1.png", "out-2.png"]
    assert [each["parameters"]["seed"] for each in said["pictures"]] == [7, 8]
    assert {"queued_s", "load_s", "generate_s", "encode_s"} == set(said["pictures"][0]["timings"])
    assert said["errors"] == []


def test_one_prompt_that_fails_leaves_the_others_alone(folder: Path):
    fault = '{ at = "generate", error = "generate_failed", times = 0, prompt = "square" }'
    configure(folder, f"{DEMO}options = {{ faults = [{fault}] }}\n")
    result = triptych("generate", "a circle", "a square", "-o", "out.png", "--json")
    assert result.exit_code == 1
    assert [each["file"] for each in as_object(result)["pictures"]] == ["out.png"]
    assert as_object(result)["errors"][0]["code"] == "generate_failed"
    assert "error: " in result.stderr
    assert pictures_in(folder) == ["out.png"]


# What is refused


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("generate",), 3, "`prompt` is empty"),
        (("generate", "x" * 100_000), 3, "at most 10,000 characters"),
        (("generate", "a circle", "--steps", "0"), 3, "`--steps` is 0, but must be at least 1"),
        (("generate", "a circle", "--steps", "100000"), 3, "`--steps` may be at most 150"),
        (("generate", "a circle", "--guidance", "nan"), 3, "`--guidance` is nan"),
        (("generate", "a circle", "--n", "0"), 3, "`--n` is 0"),
        (("generate", "a circle", "--size", "7x64"), 3, "`width` is 7, but must be at least 8"),
        (("generate", "a circle", "--size", "999999999x64"), 3, "`width` is 999999999"),
        (("generate", "a circle", "--size", "70x64"), 3, "`width` must be a multiple of 8, not 70"),
        (("generate", "a circle", "--size", "64"), 3, "`--size` is '64'; write WIDTHxHEIGHT"),
        (("generate", "a circle", "--size", "-8x64"), 3, "write WIDTHxHEIGHT"),
        (
            ("generate", "a circle", "--strength", "0.5"),
            3,
            "`--strength` says how far to move from an `--image`",
        ),
        (("generate", "a circle", "--mask", "in.png"), 3, "`--mask` needs an `--image`"),
        (("generate", "a circle", "--image", "none.png"), 3, "`--image` is 'none.png', which cannot be read"),
        (("generate", "a circle", "--image", "triptych.toml"), 3, "`--image` is neither PNG, JPEG nor WebP"),
        (("generate", "a circle", "--scheduler", "Nope"), 3, "it has no scheduler 'Nope'"),
        (("generate", "a circle", "--model", "nope"), 3, "There is no model 'nope'"),
        (("generate", "a circle", "-o", "none/out.png"), 2, "'none', which does not exist"),
        (("generate", "a circle", "-o", "out.gif"), 2, "end it with one of .png"),
        (("generate", "a circle", "-o", "."), 2, "a folder"),
        (("explain", "a circle", "--steps", "0"), 3, "`--steps` is 0"),
        (("--config", "none.toml", "generate", "a circle"), 2, "none.toml"),
        (("--config", "none.toml", "explain", "a circle"), 2, "none.toml"),
        (("--config", "none.toml", "backends"), 2, "none.toml"),
        (("--config", "none.toml", "check"), 2, "none.toml"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    folder: Path, arguments: tuple[str, ...], exit_code: int, words: str
):
    (folder / "in.png").write_bytes(images.encode(PICTURE))
    result = triptych(*arguments)
    assert result.exit_code == exit_code
    assert words in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert pictures_in(folder) == ["in.png"]
    error = as_object(triptych(*arguments, "--json"))["error"]
    assert set(error) >= {"code", "message"}


def test_the_error_object_carries_what_the_error_carries(folder: Path):
    said = as_object(triptych("generate", "a circle", "--steps", "0", "--json"))
    assert said["error"]["code"] == "invalid_request_error"
    assert said["error"]["param"] == "num_inference_steps"
    assert "`num_inference_steps` is 0" in said["error"]["message"], "programs get the names of the API"


@pytest.mark.parametrize(
    "arguments", [("nope",), ("generate", "--nope"), ("generate", "a", "--steps", "many")]
)
def test_a_wrong_command_line_is_exit_code_2(folder: Path, arguments: tuple[str, ...]):
    result = triptych(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_deadline_that_passes_is_exit_code_4(folder: Path):
    configure(folder, f"{DEMO}options = {{ step_s = 0.02, steps = 100 }}\n")
    result = triptych("generate", "a circle", "--deadline", "0.05", "-o", "out.png")
    assert result.exit_code == 4
    assert pictures_in(folder) == []


def test_a_config_with_a_typo_is_exit_code_2(folder: Path):
    configure(folder, "defualt_model = 'demo'\n" + DEMO)
    result = triptych("generate", "a circle", "--json")
    assert result.exit_code == 2
    assert as_object(result)["error"]["code"] == "config_error"
    assert "defualt_model" in result.stderr


def test_a_failing_model_is_exit_code_1(folder: Path):
    configure(
        folder, f'{DEMO}options = {{ faults = [{{ at = "load", error = "load_failed", times = 0 }}] }}\n'
    )
    assert triptych("generate", "a circle").exit_code == 1


def test_a_full_disk_leaves_no_half_file(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = triptych("generate", "a circle", "-o", "out.png")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert pictures_in(folder) == []


# explain, backends, check

TWO = (
    DEMO
    + '[[models.demo.instances]]\nbackend = "fake"\nname = "fixed"\noptions = { profiles = ["128x128"] }\n'
)
MISSING = DEMO + '[[models.demo.instances]]\nbackend = "fake"\nname = "broken"\noptions = { faults = [%s] }\n'
PROBE_FAULT = '{ at = "probe", error = "load_failed", times = 0 }'


def test_explain_says_who_would_serve_and_why_others_would_not(folder: Path):
    configure(folder, TWO)
    result = triptych("explain", "a circle", "--size", "64x64", "--seed", "7")
    assert result.exit_code == 0
    assert "64x64" in result.stdout
    assert "seed 7" in result.stdout
    lines = {
        name: line for line in result.stdout.splitlines() for name in ("demo/fake", "fixed") if name in line
    }
    assert "serves it" in lines["demo/fake"]
    assert "its graphs are made for 128x128" in lines["fixed"]
    assert pictures_in(folder) == []


def test_explain_as_json(folder: Path):
    configure(folder, TWO)
    said = as_object(triptych("explain", "a circle", "a square", "--size", "64x64", "--json"))
    assert len(said["routes"]) == 2
    route = said["routes"][0]
    assert route["candidates"] == ["demo/fake"]
    assert list(route["rejections"]) == ["fixed"]
    assert route["parameters"]["prompt"] == "a circle"


def test_explain_without_a_candidate_is_exit_code_3(folder: Path):
    result = triptych("explain", "a circle", "--size", "70x64")
    assert result.exit_code == 3
    assert "multiple of 8" in result.stdout
    said = as_object(triptych("explain", "a circle", "--size", "70x64", "--json"))
    assert said["routes"][0]["error"]["code"] == "no_route"


def test_backends_shows_what_is_there_and_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    absent = registry.BackendEntry(
        "backends.absent:Absent", ("no_such_module",), "pip install 'triptych[absent]'"
    )
    monkeypatch.setitem(registry.BACKENDS, "absent", absent)
    configure(folder, MISSING % PROBE_FAULT)
    result = triptych("backends")
    assert result.exit_code == 0
    assert "pip install 'triptych[absent]'" in result.stdout
    lines = {
        name: line for line in result.stdout.splitlines() for name in ("demo/fake", "broken") if name in line
    }
    assert "healthy" in lines["demo/fake"]
    assert "FakePipeline" in lines["demo/fake"]
    assert "fault planted" in lines["broken"]


def test_backends_as_json(folder: Path):
    configure(folder, MISSING % PROBE_FAULT)
    said = as_object(triptych("backends", "--json"))
    assert said["backends"]["fake"] == {"installed": True, "missing": None}
    whole, broken = said["instances"]
    assert whole["state"] == "cold"
    assert whole["breaker"] == "closed"
    assert whole["capabilities"]["pipeline"] == "FakePipeline"
    assert broken["capabilities"] is None
    assert "fault planted" in broken["error"]


def test_check_makes_a_tiny_picture_on_each_instance(folder: Path):
    configure(folder, TWO)
    result = triptych("check")
    assert result.exit_code == 0
    assert "triptych.toml" in result.stdout
    assert "demo/fake picture: 64x64" in result.stdout
    assert "fixed picture: 128x128" in result.stdout
    assert "wrong" not in result.stdout


@pytest.mark.parametrize("tasks", ["text-to-image", "image-to-image", "inpainting"])
def test_check_asks_for_a_task_that_the_instance_does(folder: Path, tasks: str):
    configure(folder, f'{DEMO}options = {{ tasks = ["{tasks}"] }}\n')
    assert triptych("check").exit_code == 0


@pytest.mark.parametrize("place", ["probe", "load", "generate"])
def test_check_says_what_is_wrong_and_looks_at_the_rest(folder: Path, place: str):
    configure(folder, MISSING % f'{{ at = "{place}", error = "load_failed", times = 0 }}')
    result = triptych("check")
    assert result.exit_code == 1
    assert "ok    demo/fake picture" in result.stdout
    assert f"the fault planted at '{place}'" in result.stdout
    said = as_object(triptych("check", "--json"))
    assert said["ok"] is False
    wrong = [line for line in said["lines"] if not line["ok"]]
    assert len(wrong) == 1
    assert wrong[0]["error"]["code"] == "load_failed"


# The program as a whole


def test_help_documents_exit_codes_and_loads_no_model_library():
    code = (
        "import sys\n"
        "from router.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    loaded = {name.split('.')[0] for name in sys.modules}\n"
        "    assert not loaded & {'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'backends'}, loaded\n"
    )
    for command in ([], ["generate"], ["explain"], ["backends"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "130 stopped by Ctrl-C" in " ".join(done.stdout.split())


def test_a_failure_is_one_line_and_nothing_else(folder: Path):
    configure(folder, f'{DEMO}options = {{ faults = [{{ at = "generate", times = 0 }}] }}\n')
    words = [sys.executable, "-m", "router", "generate", "a circle"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": PATH})
    assert done.returncode == 1
    assert done.stderr == "error: demo/fake: the fault planted at 'generate'.\n"
    assert done.stdout == ""


SLOW = """
import pathlib
from backends.fake import FakeBackend

class SlowBackend(FakeBackend):
    async def generate(self, request, on_event, deadline_s):
        pathlib.Path("started").touch()
        try:
            return await super().generate(request, on_event, deadline_s)
        finally:
            pathlib.Path("ended").touch()
"""


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_stops_the_work_and_leaves_nothing_behind(folder: Path, as_json: bool):
    (folder / "slow.py").write_text(SLOW)
    configure(
        folder,
        '[[models.demo.instances]]\nbackend = "slow:SlowBackend"\noptions = {step_s = 0.02, steps = 150}',
    )
    words = ["generate", "a circle", "a square", "-o", "out.png", *(["--json"] if as_json else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "router", *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), PATH])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (folder / "started").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.startswith("error: Stopped")
    assert stderr.count("\n") == 1
    assert (json.loads(stdout)["error"]["code"] == "cancelled") if as_json else stdout == ""
    assert (folder / "ended").exists()
    assert not [name for name in pictures_in(folder) if "out" in name]
