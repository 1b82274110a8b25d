"""`triptych generate`: the files it writes, what they carry, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router import images
from tests.command_line import DEMO, PICTURE, as_object, configure, pictures_in, triptych


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
    assert {"route_s", "queued_s", "load_s", "generate_s", "encode_s"} <= set(said["pictures"][0]["timings"])
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


def test_more_prompts_than_may_run_and_wait_take_turns(folder: Path):
    configure(folder, "[limits]\nconcurrency = 1\nqueue = 0\n" + DEMO)
    result = triptych("generate", "a", "b", "c", "d", "-o", "out.png")
    assert result.exit_code == 0
    assert pictures_in(folder) == ["out-1.png", "out-2.png", "out-3.png", "out-4.png", "out.png"]


def test_a_file_that_cannot_be_written_does_not_cost_the_others(folder: Path):
    (folder / "out-1.png").mkdir()
    result = triptych("generate", "a circle", "--n", "3", "-o", "out.png", "--json")
    assert result.exit_code == 1
    assert "out-1.png cannot be written" in result.stderr
    said = as_object(result)
    assert [each["file"] for each in said["pictures"]] == ["out-2.png", "out-3.png"]
    assert "out-1.png cannot be written" in said["errors"][0]["message"]
    for name in ("out.png", "out-2.png", "out-3.png"):
        assert images.decode((folder / name).read_bytes())
