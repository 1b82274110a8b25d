"""Parcel: a request as it goes to one server, its pictures by shared memory where there is some."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType

from tritonclient.grpc import InferInput, InferRequestedOutput

from backends import _triton_inputs
from backends._triton_region import Region
from backends._triton_regions import Regions
from router.request import GenerateRequest
from router.types import RawImage

LARGE_BYTES = 1 << 21
"""Copies of more bytes than this take about a millisecond, and are not made on the event loop."""


class Parcel:
    """Entered, it holds its regions. Left well they are used again, left by an error they are not."""

    def __init__(
        self, request: GenerateRequest, declared: Mapping[str, str], regions: Regions, *, progress: bool
    ) -> None:
        self.inputs = _triton_inputs.parameters(request, declared, progress=progress)
        self.outputs = {name: InferRequestedOutput(name) for name in _triton_inputs.OUTPUTS}
        self._request = request
        self._declared = declared
        self._regions = regions
        self._taken: list[Region] = []
        self._offered: Region | None = None

    async def __aenter__(self) -> Parcel:
        try:
            for name, picture in _triton_inputs.pictures(self._request).items():
                self.inputs.append(await self._picture_input(name, picture))
            await self._offer_region()
        except BaseException:
            self._end(self._regions.give_back)  # nothing was sent
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(self._regions.give_back if exc is None else self._regions.drop)

    def from_region(self) -> Callable[[int], bytes] | None:
        """Reads so many bytes of the picture from where the server was offered to write it, if it was."""
        region = self._offered
        return None if region is None else lambda size: region.memory[:size]

    async def _picture_input(self, name: str, picture: RawImage) -> InferInput:
        made = _triton_inputs.picture_input(name, picture, self._declared)
        size = len(picture.pixels)
        region = await self._take(size)
        if region is not None:
            await in_thread_if_large(size, lambda: _write(region, picture))
            made.set_shared_memory(region.name, size)
        else:
            array = _triton_inputs.as_array(picture)
            await in_thread_if_large(size, lambda: made.set_data_from_numpy(array))
        return made

    async def _offer_region(self) -> None:
        """For one picture: the responses of several would be written over each other."""
        request = self._request
        assert request.height is not None
        assert request.width is not None
        if request.num_images_per_prompt > 1:
            return
        size = request.height * request.width * 3
        self._offered = region = await self._take(size)
        if region is not None:
            self.outputs["picture"].set_shared_memory(region.name, size)

    async def _take(self, size: int) -> Region | None:
        region = await self._regions.take(size)
        if region is not None:
            self._taken.append(region)
        return region

    def _end(self, each: Callable[[Region], None]) -> None:
        for region in self._taken:
            each(region)


async def in_thread_if_large(size: int, copy: Callable[[], object]) -> None:
    """Run `copy`, which moves so many bytes, where it delays nobody."""
    if size > LARGE_BYTES:
        await asyncio.to_thread(copy)
    else:
        copy()


def _write(region: Region, picture: RawImage) -> None:
    region.memory[: len(picture.pixels)] = picture.pixels
