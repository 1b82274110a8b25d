"""The Diffusers backend beyond the picture: what it can do, what it refuses, what happens on faults."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload_with_hook

from backends._gather import Gathering
from backends.diffusers import DiffusersBackend
from router.call import Call
from router.capabilities import Capabilities
from router.config import InstanceConfig
from router.errors import (
    ConfigError,
    DeviceLostError,
    GenerateError,
    InvalidRequestError,
    LoadError,
    MemoryBudgetError,
)
from router.lane import Lane
from router.request import GenerateRequest
from router.types import Generated
from tests.miniatures import Family, miniature

Lanes = Callable[[str], Lane]


def make(lanes: Lanes, source: Path | str, **fields: Any) -> DiffusersBackend:
    fields = {"device": "cpu", **fields}
    instance = InstanceConfig(name="miniature", backend="diffusers", source=str(source), **fields)
    return DiffusersBackend(instance, lanes)


async def loaded(lanes: Lanes, source: Path | str, **fields: Any) -> DiffusersBackend:
    backend = make(lanes, source, **fields)
    await backend.probe()
    await backend.load()
    return backend


def request(**fields: Any) -> GenerateRequest:
    defaults = {"prompt": "a red circle", "height": 64, "width": 64, "num_inference_steps": 4, "seed": 1}
    return GenerateRequest.of(**{**defaults, "guidance_scale": 3.0, **fields})


def generate(backend: DiffusersBackend, **fields: Any) -> asyncio.Future[Generated]:
    return asyncio.ensure_future(backend.generate(request(**fields), lambda event: None, None))


@pytest.fixture
def folder(miniatures: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(miniature("sd15", miniatures), tmp_path / "model"))


# What it says of itself.


@pytest.mark.parametrize(
    ("family", "name", "multiple", "size", "steps", "guidance"),
    [
        ("sd15", "stable-diffusion", 8, 64, 50, 7.5),
        ("sdxl", "stable-diffusion-xl", 8, 64, 50, 5.0),
        ("sd3", "stable-diffusion-3", 16, 64, 28, 7.0),
        ("flux", "flux", 16, 1024, 28, 3.5),
    ],
)
async def test_capabilities_come_from_the_models_own_configuration(
    family: Family,
    name: str,
    multiple: int,
    size: int,
    steps: int,
    guidance: float,
    miniatures: Path,
    lanes: Lanes,
) -> None:
    found = await make(lanes, miniature(family, miniatures)).probe()
    assert (found.family, found.size_multiple, found.dtype, found.device) == (
        name,
        multiple,
        "float32",
        "cpu",
    )
    assert found.tasks == {"text-to-image", "image-to-image", "inpainting"}
    assert (found.defaults.height, found.defaults.width) == (size, size)
    assert (found.defaults.num_inference_steps, found.defaults.guidance_scale) == (steps, guidance)
    assert found.true_cfg is (family == "flux")


async def test_a_flux_without_guidance_embedding_refuses_guidance(miniatures: Path, lanes: Lanes) -> None:
    found = await make(lanes, miniature("flux", miniatures, guidance_embeds=False)).probe()
    assert found.defaults.guidance_scale is None
    assert "`guidance_scale` has no effect" in (found.why_not(request()) or "")


async def test_weights_are_counted_from_the_headers_without_loading(folder: Path, lanes: Lanes) -> None:
    found = await make(lanes, folder).probe()
    backend = await loaded(lanes, folder)
    parts = backend._pipelines["text-to-image"].components.values()
    real = sum(
        p.numel() * 4 for part in parts if isinstance(part, torch.nn.Module) for p in part.parameters()
    )
    assert found.footprint.weights_bytes == pytest.approx(real, rel=0.01)


async def test_half_the_dtype_is_half_the_bytes(folder: Path, lanes: Lanes) -> None:
    whole, half = [
        (await make(lanes, folder, dtype=dtype).probe()).footprint for dtype in ("float32", "bfloat16")
    ]
    assert half.weights_bytes * 2 == whole.weights_bytes


async def test_bfloat16_starts_from_the_same_noise(folder: Path, lanes: Lanes) -> None:
    """Pictures of two dtypes are of the same thing: torch draws in float32 and then casts."""
    drawn = [
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype).to(torch.float16)
        for dtype in (torch.float32, torch.float16)
    ]
    assert torch.equal(*drawn)
    made = []
    for dtype in ("float32", "bfloat16"):
        generated = await generate(await loaded(lanes, folder, dtype=dtype))
        assert generated.pictures[0].image is not None
        made.append(
            torch.frombuffer(bytearray(generated.pictures[0].image.pixels), dtype=torch.uint8).float()
        )
    assert (made[0] - made[1]).abs().mean() < 4


async def test_two_lanes_on_one_cpu_make_the_same_picture(folder: Path, lanes: Lanes) -> None:
    first, second = [await loaded(lanes, folder, device=device) for device in ("cpu:0", "cpu:1")]
    assert first.lane is not second.lane
    made = await asyncio.gather(generate(first), generate(second))
    assert made[0].pictures[0].image == made[1].pictures[0].image


# What it refuses.


async def refusal(backend: DiffusersBackend) -> str:
    with pytest.raises(LoadError) as caught:
        await backend.probe()
    return str(caught.value)


async def test_a_folder_that_is_not_there(tmp_path: Path, lanes: Lanes) -> None:
    said = await refusal(make(lanes, tmp_path / "nothing"))
    assert said == "miniature: there is no model folder 'nothing'; correct `source`."


async def test_a_hub_id_that_cannot_be_fetched(lanes: Lanes) -> None:
    said = await refusal(make(lanes, "nobody/nothing"))
    assert "the hub gave no model 'nobody/nothing'" in said
    assert "name a local folder" in said


async def test_a_folder_without_index(tmp_path: Path, lanes: Lanes) -> None:
    assert "lacks model_index.json" in await refusal(make(lanes, tmp_path))


async def test_a_half_copied_folder(folder: Path, lanes: Lanes) -> None:
    shutil.rmtree(folder / "vae")
    assert "lacks the folder 'vae'" in await refusal(make(lanes, folder))


async def test_a_component_without_weights(folder: Path, lanes: Lanes) -> None:
    next((folder / "unet").glob("*.safetensors")).unlink()
    assert "has no safetensors file in 'unet'; copy it again" in await refusal(make(lanes, folder))


async def test_pickled_weights(folder: Path, lanes: Lanes) -> None:
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    said = await refusal(make(lanes, folder))
    assert "pickled weights in 'unet', which can run code" in said
    assert "convert them to safetensors" in said


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
async def test_a_file_cut_short(folder: Path, lanes: Lanes, keep: int) -> None:
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "copy it again" in await refusal(make(lanes, folder))


async def test_a_header_that_claims_gigabytes(folder: Path, lanes: Lanes) -> None:
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.write_bytes((2**40).to_bytes(8, "little") + weights.read_bytes()[8:])
    assert "damaged file" in await refusal(make(lanes, folder))


async def test_a_shard_that_its_index_names_and_the_folder_lacks(folder: Path, lanes: Lanes) -> None:
    index = {"weight_map": {"conv_in.weight": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert "-00002-of-00002.safetensors' in 'unet'" in await refusal(make(lanes, folder))


async def test_an_unknown_pipeline_class(folder: Path, lanes: Lanes) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "HomeMadePipeline"}))
    assert "pipeline class 'HomeMadePipeline'" in await refusal(make(lanes, folder))


async def test_weights_that_do_not_fit_their_configuration(folder: Path, lanes: Lanes) -> None:
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps({**config, "latent_channels": 9}))
    backend = make(lanes, folder)
    await backend.probe()
    with pytest.raises(LoadError, match="could not load its model"):
        await backend.load()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"device": "cuda:7"}, "`device` is 'cuda:7', which this machine has not"),
        ({"device": "toaster"}, "`device` is 'toaster'; use"),
        ({"dtype": "float64"}, "`dtype` is 'float64'; use"),
        ({"dtype": "float16"}, "float16 does not run on a CPU"),
        ({"options": {"offload": "model"}}, "option `offload` is 'model', but `device` is the CPU"),
        ({"options": {"offload": "sometimes"}}, "option `offload` is 'sometimes'"),
        ({"options": {"vae_tilling": True}}, "Did you mean `vae_tiling`?"),
        ({"options": {"compile": True, "offload": "model"}, "device": "auto"}, "do not go together"),
    ],
)
async def test_settings_that_this_machine_has_not(
    folder: Path, lanes: Lanes, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        await make(lanes, folder, **fields).probe()
    assert says in str(caught.value)


async def test_an_attention_back_end_that_is_not_there(folder: Path, lanes: Lanes) -> None:
    backend = make(lanes, folder, options={"attention": "flash"})
    await backend.probe()
    with pytest.raises(
        ConfigError, match="option `attention` is 'flash', which this model or machine has not"
    ):
        await backend.load()


@pytest.mark.parametrize(
    "options",
    [{"attention": "slicing"}, {"attention": "native"}, {"vae_tiling": True}, {"vae_slicing": True}],
)
async def test_settings_that_save_memory_change_nothing_visible(
    folder: Path, lanes: Lanes, options: dict[str, Any]
) -> None:
    plain = await generate(await loaded(lanes, folder))
    saving = await generate(await loaded(lanes, folder, options=options))
    first, second = (
        torch.frombuffer(bytearray(g.pictures[0].image.pixels), dtype=torch.uint8).int()
        for g in (plain, saving)
    )  # type: ignore[union-attr]
    assert (first - second).abs().max() <= 1


async def test_a_prompt_beyond_the_text_window_is_refused_with_its_length(folder: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, folder)
    for field in ("prompt", "negative_prompt"):
        with pytest.raises(
            InvalidRequestError, match=rf"`{field}` has \d+ tokens .* the model reads 77"
        ) as caught:
            await generate(backend, **{field: "circle " * 90})
        assert caught.value.param == field


async def test_t5_reads_longer_prompts(miniatures: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, miniature("flux", miniatures))
    assert (await generate(backend, prompt="circle " * 80)).pictures[0].image


# What happens when things fail.


class Broken(Gathering):
    """The denoiser with a fault: `fault(rows)` may raise."""

    fault: Callable[[int], None] = staticmethod(lambda rows: None)
    runs: list[int]

    def __call__(self, calls: Sequence[Call]) -> Sequence[Any]:
        rows = sum(call.rows for call in calls)
        self.runs = [*getattr(self, "runs", []), rows]
        type(self).fault(rows)
        return super().__call__(calls)


@pytest.fixture
async def broken(folder: Path, lanes: Lanes) -> tuple[DiffusersBackend, type[Broken]]:
    backend = await loaded(lanes, folder)
    kind = type("ThisBroken", (Broken,), {})
    backend._gatherings["unet"].__class__ = kind
    return backend, kind


def runs_of(backend: DiffusersBackend) -> list[int]:
    return list(getattr(backend._gatherings["unet"], "runs", []))


async def test_out_of_memory_in_a_joined_run_is_halved_and_all_are_served(broken: Any) -> None:
    backend, kind = broken

    def too_many(rows: int) -> None:
        if rows > 4:
            raise MemoryError

    kind.fault = staticmethod(too_many)
    made = await asyncio.gather(*(generate(backend, seed=i) for i in range(6)))
    assert all(generated.pictures[0].image for generated in made)
    assert max(runs_of(backend)) > 4
    kind.fault = staticmethod(lambda rows: None)


async def test_out_of_memory_alone_is_a_sentence_and_the_next_request_is_served(broken: Any) -> None:
    backend, kind = broken

    def always(rows: int) -> None:
        raise MemoryError

    kind.fault = staticmethod(always)
    with pytest.raises(MemoryBudgetError, match="ask for a smaller picture"):
        await generate(backend)
    kind.fault = staticmethod(lambda rows: None)
    assert (await generate(backend)).pictures[0].image


async def test_a_failing_library_becomes_our_error_with_its_cause(broken: Any) -> None:
    backend, kind = broken

    def wrong(rows: int) -> None:
        raise ValueError("secret path")

    kind.fault = staticmethod(wrong)
    with pytest.raises(GenerateError, match="miniature failed with ValueError") as caught:
        await generate(backend)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "secret" not in str(caught.value)
    assert caught.value.instance == "miniature"


async def test_one_picture_that_fails_does_not_lose_the_others(broken: Any) -> None:
    backend, kind = broken

    def second_alone(rows: int) -> None:
        if rows > 2:
            raise ValueError
        failures.append(rows)
        if len(failures) == 2:
            raise ValueError

    failures: list[int] = []
    kind.fault = staticmethod(second_alone)
    made = await generate(backend, num_images_per_prompt=3)
    assert [picture.error is None for picture in made.pictures] == [True, False, True]
    assert made.pictures[1].image is None


async def test_a_lost_device_refuses_what_comes(broken: Any) -> None:
    backend, kind = broken

    def poisoned(rows: int) -> None:
        raise DeviceLostError("The device failed; restart the process.")

    kind.fault = staticmethod(poisoned)
    with pytest.raises(DeviceLostError):
        await generate(backend)
    with pytest.raises(DeviceLostError, match="restart the process"):
        await generate(backend)


async def test_cancelling_stops_within_a_step_and_the_next_request_is_served(broken: Any) -> None:
    backend, _ = broken
    seen: list[Any] = []
    running = asyncio.ensure_future(backend.generate(request(num_inference_steps=900), seen.append, None))
    async with asyncio.timeout(20):
        while len(seen) < 3:  # noqa: ASYNC110 -- what is waited for happens on a thread
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    steps = len(runs_of(backend))
    assert steps < 900
    assert (await generate(backend)).pictures[0].image
    assert len(runs_of(backend)) == steps + 4


async def test_offloaded_modules_serve_one_task_at_a_time(folder: Path, lanes: Lanes) -> None:
    """With accelerate's hooks in place, as `offload` sets them on an accelerator."""

    class Offloaded(DiffusersBackend):
        def place(self, pipeline: Any) -> None:
            super().place(pipeline)
            self.one_at_a_time = True
            cpu_offload_with_hook(pipeline.unet, execution_device="cpu")

    plain = await generate(await loaded(lanes, folder))
    backend = Offloaded(InstanceConfig(name="offloaded", backend="diffusers", source=str(folder)), lanes)
    await backend.probe()
    await backend.load()
    before = backend.lane.statistics()
    made = await asyncio.gather(*(generate(backend, seed=1 + i) for i in range(3)))
    after = backend.lane.statistics()
    assert made[0].pictures[0].image == plain.pictures[0].image
    assert all(generated.ticks == made[0].ticks for generated in made)
    assert after.ticks - before.ticks == sum(generated.ticks for generated in made)


async def test_unloading_lets_the_modules_go_and_loading_brings_them_back(folder: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, folder)
    first = await generate(backend)
    await backend.unload()
    assert not backend._pipelines
    await backend.load()
    assert (await generate(backend)).pictures[0].image == first.pictures[0].image


async def test_a_picture_withheld_by_the_safety_checker_is_an_error(folder: Path, lanes: Lanes) -> None:
    backend = await loaded(lanes, folder)
    shared = backend._pipelines["text-to-image"]
    shared.run_safety_checker = lambda image, device, dtype: (image, [True] * len(image))
    with pytest.raises(InvalidRequestError, match="safety checker withheld"):
        await generate(backend)


async def test_why_not_names_the_sizes_near(folder: Path, lanes: Lanes) -> None:
    found: Capabilities = await make(lanes, folder).probe()
    said = found.why_not(request(width=68)) or ""
    assert "`width` must be a multiple of 8" in said
    assert "64" in said
    assert "72" in said
