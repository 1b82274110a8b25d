"""LoRAs in a loaded instance: bounded, let go when nobody uses them, whole or not there at all."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from backends import _adapters
from backends.diffusers import DiffusersBackend
from router.config import InstanceConfig
from router.errors import InvalidRequestError, MemoryBudgetError
from router.lane import Lane
from router.request import GenerateRequest
from router.types import Generated
from tests.loras import RANK, save_lora
from tests.miniatures import SIDE, miniature
from tests.plain_pipelines import pixels

Lanes = Callable[[str], Lane]


def instance(miniatures: Path, loras: Path, **options: Any) -> InstanceConfig:
    return InstanceConfig(
        name="miniature",
        backend="diffusers",
        source=str(miniature("sd15", miniatures)),
        device="cpu",
        lora_folders=(str(loras),),
        options=options,
    )


async def loaded(config: InstanceConfig, lanes: Lanes) -> DiffusersBackend:
    backend = DiffusersBackend(config, lanes)
    await backend.probe()
    await backend.load()
    return backend


def generate(backend: DiffusersBackend, *loras: str, **fields: Any) -> asyncio.Task[Generated]:
    given = {"prompt": "a circle", "height": SIDE, "width": SIDE, "num_inference_steps": 2, "seed": 1}
    asked = [{"name": name} for name in loras]
    request = GenerateRequest.of(**{**given, "guidance_scale": 1.0, "loras": asked, **fields})
    return asyncio.create_task(backend.generate(request, lambda event: None, None))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, miniatures: Path) -> Path:
    folder = tmp_path_factory.mktemp("four")
    for seed, name in enumerate(("a", "b", "c", "d")):
        save_lora(folder, name, "sd15", miniatures, seed=seed, text=False)
    return folder


async def test_the_least_recently_used_makes_room(four: Path, miniatures: Path, lanes: Lanes) -> None:
    backend = await loaded(instance(miniatures, four, loaded_loras=2), lanes)
    for name in ("a", "b", "a", "c"):
        await generate(backend, name)
    statistics = backend.adapters.statistics()
    assert statistics.loaded == ("a", "c")
    assert (statistics.loads, statistics.unloads) == (3, 1)
    weights = load_file(four / "a.safetensors").values()
    assert statistics.size_bytes == 2 * sum(weight.nbytes for weight in weights)
    facts = (await backend.probe()).loras.facts[0]
    assert facts.parameters == sum(weight.numel() for weight in weights)


async def test_one_in_use_stays_and_who_needs_its_place_waits(
    four: Path, miniatures: Path, lanes: Lanes
) -> None:
    backend = await loaded(instance(miniatures, four, loaded_loras=1), lanes)
    first = generate(backend, "a", num_inference_steps=8)
    others = [generate(backend, name) for name in ("b", "c", "a")]
    plain = generate(backend)
    made = await asyncio.gather(first, *others, plain)
    assert all(each.pictures[0].image for each in made)
    assert len(backend.adapters.statistics().loaded) == 1
    assert backend.adapters.statistics().unloads == 3


async def test_a_cancelled_wait_leaves_its_place_to_the_next(
    four: Path, miniatures: Path, lanes: Lanes
) -> None:
    backend = await loaded(instance(miniatures, four, loaded_loras=1), lanes)
    async with backend.adapters.held((("a", 1.0),)):
        given_up = generate(backend, "b")
        assert (await generate(backend)).pictures[0].image, "who asks for none does not wait"
        assert not given_up.done()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        patient = generate(backend, "c")
        await asyncio.sleep(0)
    await patient
    assert backend.adapters.statistics().loaded == ("c",)


async def test_a_picture_is_the_same_after_its_lora_was_let_go_and_loaded_again(
    four: Path, miniatures: Path, lanes: Lanes
) -> None:
    backend = await loaded(instance(miniatures, four, loaded_loras=1), lanes)
    before, without = await generate(backend, "a"), await generate(backend)
    await generate(backend, "b")
    again, still = await generate(backend, "a"), await generate(backend)
    assert before.pictures[0].image == again.pictures[0].image
    assert without.pictures[0].image == still.pictures[0].image != before.pictures[0].image


async def test_nothing_of_a_lora_outlives_its_instance(four: Path, miniatures: Path, lanes: Lanes) -> None:
    backend = await loaded(instance(miniatures, four), lanes)
    first = await generate(backend, "a")
    modules = [weakref.ref(module) for module in backend._pipelines["text-to-image"].unet.modules()]
    await backend.unload()
    gc.collect()
    assert not any(module() for module in modules)
    await backend.load()
    assert backend.adapters.statistics().loaded == ()
    assert (await generate(backend, "a")).pictures[0].image == first.pictures[0].image


async def test_a_bare_file_of_the_denoiser_keeps_its_alpha(
    miniatures: Path, lanes: Lanes, tmp_path: Path
) -> None:
    """As `save_lora_adapter` of a UNet writes it: no name of a component before its layers."""
    pipeline = DiffusionPipeline.from_pretrained(miniature("sd15", miniatures), use_safetensors=True)
    config = LoraConfig(r=RANK, lora_alpha=12, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipeline.unet.add_adapter(config, adapter_name="x")
    pipeline.unet.save_lora_adapter(tmp_path, adapter_name="x", weight_name="bare.safetensors")
    backend = await loaded(instance(miniatures, tmp_path), lanes)
    made = await generate(backend, "bare", reproducible=True)
    pipeline.set_progress_bar_config(disable=True)
    plain = pipeline(
        prompt="a circle",
        height=SIDE,
        width=SIDE,
        num_inference_steps=2,
        guidance_scale=1.0,
        generator=torch.Generator("cpu").manual_seed(1),
    )
    assert pixels(made.pictures[0].image).tobytes() == plain.images[0].tobytes()


async def test_a_file_that_changed_since_the_probe_is_refused_and_changes_nothing(
    four: Path, miniatures: Path, lanes: Lanes, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(four, tmp_path / "loras"))
    backend = await loaded(instance(miniatures, folder), lanes)
    before = await generate(backend)
    tensors = load_file(folder / "a.safetensors")
    kept = dict(list(tensors.items())[2:])
    strange = {name.replace(".to_q.", ".to_nothing."): tensor for name, tensor in tensors.items()}
    for changed, sentence in (
        (None, "is no longer in its folder"),
        (b"short", "is cut short"),
        (strange, "matrices for the unet|could not be loaded"),
    ):
        (folder / "a.safetensors").unlink(missing_ok=True)
        if isinstance(changed, bytes):
            (folder / "a.safetensors").write_bytes(changed)
        elif changed is not None:
            save_file(changed, folder / "a.safetensors")
        with pytest.raises(InvalidRequestError, match=sentence) as refused:
            await generate(backend, "a")
        assert refused.value.param == "loras"
    assert not backend.adapters.statistics().loaded
    assert (await generate(backend)).pictures[0].image == before.pictures[0].image
    save_file(kept, folder / "a.safetensors")
    assert (await generate(backend, "a")).pictures[0].image


async def test_want_of_memory_is_no_fault_of_the_request(
    four: Path, miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = await loaded(instance(miniatures, four), lanes)
    inject = _adapters.inject

    def full(*arguments: Any) -> None:
        inject(*arguments)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(_adapters, "inject", full)
    with pytest.raises(MemoryBudgetError, match="too little device memory to load LoRA 'a'"):
        await generate(backend, "a")
    assert not backend.adapters.statistics().loaded
    monkeypatch.undo()
    assert (await generate(backend, "a")).pictures[0].image


async def test_memory_is_kept_for_as_many_as_are_held(four: Path, miniatures: Path, lanes: Lanes) -> None:
    config = instance(miniatures, four, loaded_loras=3)
    with_loras = await DiffusersBackend(config, lanes).probe()
    without = await DiffusersBackend(config.model_copy(update={"lora_folders": ()}), lanes).probe()
    kept = with_loras.footprint.weights_bytes - without.footprint.weights_bytes
    assert kept == 3 * 4 * with_loras.loras.facts[0].parameters
    assert any(note.startswith("4 LoRAs, 3 held at once") for note in with_loras.notes)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"compile": True}, "its option `compile` changes the layers"),
        ({"fuse_qkv": True}, "its option `fuse_qkv` changes the layers"),
    ],
)
async def test_instances_that_cannot_switch_say_so(
    options: dict[str, Any], sentence: str, four: Path, miniatures: Path, lanes: Lanes
) -> None:
    found = await DiffusersBackend(instance(miniatures, four, **options), lanes).probe()
    assert sentence in (found.why_not(_effective("a")) or "")
    assert found.why_not(_effective()) is None


async def test_a_missing_peft_is_said_with_its_cure(
    four: Path, miniatures: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a)
    )
    found = await DiffusersBackend(instance(miniatures, four), lanes).probe()
    assert "pip install 'triptych[lora]'" in (found.why_not(_effective("a")) or "")


def _effective(*loras: str) -> GenerateRequest:
    asked = [{"name": name} for name in loras]
    sizes = {"height": SIDE, "width": SIDE, "num_inference_steps": 2, "guidance_scale": 1.0, "seed": 1}
    return GenerateRequest.of(prompt="x", loras=asked, **sizes)
