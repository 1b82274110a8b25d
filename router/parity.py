"""Parity: the same requests on every instance of a model, and how far its pictures are from the first's."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import sub
from typing import Any, Final

from router.capabilities import Capabilities
from router.config import Limits, ModelConfig, RouterConfig
from router.contact_sheet import contact_sheet
from router.errors import RouterError
from router.request import GenerateRequest
from router.router import BackendRouter
from router.routing import nearest_size
from router.types import RawImage

MIN_PSNR_DB: Final[Mapping[str, float]] = {"float32": 60.0, "float16": 45.0, "bfloat16": 32.0}
"""Least peak signal-to-noise ratio of a picture in 8 bits beside the same picture of another instance, by
the coarser dtype of the two. The gate of exports holds to the same; `export/tolerances.py` says why."""

PROMPTS: Final = (
    "a red circle on a white background",
    "a large blue star on a yellow background",
    "a green triangle on a black background",
    "a purple heart on a gray background",
)
_STEPS, _GUIDANCE = (4, 8, 6, 12), (5.0, 1.0, 7.5, 3.0, 2.0)
_BRIGHTEST_DIFFERENCE = 255


@dataclass(frozen=True)
class Side:
    """One instance's pictures of the requests, or why it has none."""

    instance: str
    dtype: str = ""
    pictures: tuple[RawImage, ...] = ()
    seconds: float = 0.0
    """For all of them together, without the load."""
    error: RouterError | None = None


@dataclass(frozen=True)
class Comparison:
    """One instance beside the first that made pictures."""

    side: Side
    psnr_db: float
    """Of the worst picture; infinite where all are equal."""
    largest: int
    """The largest difference of a colour of a pixel, 0 to 255."""
    min_psnr_db: float

    @property
    def holds(self) -> bool:
        return self.psnr_db >= self.min_psnr_db


async def sides_of(config: RouterConfig, model: ModelConfig, count: int) -> list[Side]:
    """The same `count` requests on each instance, one instance at a time, all its requests at once."""
    async with BackendRouter(_only(config, model)) as router:
        known = [status.capabilities for status in await router.probe() if status.capabilities is not None]
    fixed = [capabilities for capabilities in known if capabilities.fixed_shape]
    asked = [requests(each, config.limits, count) for each in [*fixed, *known][:1]]
    sides = []
    for instance in model.instances:
        alone = model.model_copy(update={"instances": (instance,)})
        async with BackendRouter(_only(config, alone)) as router:
            sides.append(await _side(router, instance.name, *asked))
    return sides


def _only(config: RouterConfig, model: ModelConfig) -> RouterConfig:
    return config.model_copy(update={"models": (model,), "default_model": model.name})


async def _side(router: BackendRouter, name: str, asked: Sequence[GenerateRequest] = ()) -> Side:
    try:
        await router.load()  # what a probe or a load raised is what is said, and no load is timed
        started = time.monotonic()
        results = await asyncio.gather(*map(router.generate, asked))
    except RouterError as exc:
        return Side(name, error=exc)
    (status,) = router.instances()
    dtype = status.capabilities.dtype if status.capabilities else ""
    pictures = tuple(result.images[0] for result in results)
    return Side(name, dtype, pictures, time.monotonic() - started)


def requests(capabilities: Capabilities, limits: Limits, count: int) -> list[GenerateRequest]:
    """At the instance's own size; 4 to 12 steps, guidance 1 to 7.5, and prompts and seeds that differ too."""
    defaults = capabilities.defaults
    height, width = nearest_size(capabilities, limits, defaults.height, defaults.width)
    return [
        GenerateRequest.of(
            prompt=PROMPTS[index % len(PROMPTS)],
            seed=index,
            height=height,
            width=width,
            num_inference_steps=min(_STEPS[index % len(_STEPS)], limits.max_steps),
            **_guidance(capabilities, limits, index),
        )
        for index in range(count)
    ]


def _guidance(capabilities: Capabilities, limits: Limits, index: int) -> dict[str, Any]:
    if capabilities.defaults.guidance_scale is None:
        return {}
    return {"guidance_scale": min(_GUIDANCE[index % len(_GUIDANCE)], limits.max_guidance)}


def compare(sides: Sequence[Side]) -> list[Comparison]:
    """Every later side that has pictures, beside the first that has. Blocks: half a second a megapixel."""
    made = [side for side in sides if side.pictures]
    return [_comparison(made[0], other) for other in made[1:]]


def _comparison(first: Side, other: Side) -> Comparison:
    apart = [_apart(one, two) for one, two in zip(first.pictures, other.pictures, strict=True)]
    return Comparison(
        other,
        psnr_db=min(map(_psnr_db, apart)),
        largest=max(max(counts) for counts in apart),
        min_psnr_db=min(_min_psnr_db(first.dtype), _min_psnr_db(other.dtype)),
    )


def _min_psnr_db(dtype: str) -> float:
    """Of a dtype that is not in the table (another one on a server): the coarsest's."""
    return MIN_PSNR_DB.get(dtype, min(MIN_PSNR_DB.values()))


def _apart(one: RawImage, two: RawImage) -> Counter[int]:
    """How often each difference occurs, in levels."""
    if (one.height, one.width) != (two.height, two.width):
        return Counter({_BRIGHTEST_DIFFERENCE: 1})
    return Counter(map(abs, map(sub, one.pixels, two.pixels)))


def _psnr_db(apart: Counter[int]) -> float:
    """10 log10(255^2 / mean square)."""
    mean_square = sum(level**2 * count for level, count in apart.items()) / apart.total()
    return math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)


def sheet(sides: Sequence[Side], comparisons: Sequence[Comparison]) -> RawImage:
    """A row of pictures for each instance, and below each later one what differs, amplified to white."""
    first = next(side for side in sides if side.pictures)
    cells = list(first.pictures)
    for each in comparisons:
        factor = _BRIGHTEST_DIFFERENCE // max(each.largest, 1)
        cells += each.side.pictures
        cells += [
            _difference(one, two, factor) for one, two in zip(first.pictures, each.side.pictures, strict=True)
        ]
    return contact_sheet(cells, len(first.pictures))


def _difference(one: RawImage, two: RawImage, factor: int) -> RawImage:
    if (one.height, one.width) != (two.height, two.width):
        return RawImage(one.height, one.width, b"\xff" * len(one.pixels))
    levels = map(abs, map(sub, one.pixels, two.pixels))
    return RawImage(one.height, one.width, bytes(level * factor for level in levels))
