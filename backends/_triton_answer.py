"""Answer: the responses to one request, read one by one into events and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from tritonclient.grpc import InferResult

from backends._triton_errors import house_error
from backends._triton_parcel import in_thread_if_large
from router.errors import GenerateError
from router.request import GenerateRequest
from router.types import Generated, OnEvent, Picture, RawImage, Step

FromRegion: TypeAlias = Callable[[int], bytes]
"""Reads so many bytes of the picture that the server put into shared memory."""


class Answer:
    """What has come so far. A response that breaks the contract is a `GenerateError`."""

    def __init__(
        self,
        request: GenerateRequest,
        on_event: OnEvent,
        instance: str,
        from_region: FromRegion | None = None,
    ) -> None:
        self._request = request
        self._on_event = on_event
        self._instance = instance
        self._from_region = from_region
        self._pictures: dict[int, Picture] = {}
        self._facts: dict[str, Any] = {}

    async def take(self, result: InferResult) -> None:
        """Read one response: a step, a picture, a picture's error, or nothing at all."""
        names = {output.name for output in result.get_response().outputs}
        if "progress" in names:
            self._take_progress(result)
        if "index" in names:
            has_picture = "picture" in names
            await in_thread_if_large(
                self._bytes_asked(), lambda: self._take_picture(result, has_picture=has_picture)
            )

    def complete(self) -> Generated:
        """All pictures in order. Raises their error if all failed, and where one is missing."""
        count = self._request.num_images_per_prompt
        if len(self._pictures) != count:
            raise self._broken(f"with {len(self._pictures)} of {count} pictures")
        pictures = tuple(self._pictures[index] for index in range(count))
        if all(picture.error for picture in pictures):
            assert pictures[0].error is not None
            raise pictures[0].error
        return Generated(
            pictures,
            ticks=self._count("ticks") or 0,
            rows=self._count("rows") or 0,
            peak_bytes=self._count("peak_bytes"),
        )

    def _take_progress(self, result: InferResult) -> None:
        progress = result.as_numpy("progress")
        if progress.shape != (3,) or progress.dtype.kind != "i":
            raise self._broken("with a `progress` that is not three whole numbers")
        picture, index, total = progress.tolist()
        preview = result.as_numpy("preview")
        self._on_event(Step(picture, index, total, None if preview is None else self._image(preview)))

    def _take_picture(self, result: InferResult, *, has_picture: bool) -> None:
        index = int(result.as_numpy("index").item())
        if index in self._pictures or not 0 <= index < self._request.num_images_per_prompt:
            raise self._broken(f"with a picture {index} that was not asked for")
        facts = self._read_facts(result)
        self._facts |= facts
        seed = self._request.seeds[index]
        if not has_picture:
            self._pictures[index] = Picture(index, seed, error=self._error_in(facts))
            return
        image = self._picture(result)
        if (image.height, image.width) != self._size():
            asked = "x".join(map(str, self._size()))
            raise self._broken(f"with {image.height}x{image.width} pixels instead of {asked}")
        self._pictures[index] = Picture(index, seed, image)

    def _picture(self, result: InferResult) -> RawImage:
        """A picture without content is where it was offered to be: in shared memory."""
        output, content = _find(result, "picture")
        if content or self._from_region is None:
            return self._image(result.as_numpy("picture"))
        if output.datatype != "UINT8" or list(output.shape) != [*self._size(), 3]:
            raise self._broken(f"with a picture of shape {list(output.shape)} and dtype {output.datatype}")
        return RawImage(*self._size(), self._from_region(self._bytes_asked()))

    def _image(self, array: np.ndarray[Any, Any]) -> RawImage:
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
            raise self._broken(f"with a picture of shape {list(array.shape)} and dtype {array.dtype}")
        height, width, _ = array.shape
        return RawImage(height, width, array.tobytes())

    def _size(self) -> tuple[int, int]:
        return self._request.height or 0, self._request.width or 0

    def _bytes_asked(self) -> int:
        return math.prod(self._size()) * 3

    def _read_facts(self, result: InferResult) -> dict[str, Any]:
        array = result.as_numpy("facts")
        if array is None:
            return {}
        try:
            facts = json.loads(array.item())
        except (ValueError, AttributeError, TypeError) as exc:
            raise self._broken("with `facts` that cannot be read") from exc
        if not isinstance(facts, dict):
            raise self._broken("with `facts` that are no object")
        return facts

    def _error_in(self, facts: dict[str, Any]) -> Any:
        error = facts.get("error")
        if not isinstance(error, dict):
            raise self._broken("with neither a picture nor its error")
        return house_error(str(error.get("code")), str(error.get("message")), self._instance)

    def _count(self, name: str) -> int | None:
        value = self._facts.get(name)
        return value if isinstance(value, int) and value >= 0 else None

    def _broken(self, how: str) -> GenerateError:
        return GenerateError(
            f"The Triton server answered {how}; its model is of another version, write it again.",
            instance=self._instance,
        )


def _find(result: InferResult, name: str) -> tuple[Any, bytes]:
    """An output and its content, which stands at the same place in a list of its own."""
    response = result.get_response()
    place = [output.name for output in response.outputs].index(name)
    contents = response.raw_output_contents
    return response.outputs[place], contents[place] if place < len(contents) else b""
