"""`triptych explain`, `backends` and `check`: what the command line tells of instances."""

from __future__ import annotations

from pathlib import Path

import pytest

from router import registry
from tests.command_line import DEMO, as_object, configure, pictures_in, triptych

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
    verdicts, _, memory = result.stdout.partition("Memory")
    lines = {name: line for line in verdicts.splitlines() for name in ("demo/fake", "fixed") if name in line}
    assert "819 kB by formula" in memory
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
    assert "1 MB of weights" in lines["demo/fake"]
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
