"""`triptych models`: every model there is, where it was found and why, and what its files say of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router.model_facts import facts_of_export, facts_of_model
from router.types import TASKS
from tests.command_line import as_object, configure, triptych
from tests.configurations import make_model
from tests.diffusers_doubles import Lanes, make
from tests.miniatures import FAMILIES, Family, miniature
from tests.single_files import single_file

SHIPPED = Path(__file__).parent.parent / "backends" / "shapes_model"


@pytest.fixture
def empty(folder: Path) -> Path:
    """A working folder without a configuration."""
    (folder / "triptych.toml").unlink()
    return folder


def listed() -> dict[str, Any]:
    result = triptych("models", "--json")
    assert result.exit_code == 0
    return as_object(result)


def entries() -> list[dict[str, Any]]:
    return [entry for model in listed()["models"] for entry in model["entries"]]


def test_with_nothing_there_the_shipped_model_is_listed(empty: Path) -> None:
    said = listed()
    (model,) = said["models"]
    assert (said["default_model"], model["name"], model["licence"]) == ("shapes", "shapes", "Apache-2.0")
    assert model["origin"] == "the shipped model, as none is named and no folder of one is here"
    (entry,) = model["entries"]
    facts = entry["facts"]
    assert (facts["family"], facts["height"], facts["width"]) == ("stable-diffusion", 128, 128)
    assert facts["tasks"] == ["text-to-image", "image-to-image", "inpainting"]
    on_disk = sum(file.stat().st_size for file in SHIPPED.glob("*/*.safetensors"))
    assert on_disk - 100_000 < facts["weights_bytes"] < on_disk, "all but the headers"
    assert said["passed_over"] == []


def test_the_table_tells_it_all(empty: Path) -> None:
    result = triptych("models")
    assert result.exit_code == 0
    line = next(line for line in result.stdout.splitlines() if "shapes/diffusers" in line)
    for words in ("shapes (default)", "shipped:shapes", "stable-diffusion; text-to-image", "Apache-2.0"):
        assert words in line
    assert "128x128" in result.stdout
    assert "Found, and not served" not in result.stdout


def test_models_that_are_there_and_not_reached_are_told(folder: Path) -> None:
    make_model(folder / "model")
    said = listed()
    assert [model["name"] for model in said["models"]] == ["demo"]
    assert [each["source"] for each in said["passed_over"]] == [str(folder / "model"), "shipped:shapes"]
    assert all("another comes first: `[models.demo]` of" in each["why"] for each in said["passed_over"])
    assert "Found, and not served" in triptych("models").stdout


def test_of_two_local_folders_the_first_serves_and_the_other_is_told(empty: Path) -> None:
    make_model(empty)
    make_model(empty / "model")
    said = listed()
    assert [model["entries"][0]["source"] for model in said["models"]] == [str(empty / "model")]
    assert [each["source"] for each in said["passed_over"]] == [str(empty), "shipped:shapes"]


def test_what_only_a_backend_knows_is_said(folder: Path) -> None:
    configure(
        folder,
        '[[models.demo.instances]]\nbackend = "fake"\n'
        '[[models.demo.instances]]\nbackend = "diffusers"\nsource = "someone/painting"\n',
    )
    fake, hub = entries()
    assert fake["note"] == "known to its backend alone; `triptych backends` asks fake"
    assert hub["note"] == "a hub id: fetched, and known, at the first probe"
    assert fake["facts"] is hub["facts"] is fake["error"] is hub["error"] is None


@pytest.mark.parametrize(
    ("instance", "says"),
    [
        ('source = "./gone"', "there is no model at"),
        ('source = ""', "`source` is missing"),
        ('source = "./broken"', "lacks the folder 'vae' that its model_index.json names; copy it again"),
        ('source = "./no.safetensors"', "'no.safetensors' is cut short; copy it again"),
        ('source = "./lora.ckpt"', "is a pickle, which can run code"),
        ('source = "./broken"\noptions = { config = "x" }', "option `config` is for single files"),
        (
            'source = "./no.safetensors"\noptions = { config = 3 }',
            "option `config` is 3; it must be a path",
        ),
    ],
)
def test_a_bad_entry_is_listed_with_its_sentence(folder: Path, instance: str, says: str) -> None:
    shutil.copytree(SHIPPED, folder / "broken")
    shutil.rmtree(folder / "broken" / "vae")
    (folder / "no.safetensors").write_bytes(b"")
    (folder / "lora.ckpt").write_bytes(b"")
    text = f'[[models.bad.instances]]\nbackend = "diffusers"\n{instance}\n'
    configure(folder, text + '[[models.good.instances]]\nbackend = "diffusers"\nsource = "shipped:shapes"\n')
    bad, good = entries()
    assert says in bad["error"]
    assert good["facts"]["family"] == "stable-diffusion"
    result = triptych("models")
    assert result.exit_code == 0
    assert "good/diffusers" in result.stdout


CARDS = {
    "card": "---\nlicense: mit\n---\n# A model",
    "own": "---\ntags: [a]\nlicense: other\nlicense_name: 'x-1'\n---\n",
    "none": "license: no front matter",
}


def test_the_licence_is_that_of_the_table_the_card_or_the_file(folder: Path, miniatures: Path) -> None:
    single = Path(shutil.copytree(single_file("sd15", miniatures).parent, folder / "single"))
    _with_metadata(single / "tiny.safetensors", {"modelspec.license": "CreativeML Open RAIL-M"})
    for name, card in CARDS.items():
        shutil.copytree(SHIPPED, folder / name)
        (folder / name / "README.md").write_text(card)
    shutil.copytree(SHIPPED, folder / "text", ignore=shutil.ignore_patterns("README.md"))
    (folder / "text" / "LICENSE.md").write_text("read me")
    sources = {name: f"./{name}" for name in (*CARDS, "text")}
    sources |= {"single": "./single/tiny.safetensors", "table": "./card"}
    tables = [
        f'[[models.{name}.instances]]\nbackend = "diffusers"\nsource = "{source}"\n'
        for name, source in sources.items()
    ]
    configure(folder, "\n".join(tables) + '[models.table]\nlicence = "ours"\n')
    assert {model["name"]: model["licence"] for model in listed()["models"]} == {
        "card": "mit",
        "own": "x-1",
        "none": "",
        "text": "see LICENSE.md",
        "single": "CreativeML Open RAIL-M",
        "table": "ours",
    }


def _with_metadata(file: Path, metadata: dict[str, str]) -> None:
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]) | {"__metadata__": metadata}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_what_is_listed_is_what_the_backend_finds(
    family: Family, kind: str, miniatures: Path, lanes: Lanes
) -> None:
    make_it = miniature if kind == "folder" else single_file
    place = await asyncio.to_thread(make_it, family, miniatures)
    found = await make(lanes, place).probe()
    facts = await asyncio.to_thread(facts_of_model, place, "miniature")
    assert (facts.family, facts.pipeline, set(facts.tasks)) == (
        found.family,
        found.pipeline,
        set(found.tasks),
    )
    assert (facts.height, facts.width) == (found.defaults.height, found.defaults.width)
    assert facts.size_multiple == found.size_multiple
    assert facts.weights_bytes == found.footprint.weights_bytes, "all is float32 here"


def test_exports_are_listed_with_their_sizes(folder: Path, exports: Any) -> None:
    export = exports("sd15")
    configure(folder, f'[[models.m.instances]]\nbackend = "onnxruntime"\nsource = "{export}"\n')
    (entry,) = entries()
    facts = entry["facts"]
    assert facts["sizes"] == [[64, 64]]
    assert facts["size_multiple"] is None
    graphs = [file for file in Path(export).glob("*/*") if ".onnx" in file.name]
    assert facts["weights_bytes"] == sum(file.stat().st_size for file in graphs)
    copied = Path(shutil.copytree(export, folder / "copy"))
    (copied / "unet" / "model.onnx").write_bytes(b"")
    configure(folder, '[[models.m.instances]]\nbackend = "onnxruntime"\nsource = "./copy"\n')
    assert "`unet/model.onnx` has 0 bytes instead of" in entries()[0]["error"]


def test_an_export_of_optimum_is_listed_without_a_manifest(folder: Path, exports: Any) -> None:
    copied = Path(shutil.copytree(exports("sd15"), folder / "export"))
    (copied / "manifest.json").unlink()
    assert facts_of_export(copied, "m").tasks == TASKS
    shutil.rmtree(copied / "vae_encoder")
    facts = facts_of_export(copied, "m")
    assert (facts.tasks, facts.sizes, facts.size_multiple) == (("text-to-image",), (), 8)
    assert facts.notes == ("no manifest.json: nothing has checked this export",)


def test_tasks_follow_from_what_the_denoiser_takes_and_the_pipeline_is(folder: Path) -> None:
    for name in ("inpainting", "unknown"):
        shutil.copytree(SHIPPED, folder / name)
    _change(folder / "inpainting" / "unet" / "config.json", in_channels=9)
    _change(folder / "unknown" / "model_index.json", _class_name="PixArtSigmaPipeline")
    assert facts_of_model(folder / "inpainting", "m").tasks == ("inpainting",)
    facts = facts_of_model(folder / "unknown", "m")
    assert (facts.family, facts.tasks) == ("PixArtSigmaPipeline", ())


def _change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def test_what_is_no_export_is_listed_with_its_sentence(folder: Path) -> None:
    shutil.copytree(SHIPPED, folder / "plain")
    start = '[[models.m.instances]]\nbackend = "onnxruntime"\nsource = '
    configure(folder, f'{start}"./plain"\n{start}"./gone"\n')
    plain, gone = entries()
    assert "lacks vae_decoder/config.json" in plain["error"]
    assert "there is no export at" in gone["error"]


def test_no_library_is_loaded(empty: Path) -> None:
    heavy = ["torch", "numpy", "PIL", "diffusers", "transformers", "onnxruntime", "safetensors"]
    code = (
        "import sys; sys.argv = ['triptych', 'models', '--json'];"
        "from router.cli import app; app(standalone_mode=False);"
        f"print(sorted(set({heavy!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["default_model"] == "shapes"
    assert done.stderr.strip() == "[]"


def test_a_model_that_is_a_checkpoint_is_listed_and_serves(
    empty: Path, miniatures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = single_file("sd15", miniatures)
    monkeypatch.setenv("TRIPTYCH_MODEL", str(file))
    (entry,) = entries()
    assert entry["name"] == "tiny/diffusers"
    assert entry["facts"]["notes"] == ["Stable Diffusion 1.5 from one file"]
    monkeypatch.setenv("TRIPTYCH_DEVICE", "cpu")
    result = triptych("generate", "a circle", "--size", "64x64", "--steps", "2", "-o", "out.png")
    assert result.exit_code == 0, result.output
    assert (empty / "out.png").exists()
