"""Responses: what one Triton request is answered with, through its response sender."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from backends._stub_requests import Array
from router.errors import RequestCancelledError, RouterError
from router.types import GenerateResult, Picture, RawImage, Step


class Responses:
    """Sends the steps, the pictures or the error of one request. `triton` is Triton's own module."""

    def __init__(self, triton: Any, sender: Any) -> None:
        self._triton = triton
        self._sender = sender

    @property
    def unwanted(self) -> bool:
        """Whether the client has cancelled the request, or is gone."""
        return bool(self._sender.is_cancelled())

    def step(self, step: Step) -> None:
        tensors = {"progress": np.array([step.picture, step.index, step.total], np.int32)}
        if step.preview is not None:
            tensors["preview"] = _pixels(step.preview)
        self._send(tensors)

    def result(self, result: GenerateResult) -> None:
        """One response for each picture; the last one is the end."""
        for picture in result.pictures:
            tensors = {
                "index": np.array([picture.index], np.int32),
                "facts": np.array([json.dumps(_facts(picture, result)).encode()], np.object_),
            }
            if picture.image is not None:
                tensors["picture"] = _pixels(picture.image)
            self._send(tensors, last=picture is result.pictures[-1])

    def error(self, error: RouterError) -> None:
        """The end: the error's code, and its sentence."""
        codes = self._triton.TritonError
        code = codes.CANCELLED if isinstance(error, RequestCancelledError) else codes.INTERNAL
        if 400 <= error.status < 500 and code != codes.CANCELLED:
            code = codes.INVALID_ARG
        elif error.status == 503:
            code = codes.UNAVAILABLE
        said = codes(f"{error.code}: {error}", code)
        response = self._triton.InferenceResponse(error=said)
        self._sender.send(response, flags=self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _send(self, tensors: dict[str, Array], *, last: bool = False) -> None:
        outputs = [self._triton.Tensor(name, array) for name, array in tensors.items()]
        flags = self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        self._sender.send(self._triton.InferenceResponse(output_tensors=outputs), flags=flags)


def _pixels(image: RawImage) -> Array:
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)


def _facts(picture: Picture, result: GenerateResult) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "seed": picture.seed,
        "ticks": result.ticks,
        "rows": result.rows,
        "peak_bytes": result.peak_bytes,
    }
    if picture.error is not None:
        facts["error"] = {"code": picture.error.code, "message": str(picture.error)}
    return facts
