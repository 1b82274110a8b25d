"""What the command line says when something is wrong: in its own words, with the cause, as JSON too."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from router import cli, images
from router.cli.options import in_options
from tests.command_line import DEMO, PICTURE, as_object, configure, triptych


def test_a_size_is_told_as_the_option_that_sets_it(folder: Path):
    (folder / "in.png").write_bytes(images.encode(PICTURE))
    said = triptych("generate", "a circle", "--image", "in.png", "--size", "128x64").stderr
    assert "`--size` (width) is 128" in said
    assert "`width`" not in said


def test_a_huge_size_is_too_large_and_not_misspelt(folder: Path):
    assert "`--size` (height) is 1000000000, but must be at most" in in_options(
        triptych("generate", "a circle", "--size", "64x1000000000").stderr
    )


def test_a_key_of_the_file_keeps_its_name(folder: Path):
    configure(folder, f"deadline_s = nan\n{DEMO}")
    said = triptych("generate", "a circle").stderr
    assert "`deadline_s` is nan" in said
    assert "--deadline" not in said


def test_a_failure_comes_with_what_the_library_said(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "broken_house.py").write_text("raise RuntimeError('the roof\\nfell in')")
    monkeypatch.syspath_prepend(folder)
    configure(folder, '[[models.demo.instances]]\nbackend = "broken_house:Backend"\n')
    cause = "RuntimeError: the roof fell in"
    assert cause in triptych("generate", "a circle").stderr
    assert cause in triptych("check").stderr
    assert as_object(triptych("generate", "a circle", "--json"))["error"]["cause"] == cause


def test_nothing_is_said_of_defaults_while_no_instance_is_known(folder: Path):
    configure(folder, f'{DEMO}options = {{ faults = [{{ at = "probe", times = 0 }}] }}\n')
    assert "None" not in triptych("explain", "a circle").stdout


@pytest.mark.parametrize("wrong", [("--nope",), ("--steps", "many")])
def test_a_wrong_command_line_is_an_object_for_a_program(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: tuple[str, ...],
):
    monkeypatch.setattr(sys, "argv", ["triptych", "generate", "a circle", "--json", *wrong])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["code"] == "usage_error"
    assert wrong[0] in printed.err


def test_a_program_gets_the_exit_code_of_what_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for argv, code in ((["--steps", "0"], 3), (["--steps", "2", "-o", "out.png"], 0)):
        monkeypatch.setattr(sys, "argv", ["triptych", "generate", "a circle", "--json", *argv])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert (left.value.code or 0) == code
        json.loads(capsys.readouterr().out)
