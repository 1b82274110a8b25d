"""What a request is for Triton: named tensors in, and the outputs that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.utils import triton_to_np_dtype

from router.errors import GenerateError
from router.request import GenerateRequest
from router.types import RawImage

PICTURES = ("image", "mask_image")
OUTPUTS = ("progress", "preview", "picture", "index", "facts")

_FIELDS = (
    "prompt",
    "negative_prompt",
    "height",
    "width",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "strength",
    "scheduler",
    "num_images_per_prompt",
    "seed",
    "reproducible",
    "previews",
)
"""Inputs that are fields of the request by the same name, one value each."""


def parameters(request: GenerateRequest, declared: Mapping[str, str], *, progress: bool) -> list[InferInput]:
    """All inputs but the pictures. `declared` has the dtype of each input that the model takes.

    Raises `GenerateError` for a field that the model has no input for: nothing is left out in silence.
    """
    values = {name: getattr(request, name) for name in _FIELDS} | {"progress": progress}
    given = {name: value for name, value in values.items() if value is not None}
    return [_input(name, value, _dtype(name, declared)) for name, value in given.items()]


def pictures(request: GenerateRequest) -> dict[str, RawImage]:
    """The pictures that go along, by input name."""
    given = {name: getattr(request, name) for name in PICTURES}
    return {name: picture for name, picture in given.items() if picture is not None}


def picture_input(name: str, picture: RawImage, declared: Mapping[str, str]) -> InferInput:
    """An input without its content, which is set inline or as shared memory."""
    return InferInput(name, [picture.height, picture.width, 3], _dtype(name, declared))


def as_array(picture: RawImage) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[height, width, 3], over the picture's own bytes."""
    return np.frombuffer(picture.pixels, np.uint8).reshape(picture.height, picture.width, 3)


def _input(name: str, value: Any, dtype: str) -> InferInput:
    array = np.array([value.encode() if dtype == "BYTES" else value], dtype=triton_to_np_dtype(dtype))
    made = InferInput(name, [1], dtype)
    made.set_data_from_numpy(array)
    return made


def _dtype(name: str, declared: Mapping[str, str]) -> str:
    dtype = declared.get(name)
    if dtype is None:
        raise GenerateError(
            f"The Triton model has no input for `{name}`; write it again with `python -m export.to_triton`."
        )
    return dtype
