"""LanczosBackend: makes a picture larger by resampling. No model: nothing is added that is not in it."""

from __future__ import annotations

from PIL import Image

from backends._lane import LaneBackend, Report
from router.backend import Lanes
from router.capabilities import Capabilities, Defaults
from router.config import InstanceConfig
from router.footprint import Footprint
from router.request import GenerateRequest
from router.types import RawImage

SCALES = (2, 4)
_SIDE = 1024
_MOST_SIDE = 16_384
_BYTES_PER_PIXEL = 8
"""Of the larger picture: its RGB bytes, and Pillow's own four."""


class LanczosBackend(LaneBackend):
    """Built in: it serves only who allows it, with `upscaler` among `allow_adjustments`."""

    def __init__(self, instance: InstanceConfig, lanes: Lanes) -> None:
        self.name = instance.name
        self.lane = lanes("cpu")

    async def probe(self) -> Capabilities:
        return Capabilities(
            family="lanczos",
            pipeline="Lanczos",
            tasks=frozenset({"upscale"}),
            defaults=Defaults(_SIDE, _SIDE, num_inference_steps=1),
            footprint=Footprint(0, _BYTES_PER_PIXEL, 0),
            device="cpu",
            dtype="uint8",
            size_multiple=1,
            min_side=1,
            max_side=_MOST_SIDE,
            negative_prompt=False,
            previews=False,
            scales=SCALES,
            prompts=False,
            resamples=True,
        )

    async def load(self) -> None:
        """There is nothing to load."""

    async def unload(self) -> None:
        """Nor to unload."""

    def picture(self, request: GenerateRequest, seed: int, report: Report) -> RawImage:
        assert request.image is not None
        assert request.scale is not None
        image, scale = request.image, request.scale
        small = Image.frombytes("RGB", (image.width, image.height), image.pixels)
        large = small.resize((image.width * scale, image.height * scale), Image.Resampling.LANCZOS)
        report(1, 1, None)
        return RawImage(large.height, large.width, large.tobytes())
