"""The tensors of one Triton request, read into the fields of `GenerateRequest`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from router.errors import InvalidRequestError
from router.types import RawImage

Array: TypeAlias = np.ndarray[Any, Any]

PROGRESS: Final = "progress"
"""The one input that is no field of a request: whether responses tell of each step."""


def read_fields(tensors: Iterable[Any]) -> dict[str, Any]:
    """The fields that were sent, `progress` among them; nothing keeps Triton's memory.

    Raises `InvalidRequestError`.
    """
    return {tensor.name(): _READERS[tensor.name()](tensor.name(), tensor.as_numpy()) for tensor in tensors}


def _text(name: str, array: Array) -> str:
    raw = _only(name, array)
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequestError(f"`{name}` is not UTF-8; encode it so.", param=name) from exc


def _integer(name: str, array: Array) -> int:
    return int(_only(name, array))


def _number(name: str, array: Array) -> float:
    return float(_only(name, array))


def _flag(name: str, array: Array) -> bool:
    return bool(_only(name, array))


def _picture(name: str, array: Array) -> RawImage:
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InvalidRequestError(
            f"`{name}` has the shape {list(array.shape)}; send [height, width, 3].", param=name
        )
    return RawImage(array.shape[0], array.shape[1], array.tobytes())


def _only(name: str, array: Array) -> Any:
    if array.size != 1:
        raise InvalidRequestError(f"`{name}` has {array.size} values; send one.", param=name)
    return array.reshape(-1)[0]


_READERS: Mapping[str, Callable[[str, Array], Any]] = {
    "prompt": _text,
    "negative_prompt": _text,
    "height": _integer,
    "width": _integer,
    "num_inference_steps": _integer,
    "guidance_scale": _number,
    "true_cfg_scale": _number,
    "strength": _number,
    "scheduler": _text,
    "num_images_per_prompt": _integer,
    "seed": _integer,
    "image": _picture,
    "mask_image": _picture,
    "reproducible": _flag,
    "previews": _flag,
    PROGRESS: _flag,
}
"""Input -> what reads it; Triton itself refuses inputs that the model's configuration has not."""
