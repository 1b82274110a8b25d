"""Whole pictures: the same requests to source and export, both through the router that will serve."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export.families import family_of
from export.quiet import quiet
from export.sessions import runtime_for
from router import BackendRouter, GenerateRequest, InstanceConfig, ModelConfig, RawImage, RouterConfig
from router.capabilities import Capabilities
from router.config import Limits
from router.errors import RouterError
from router.manifest import Manifest, PictureParity, ProfileRecord
from router.types import TASKS, Task

SOURCE: Final = "source"
EXPORT: Final = "export"

_PROMPTS: Final = (
    "a photograph of a lighthouse on a cliff above the sea, evening light",
    "a bowl of oranges on a blue table, oil painting",
    "a red fox in deep snow",
    "a street of old houses after rain, watercolour",
)
_SEED: Final = 1000


@dataclass(frozen=True)
class Asked:
    """One request and what tells it from the others."""

    name: str
    profile: str
    request: GenerateRequest


@dataclass(frozen=True)
class Pair:
    """One picture as the source and as the export made it."""

    asked: Asked
    source: RawImage
    export: RawImage

    def parity(self) -> PictureParity:
        levels = differences(self.source, self.export)
        return PictureParity(
            name=self.asked.name,
            profile=self.asked.profile,
            psnr_db=psnr_db(levels),
            largest_difference=int(levels.max()),
        )


def make_pairs(source: Path, folder: Path, manifest: Manifest) -> list[Pair]:
    """Make every picture on both; the export's rows gather, as when it serves.

    Blocks, and must not be called where an event loop runs. Raises `RouterError` for a picture that one of
    them cannot make.
    """
    limits = _limits(manifest)
    origin = InstanceConfig(
        name=SOURCE,
        backend="diffusers",
        source=str(source),
        device="cpu",
        dtype="float32",
        options=_text_length(source, manifest),
    )
    copy = InstanceConfig(
        name=EXPORT,
        backend="onnxruntime",
        source=str(folder),
        device="cpu",
        options={"unverified": True, "runtime": runtime_for(manifest.profiles[0].dtype)},
    )
    try:
        with quiet():
            return asyncio.run(_make_pairs(origin, copy, limits, manifest))
    except* RouterError as exc:
        error = exc.exceptions[0]
    raise error


async def _make_pairs(
    origin: InstanceConfig, copy: InstanceConfig, limits: Limits, manifest: Manifest
) -> list[Pair]:
    """One after the other, so that one model at a time is in memory."""
    async with _router(origin, limits) as router:
        (status,) = await router.probe()
        if status.capabilities is None:
            raise RouterError(status.error)
        asked = requests_for(status.capabilities, manifest)
        sources = await _make_all(router, asked)
    async with _router(copy, limits) as router:
        exports = await _make_all(router, asked)
    return [Pair(*each) for each in zip(asked, sources, exports, strict=True)]


def requests_for(capabilities: Capabilities, manifest: Manifest) -> list[Asked]:
    """Four of unlike tasks, steps and guidance at the first profile, one at each of the others."""
    first, *others = manifest.profiles
    possible = capabilities.tasks if "vae_encoder" in manifest.components else {"text-to-image"}
    usual = next(task for task in TASKS if task in possible)  # some models can only inpaint
    asked = [
        _asked(capabilities, first, 0, steps=4, task=usual),
        _asked(capabilities, first, 1, steps=6, guidance=0.7, task=usual),
        _asked(capabilities, first, 2, steps=5, task="image-to-image"),
        _asked(capabilities, first, 3, steps=5, guidance=0.7, task="inpainting"),
    ]
    plain = [_asked(capabilities, first, index, steps=3 + index, task=usual) for index in range(4)]
    asked = [
        each if each.request.task in possible else other for each, other in zip(asked, plain, strict=True)
    ]
    return asked + [_asked(capabilities, other, 0, steps=4, task=usual) for other in others]


def differences(one: RawImage, other: RawImage) -> NDArray[np.int16]:
    """Of each colour of each pixel, in levels: [height, width, 3]."""
    levels: NDArray[np.int16] = np.abs(as_array(one).astype(np.int16) - as_array(other))
    return levels


def psnr_db(levels: NDArray[np.int16]) -> float | None:
    """10 log10(255^2 / mean square); `None` where nothing differs."""
    mean_square = float(np.mean(levels.astype(np.float64) ** 2))
    return None if mean_square == 0 else 10 * math.log10(255**2 / mean_square)


def as_array(image: RawImage) -> NDArray[np.uint8]:
    """[height, width, 3]."""
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)


def _router(instance: InstanceConfig, limits: Limits) -> BackendRouter:
    model = ModelConfig(name=instance.name, instances=(instance,))
    return BackendRouter(RouterConfig(models=(model,), default_model=model.name, limits=limits))


async def _make_all(router: BackendRouter, asked: Sequence[Asked]) -> list[RawImage]:
    """All at once. The first error stops the others, and is raised when they have ended."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(router.generate(each.request)) for each in asked]
    return [task.result().images[0] for task in tasks]


def _asked(
    capabilities: Capabilities,
    profile: ProfileRecord,
    index: int,
    *,
    steps: int,
    guidance: float = 1.0,
    task: Task,
) -> Asked:
    """`guidance` is a share of the model's own."""
    own = capabilities.defaults.guidance_scale
    scale = None if own is None else round(own * guidance, 2)
    fields: dict[str, Any] = {
        "prompt": _PROMPTS[index],
        "seed": _SEED + index,
        "num_inference_steps": steps,
        "guidance_scale": scale,
    }
    if task == "text-to-image":
        fields |= {"height": profile.height, "width": profile.width}
    else:
        fields |= {"image": _painted(profile.height, profile.width), "strength": 0.7}
    if task == "inpainting":
        fields["mask_image"] = _mask(profile.height, profile.width)
    told = f"{task}, {steps} steps" + (f", guidance {scale:g}" if scale is not None else "")
    return Asked(told, profile.name, GenerateRequest.of(**fields))


def _painted(height: int, width: int) -> RawImage:
    """A sky that darkens upwards over ground, and a sun."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    sky = np.stack([90 + 120 * rows, 140 + 80 * rows, 230 - 60 * rows], axis=-1)
    sun = (rows - 0.25) ** 2 + (columns - 0.6) ** 2 < 0.01
    picture = np.where(sun[..., None], (250, 220, 120), sky)
    picture = np.where((rows > 0.6)[..., None], (70, 110, 60), picture)
    return RawImage(height, width, picture.astype(np.uint8).tobytes())


def _mask(height: int, width: int) -> RawImage:
    """White, which is painted anew, in the middle."""
    mask = np.zeros((height, width, 3), np.uint8)
    mask[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 255
    return RawImage(height, width, mask.tobytes())


def _text_length(source: Path, manifest: Manifest) -> dict[str, int]:
    """T5's padding is no mask: a picture of 256 tokens is another than one of 128."""
    t5_index = family_of(source).t5_index
    return {} if t5_index is None else {"text_length": manifest.profiles[0].text_lengths[t5_index]}


def _limits(manifest: Manifest) -> Limits:
    """Of this router alone: whatever the profiles need."""
    height = max(profile.height for profile in manifest.profiles)
    width = max(profile.width for profile in manifest.profiles)
    return Limits(max_height=height, max_width=width)
