"""`triptych check --parity`: the same requests on every instance of a model, as a table and a picture."""

from __future__ import annotations

from pathlib import Path

from router import images
from router.parity import PROMPTS
from tests.command_line import as_object, configure, pictures_in, triptych
from tests.exports import Exports
from tests.miniatures import miniature

PAIR = """
[[models.demo.instances]]
name = "one"
backend = "fake"

[[models.demo.instances]]
name = "other"
backend = "fake"
"""


def test_three_backends_make_the_same_pictures(folder: Path, everywhere: Path) -> None:
    found = as_object(triptych("check", "--parity", "--json"))
    (report,) = found["models"].values()
    first, *others = report["instances"]
    assert found["ok"] is True
    assert [each["instance"] for each in (first, *others)] == [
        "sd15/diffusers",
        "sd15/onnxruntime",
        "sd15/triton",
    ]
    assert {each["pictures"] for each in (first, *others)} == {8}
    assert {each["same"] for each in others} == {True}
    assert all(each["psnr_db"] is None or each["psnr_db"] >= each["min_psnr_db"] == 60 for each in others)
    sheet = images.decode((folder / "parity.png").read_bytes())
    assert (sheet.height, sheet.width) == (
        5 * 64 + 6 * 4,
        8 * 64 + 9 * 4,
    )  # a row each, and two of differences


def test_another_models_pictures_are_told_apart(folder: Path, miniatures: Path, exports: Exports) -> None:
    """An export of other weights beside the model: what a forgotten export after a training looks like."""
    configure(
        folder,
        f"""
        [[models.mixed.instances]]
        backend = "diffusers"
        source = "{miniature("sd15", miniatures)}"
        device = "cpu"

        [[models.mixed.instances]]
        backend = "diffusers"
        source = "shipped:shapes"
        device = "cpu"
        """,
    )
    result = triptych("check", "--parity", "--pictures", "2", "--output", "beside.png")
    assert result.exit_code == 1
    assert "differs" in result.stdout
    assert "60.0 dB" in result.stdout
    assert pictures_in(folder) == ["beside.png"]


def test_equal_pictures_need_no_decibels(folder: Path) -> None:
    configure(folder, PAIR)
    result = triptych("check", "--parity", "--pictures", str(len(PROMPTS)))
    assert result.exit_code == 0
    assert "equal" in result.stdout
    assert "parity.png: a row of pictures for each instance" in result.stdout


def test_an_instance_that_cannot_serve_is_said_and_fails(folder: Path) -> None:
    configure(folder, PAIR + '[[models.demo.instances]]\nbackend = "diffusers"\nsource = "./nowhere"\n')
    result = triptych("check", "--parity")
    assert result.exit_code == 1
    assert "nowhere" in result.stdout
    assert "same" in result.stdout


def test_one_instance_has_nothing_beside_it(folder: Path) -> None:
    result = triptych("check", "--parity")
    assert result.exit_code == 0
    assert "One instance alone has nothing to be compared with" in result.stdout
    assert pictures_in(folder) == []


def test_a_picture_that_cannot_be_written_is_one_sentence(folder: Path) -> None:
    configure(folder, PAIR)
    result = triptych("check", "--parity", "--output", "nowhere/parity.png")
    assert result.exit_code != 0
    assert "nowhere" in result.stderr
