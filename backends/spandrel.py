"""SpandrelBackend: makes pictures larger by the networks that spandrel reads (ESRGAN, SwinIR, DAT, ...).

    [[models.esrgan.instances]]
    backend = "spandrel"
    source = "./RealESRGAN_x4.safetensors"

A picture is cut into tiles, each one call of its task: tiles of one size share runs, whosever they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field
from spandrel import MAIN_REGISTRY, ImageModelDescriptor, UnsupportedModelError, canonicalize_state_dict

from backends._device import device_of, prepare_thread, torch_device
from backends._lane import LaneBackend, Report
from backends._options import read_options
from backends._tiles import Span, spans
from router.backend import Lanes
from router.call import Call
from router.capabilities import Capabilities, Defaults
from router.config import InstanceConfig
from router.errors import BackendUnavailableError, ConfigError, LoadError
from router.footprint import Footprint
from router.request import GenerateRequest
from router.types import RawImage

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SCALES = (2, 4)

_FEATURES = 64 * 8
"""Values alive at once for each pixel of a tile: eight feature maps of 64 channels, as in ESRGAN's blocks.
An estimate; it decides nothing but how much is promised."""


class SpandrelOptions(BaseModel):
    """The settings of an instance."""

    model_config = ConfigDict(extra="forbid")

    tile: int = Field(default=256, ge=64, le=4096)
    """Side of a tile, in pixels of the small picture."""
    overlap: int = Field(default=16, ge=0, le=64)
    """Pixels at a tile's edges that are thrown away, as the network does not see beyond them."""


class SpandrelBackend(LaneBackend):
    """One instance. Source: a safetensors file."""

    def __init__(self, instance: InstanceConfig, lanes: Lanes) -> None:
        self.name = instance.name
        self.options = read_options(SpandrelOptions, instance)
        if self.options.tile <= 2 * self.options.overlap:
            raise ConfigError(f"{self.name}: option `overlap` must be below half of `tile`; lower it.")
        self.row_limit = instance.row_limit or 4
        self._instance = instance
        self._lanes = lanes
        self._network: ImageModelDescriptor[Any] | None = None

    async def probe(self) -> Capabilities:
        device = device_of(self._instance)
        self.lane = self._lanes(device)
        self._device, self._dtype = torch.device(torch_device(device)), self._dtype_on(device)
        return await asyncio.to_thread(self._describe, device)

    async def load(self) -> None:
        network = await asyncio.to_thread(self._read)
        await self.lane.run(lambda: self._place(network))

    async def unload(self) -> None:
        try:
            await self.lane.run(self._let_go)
        except BackendUnavailableError:  # the lane is lost or closed, and its memory must go all the same
            await asyncio.to_thread(self._let_go)

    def picture(self, request: GenerateRequest, seed: int, report: Report) -> RawImage:
        image, network = request.image, self._network
        assert image is not None
        assert network is not None
        pixels = np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)
        large = np.empty((image.height * network.scale, image.width * network.scale, 3), np.uint8)
        along = [spans(side, self.options.tile, self.options.overlap) for side in pixels.shape[:2]]
        tiles = list(itertools.product(*along))
        for index, (rows, columns) in enumerate(tiles, start=1):
            window = pixels[rows.start : rows.stop, columns.start : columns.stop]
            _keep(self.lane.call(self._call(window)), large, rows, columns, network.scale)
            report(index, len(tiles), None)
        return RawImage(large.shape[0], large.shape[1], large.tobytes())

    def __call__(self, calls: Sequence[Call]) -> Sequence[np.ndarray[Any, Any]]:
        """Tiles of one size as one batch: uint8 [height, width, 3] in, and out `scale` times as large."""
        assert self._network is not None
        tiles = torch.from_numpy(np.stack([call.arguments for call in calls])).to(self._device)
        made = self._network(tiles.permute(0, 3, 1, 2).to(self._dtype) / 255)  # [tiles, 3, height, width]
        bytes = (made.float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return list(bytes)

    def _call(self, window: np.ndarray[Any, Any]) -> Call:
        return Call((id(self), window.shape), 1, self, window)

    def _describe(self, device: str) -> Capabilities:
        network = self._read()
        weights = sum(each.numel() for each in network.model.state_dict().values()) * self._dtype.itemsize
        tile_bytes = self.options.tile**2 * _FEATURES * self._dtype.itemsize * self.row_limit
        return Capabilities(
            family=network.architecture.id.lower(),
            pipeline=network.architecture.name,
            tasks=frozenset({"upscale"}),
            defaults=Defaults(self.options.tile, self.options.tile, num_inference_steps=1),
            footprint=Footprint(weights + tile_bytes, row_bytes_per_pixel=6, decode_bytes_per_pixel=0),
            device=device,
            dtype=str(self._dtype).removeprefix("torch."),
            size_multiple=1,
            min_side=1,
            max_side=16_384,
            negative_prompt=False,
            previews=False,
            scales=(network.scale,),
            prompts=False,
            notes=(
                f"tiles of {self.options.tile} pixels, up to {self.row_limit} in one run, for which"
                f" {tile_bytes / 1e6:,.0f} MB are counted among the weights",
            ),
        )

    def _dtype_on(self, device: str) -> torch.dtype:
        name = self._instance.dtype
        if name == "auto":
            return torch.float32
        if name not in DTYPES or (name == "float16" and device.startswith("cpu")):
            raise ConfigError(f"{self.name}: `dtype` is {name!r}, which is not for {device}; use `auto`.")
        return DTYPES[name]

    # On a loader thread.

    def _read(self) -> ImageModelDescriptor[Any]:
        """The network, on the CPU. A few megabytes: its scale is known only from the weights."""
        file = Path(self._instance.source)
        if file.suffix != ".safetensors" or not file.is_file():
            raise self._wrong("is no safetensors file; convert it, or correct `source`")
        try:
            network = MAIN_REGISTRY.load(canonicalize_state_dict(safetensors.torch.load_file(file)))
        except (UnsupportedModelError, safetensors.SafetensorError, KeyError, RuntimeError) as exc:
            raise self._wrong("is no network that spandrel knows; name another file") from exc
        if not isinstance(network, ImageModelDescriptor) or network.scale not in SCALES:
            raise self._wrong("does not make pictures 2 or 4 times larger; name another file")
        if (network.input_channels, network.output_channels) != (3, 3):
            raise self._wrong("is not made for RGB pictures; name another file")
        return network

    def _wrong(self, what: str) -> LoadError:
        return LoadError(f"{self.name}: {Path(self._instance.source).name!r} {what}.", instance=self.name)

    # On the lane's thread.

    def _place(self, network: ImageModelDescriptor[Any]) -> None:
        prepare_thread(self.lane.threads, self.lane.name)
        network.model.to(self._device, self._dtype)
        self._network = network.eval()

    def _let_go(self) -> None:
        self._network = None
        if self._device.type == "cuda":
            with contextlib.suppress(RuntimeError):  # the device is lost
                torch.cuda.empty_cache()


def _keep(
    made: np.ndarray[Any, Any], large: np.ndarray[Any, Any], rows: Span, columns: Span, scale: int
) -> None:
    """Copy what is kept of a tile to its place."""

    def inside(span: Span) -> slice:
        return slice((span.keep_start - span.start) * scale, (span.keep_stop - span.start) * scale)

    def place(span: Span) -> slice:
        return slice(span.keep_start * scale, span.keep_stop * scale)

    large[place(rows), place(columns)] = made[inside(rows), inside(columns)]
