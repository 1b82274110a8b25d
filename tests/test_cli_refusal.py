"""What the command line refuses: sentences, exit codes and no half files."""

from __future__ import annotations

from pathlib import Path

import pytest

from router import images
from tests.command_line import DEMO, PICTURE, as_object, configure, pictures_in, triptych


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("generate",), 3, "`prompt` is empty"),
        (("generate", "x" * 100_000), 3, "at most 10,000 characters"),
        (("generate", "a circle", "--steps", "0"), 3, "`--steps` is 0, but must be at least 1"),
        (("generate", "a circle", "--steps", "100000"), 3, "`--steps` may be at most 150"),
        (("generate", "a circle", "--guidance", "nan"), 3, "`--guidance` is nan"),
        (("generate", "a circle", "--n", "0"), 3, "`--n` is 0"),
        (("generate", "a circle", "--size", "7x64"), 3, "`--size` (width) is 7, but must be at least 8"),
        (("generate", "a circle", "--size", "999999999x64"), 3, "`--size` (width) is 999999999"),
        (("generate", "a circle", "--size", "70x64"), 3, "`--size` (width) must be a multiple of 8, not 70"),
        (("generate", "a circle", "--size", "64"), 3, "`--size` is '64'; write s, m, l, or WIDTHxHEIGHT"),
        (("generate", "a circle", "--size", "-8x64"), 3, "or WIDTHxHEIGHT"),
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
        (("--config", "none.toml", "models"), 2, "none.toml"),
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
