"""OpenAI's fields, and ours beside them, as a `GenerateRequest`. What cannot be honoured is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from router.errors import InvalidRequestError
from router.request import GenerateRequest
from router.server.body import parse_json
from router.server.forms import Part, text_of
from router.server.pictures import Encoding, encoding_of
from router.server.words import in_words
from router.sizes import SizeError, with_sides

MAX_PARTIAL_IMAGES = 3

ResponseFormat: TypeAlias = Literal["b64_json", "url"]

_WORDS = {
    "height": "size",
    "width": "size",
    "num_images_per_prompt": "n",
    "mask_image": "mask",
    "quality": "output_compression",
    "previews": "partial_images",
}
"""Our name of a field -> its name in this form."""

OURS = frozenset(GenerateRequest.model_fields) - {*_WORDS, "image", "prompt", "model", "size"}
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "quality": ("auto",),
    "background": ("auto", "opaque"),
    "moderation": ("auto",),
}
"""Field -> the values that ask for nothing we do not do anyway."""
_ANY_TEXT = frozenset({"user", "safety_identifier"})
_CURES = {
    "quality": "leave it out or say `auto`; `num_inference_steps` sets the effort",
    "background": "leave it out, or say `auto` or `opaque`",
    "moderation": "leave it out or say `auto`; nothing is moderated here",
    "style": "leave it out; the prompt sets the style",
    "input_fidelity": "leave it out; `strength` sets how far to move from the picture",
    "size": "write WIDTHxHEIGHT in pixels, such as 1024x768, s, m, l or `auto`",
}
_TEXT = frozenset(
    {"prompt", "model", "negative_prompt", "preset", "scheduler", "size", "aspect_ratio", "long_prompt"}
    | {"response_format", "output_format", *_NEUTRAL, *_ANY_TEXT}
)
"""Fields that are text; a form has nothing else."""
_FILES = frozenset({"image", "mask"})
_FOREIGN = frozenset(
    {"style", "input_fidelity", "complexity", "frame_count", "frame_duration_ms", "svg", "markup"}
)
"""Fields of theirs that nothing here corresponds to."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A body of this form, understood."""

    fields: dict[str, Any]
    """Of `GenerateRequest`, without the pictures."""
    encoding: Encoding
    response_format: ResponseFormat
    stream: bool
    partial_images: int
    without_effect: tuple[str, ...]
    """Known fields that were given and change nothing."""

    def request(self, **pictures: Any) -> GenerateRequest:
        """Raises `InvalidRequestError` in the words of this form."""
        with in_their_words():
            return GenerateRequest.of(**self.fields, **pictures, previews=self.partial_images > 0)


def understand(given: Mapping[str, Any]) -> Asked:
    """Raises `InvalidRequestError` for an unknown field, and for one that cannot be honoured."""
    left = {name: value for name, value in given.items() if value is not None}  # null is left out
    without_effect = tuple(_take_neutral(left))
    stream, partial_images = _take_stream(left)
    response_format = _take_choice(left, "response_format", ("b64_json", "url"))
    if stream and response_format == "url":
        raise InvalidRequestError(
            "`response_format` must be b64_json where `stream` is true.", param="response_format"
        )
    with in_their_words():
        encoding = encoding_of(left.pop("output_format", None), _take_quality(left))
    fields = _take_size(left) | {"num_images_per_prompt": left.pop("n", 1)}
    fields |= {name: left.pop(name) for name in ("prompt", "model") if name in left}
    unknown = [name for name in left if name not in OURS]
    if unknown:
        raise _unknown(unknown[0])
    return Asked(fields | left, encoding, response_format, stream, partial_images, without_effect)


def of_form(parts: Sequence[Part]) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """A form's fields with the types that JSON would have given them, and its files by field."""
    fields: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    for part in parts:
        name = part.name.removesuffix("[]")
        if part.file:
            files.setdefault(name, []).append(part.data)
        elif name in _FILES:
            raise InvalidRequestError(
                f"`{name}` is text, but must be a file; give its part a file name.", param=name
            )
        elif name in fields:
            raise InvalidRequestError(
                f"`{name[:40]}` stands twice in the form; send it once.", param=name[:40]
            )
        else:
            fields[name] = _typed(name, text_of(part))
    return fields, files


def in_their_words() -> AbstractContextManager[None]:
    """`height` and `width` are `size` here, and so on."""
    return in_words(_WORDS)


def _take_neutral(left: dict[str, Any]) -> Iterator[str]:
    for name in _FOREIGN & left.keys():
        raise _refused(name)
    for name in [name for name in left if name in _NEUTRAL or name in _ANY_TEXT]:
        value = left.pop(name)
        if not isinstance(value, str) or (name in _NEUTRAL and value not in _NEUTRAL[name]):
            raise _refused(name)
        yield name


def _take_stream(left: dict[str, Any]) -> tuple[bool, int]:
    stream, partial_images = left.pop("stream", False), left.pop("partial_images", 0)
    if not isinstance(stream, bool):
        raise InvalidRequestError("`stream` must be true or false.", param="stream")
    if type(partial_images) is not int or not 0 <= partial_images <= MAX_PARTIAL_IMAGES:
        raise InvalidRequestError(
            f"`partial_images` must be a whole number from 0 to {MAX_PARTIAL_IMAGES}.", param="partial_images"
        )
    if partial_images and not stream:
        raise InvalidRequestError(
            "`partial_images` needs `stream` to be true; set it, or leave `partial_images` out.",
            param="partial_images",
        )
    return stream, partial_images


def _take_quality(left: dict[str, Any]) -> Any:
    """`output_compression` is what others call quality; a png has none, and 100 asks for none."""
    quality = left.pop("output_compression", None)
    return None if quality == 100 and left.get("output_format", "png") == "png" else quality


def _take_choice(left: dict[str, Any], name: str, choices: tuple[Any, ...]) -> Any:
    value = left.pop(name, choices[0])
    if value not in choices:
        raise InvalidRequestError(f"`{name}` must be {' or '.join(choices)}.", param=name)
    return value


def _take_size(left: dict[str, Any]) -> dict[str, Any]:
    size = left.pop("size", "auto")
    if size == "auto":
        return {}
    try:
        return with_sides({"size": size if isinstance(size, str) else ""})
    except SizeError as exc:
        raise _refused("size") from exc


def _typed(name: str, text: str) -> Any:
    """Forms hold text alone; what is no text in JSON is read as JSON, or left for its field to refuse."""
    if name in _TEXT:
        return text
    try:
        return parse_json(text.encode())
    except InvalidRequestError:
        return text


def _refused(name: str) -> InvalidRequestError:
    cure = _CURES.get(name, "leave it out")
    return InvalidRequestError(f"`{name}` cannot be honoured as it is; {cure}.", param=name)


def _unknown(name: str) -> InvalidRequestError:
    cut = name[:40]
    ours = ", ".join(sorted(OURS))
    return InvalidRequestError(
        f"There is no field `{cut}`; beside OpenAI's fields there are {ours}.", param=cut
    )
