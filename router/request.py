"""GenerateRequest: what is asked for, in Diffusers' own words."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from router import images
from router.errors import InvalidRequestError
from router.lora_request import MAX_LORAS, MAX_WEIGHT, check_loras
from router.reference import check_reference, mode_of
from router.scale import check_scale
from router.sizes import RATIO_PATTERN, SIZE_PATTERN, SizeError, with_sides
from router.types import RawImage, ReferenceMode, Task

MAX_PROMPT_CHARACTERS = 10_000
MAX_NAME_CHARACTERS = 200
MAX_SIDE = 16_384
MAX_SEED = 2**63 - 1
_MAX_SHOWN = 40  # characters of a wrong value or name in a sentence
_MAX_NAMED = 5  # further wrong fields named in a sentence

Adjustment: TypeAlias = Literal["size", "scheduler", "upscaler"]


def _picture(value: object, info: ValidationInfo) -> RawImage:
    return images.to_raw_image(value, param=info.field_name or "image")


_Image: TypeAlias = Annotated[RawImage, BeforeValidator(_picture)]
_Side: TypeAlias = Annotated[int, Field(ge=8, le=MAX_SIDE, strict=True)]
_Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
_Flag: TypeAlias = Annotated[bool, Field(strict=True)]
_Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class LoraRequest(BaseModel):
    """A LoRA by its configured name, and how strongly it is applied."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name
    weight: Annotated[_Number, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)] = 1.0
    """0 leaves it out; below 0 it takes away what it would add."""


class GenerateRequest(BaseModel):
    """One request. `None` means the model's default; `choose_route` fills it in.

    Pictures are taken as `RawImage`, PIL image or encoded bytes (PNG, JPEG, WebP) and carried as
    `RawImage`. Build it with `GenerateRequest.of(...)` to get `InvalidRequestError` instead of
    pydantic's `ValidationError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    model: _Name | None = None
    """Public name of the model; `None` is the configured default."""
    prompt: str = Field(default="", max_length=MAX_PROMPT_CHARACTERS)
    enhance: _Flag | None = None
    """Whether the configured enhancer makes a fuller prompt of it first; `None` is as configured.

    The effective request has the prompt that was used, and false here: made again, it stays.
    """
    long_prompt: Literal["refuse", "chunk"] | None = None
    """A prompt beyond the text encoder's window: refused, or read in pieces; `None` is as configured."""
    prompt_weighting: _Flag = False
    """Whether `(word:1.3)` in the prompts is a weight; parentheses of the picture are then `\\(`, `\\)`."""
    negative_prompt: str | None = Field(default=None, max_length=MAX_PROMPT_CHARACTERS)
    height: _Side | None = None
    """Pixels. For image-to-image and inpainting `None` is the size of `image`."""
    width: _Side | None = None
    size: Annotated[str, Field(json_schema_extra={"pattern": SIZE_PATTERN})] | None = None
    """`s`, `m` or `l`, the model's native size; or `WIDTHxHEIGHT` in pixels, read as `height` and `width`."""
    aspect_ratio: Annotated[str, Field(json_schema_extra={"pattern": RATIO_PATTERN})] | None = None
    """`WIDTH:HEIGHT`, such as `16:9`: the shape of a preset `size`, or of the native one."""
    num_inference_steps: Annotated[int, Field(ge=1, strict=True)] | None = None
    guidance_scale: Annotated[_Number, Field(ge=0, le=100)] | None = None
    true_cfg_scale: Annotated[_Number, Field(ge=0, le=100)] | None = None
    """Classifier-free guidance for guidance-distilled models (FLUX); above 1 the negative prompt counts."""
    num_images_per_prompt: Annotated[int, Field(ge=1, strict=True)] = 1
    seed: Annotated[int, Field(ge=0, le=MAX_SEED, strict=True)] | None = None
    """Picture `i` of the request is made with `seed + i`."""
    image: _Image | None = None
    mask_image: _Image | None = None
    """Same size as `image`; white is painted anew, black is kept."""
    strength: Annotated[_Number, Field(ge=0, le=1)] | None = None
    """0 keeps `image`, 1 ignores it."""
    reference_strength: Annotated[_Number, Field(ge=0, le=1)] | None = None
    """1 - `strength`, for who thinks of how near to stay to `image`; one of the two."""
    exact_copy: _Flag = False
    """`image` again, as near as the model codes it: `strength` at most 0.05, no guidance, no negative."""
    scale: Literal[2, 4] | None = None
    """How many times larger `image` is to be, on each side; nothing else is painted then."""
    preset: _Name | None = None
    """A configured or built-in set of scheduler, steps and guidance, for those that are left out."""
    scheduler: _Name | None = None
    """A Diffusers class, with or without `Scheduler` at its end, or its usual name: `dpm++ 2m`, `lcm`."""
    refiner_start: Annotated[_Number, Field(gt=0, le=1)] | None = None
    """The share of the steps after which the model's refiner goes on; 1 leaves it out."""
    loras: Annotated[tuple[LoraRequest, ...], Field(max_length=MAX_LORAS)] = ()
    """Each by its configured name, once. Requests with the same ones at the same weights share batches."""
    reproducible: _Flag = False
    """Bit-equal pictures whatever else runs: this request shares no tick. Costs throughput."""
    previews: _Flag = False
    """Whether `Step` events carry a small picture of what is seen so far."""
    latents: _Flag = False
    """Whether each picture comes with its latents and their fingerprint."""
    deadline_s: Annotated[_Number, Field(gt=0)] | None = None
    """Seconds from now; after it the work is stopped with `DeadlineExceededError`."""
    allow_adjustments: frozenset[Adjustment] = frozenset()
    """What may be changed to serve the request at all; every change is in the result."""

    @classmethod
    def of(cls, /, **fields: Any) -> GenerateRequest:
        """Build and check. Raises `InvalidRequestError` that names the field and the cure."""
        try:
            return cls(**fields)
        except ValidationError as exc:
            raise _invalid(exc) from exc

    def __copy__(self) -> GenerateRequest:
        """As pydantic's, in half of its time: the gaps of every request are filled in a copy."""
        made = object.__new__(type(self))
        put = object.__setattr__  # it is frozen
        put(made, "__dict__", self.__dict__.copy())
        put(made, "__pydantic_fields_set__", self.__pydantic_fields_set__.copy())
        put(made, "__pydantic_extra__", None)
        put(made, "__pydantic_private__", None)
        return made

    @property
    def task(self) -> Task:
        """What is asked, derived from the pictures given."""
        if self.image is None:
            return "text-to-image"
        if self.scale is not None:
            return "upscale"
        return "image-to-image" if self.mask_image is None else "inpainting"

    @property
    def reference_mode(self) -> ReferenceMode:
        """What becomes of `image`: it is copied, modified, or there is none."""
        return mode_of(self)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture; only of an effective request (`seed` is filled in)."""
        if self.seed is None:
            raise ValueError("the seed is not filled in yet; choose_route does it")
        return tuple([self.seed + index for index in range(self.num_images_per_prompt)])

    @model_validator(mode="before")
    @classmethod
    def _read_size(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.keys().isdisjoint(("size", "aspect_ratio")):
            return given
        try:
            return with_sides(given)
        except SizeError as exc:
            raise InvalidRequestError(str(exc), param=exc.param) from exc

    @model_validator(mode="after")
    def _check_together(self) -> GenerateRequest:
        _check_pictures(self)
        check_reference(self)
        check_loras(self)
        if not self.prompt.strip() and self.image is None:
            raise InvalidRequestError(
                "`prompt` is empty; only a request with an `image` may leave it out.", param="prompt"
            )
        if self.seed is not None and self.seed + self.num_images_per_prompt - 1 > MAX_SEED:
            raise InvalidRequestError(
                f"`seed` + `num_images_per_prompt` passes {MAX_SEED}; choose a smaller seed.", param="seed"
            )
        return self


def _check_pictures(request: GenerateRequest) -> None:
    image, mask = request.image, request.mask_image
    check_scale(request)
    if image is None:
        if mask is None:
            return
        raise InvalidRequestError("`mask_image` needs an `image` to paint in; give one.", param="mask_image")
    if mask and (image.height, image.width) != (mask.height, mask.width):
        raise InvalidRequestError(
            f"`mask_image` is {mask.height}x{mask.width} and `image` {image.height}x{image.width}"
            " (height x width); make them the same size.",
            param="mask_image",
        )
    for field in ("size", "aspect_ratio"):
        if getattr(request, field) is not None:
            raise InvalidRequestError(
                f"`{field}` has no effect: the picture in `image` keeps its own size; leave it out.",
                param=field,
            )
    for field in ("height", "width"):
        side = getattr(request, field)
        if side not in (None, getattr(image, field) * (request.scale or 1)):
            times = "" if request.scale is None else f" and becomes {request.scale} times as large"
            raise InvalidRequestError(
                f"`{field}` is {side}, but the picture in `image` is {image.height}x{image.width}"
                f" (height x width){times}; leave `{field}` out, or resize the picture first.",
                param=field,
            )


_MUST = {
    "bool_type": "be true or false",
    "finite_number": "be a finite number",
    "float_type": "be a number",
    "frozen_set_type": "be a list",
    "greater_than": "be above {gt}",
    "greater_than_equal": "be at least {ge}",
    "int_type": "be a whole number",
    "less_than_equal": "be at most {le}",
    "literal_error": "be {expected}",
    "model_type": "have a `name` and may have a `weight`",
    "string_too_long": "have at most {max_length:,} characters",
    "string_too_short": "not be empty",
    "too_long": "have at most {max_length} entries",
    "string_type": "be text",
    "string_unicode": "be Unicode text without lone surrogates",
    "tuple_type": "be a list",
}
"""What pydantic found -> what the field must be, in our words."""


def _invalid(exc: ValidationError) -> InvalidRequestError:
    """The first of pydantic's findings as one sentence; the other fields are named at its end."""
    first, *others = exc.errors(include_url=False)
    param = _path(first["loc"])
    also = dict.fromkeys(f"`{_path(other['loc'])}`" for other in others[:_MAX_NAMED])
    also.pop(f"`{param}`", None)
    tail = f"; also wrong: {', '.join(also)}." if also else "."
    return InvalidRequestError(_finding(param, first) + tail, param=param)


def _finding(param: str, found: ErrorDetails) -> str:
    if found["type"] == "extra_forbidden":
        return f"There is no field `{param}`; the fields are {', '.join(GenerateRequest.model_fields)}"
    if found["type"] == "missing":
        return f"`{param}` is missing; give it"
    must = _MUST.get(found["type"], f"pass this: {found['msg']}").format_map(found.get("ctx", {}))
    return f"`{param}` is {_short(found['input'])}, but must {must}"


def _path(location: tuple[int | str, ...]) -> str:
    """`loras.0.weight`; an unknown name may be anything, so it is cut."""
    return ".".join(str(part) for part in location)[:_MAX_SHOWN]


def _short(value: Any) -> str:
    """The value for a sentence: prompts and pictures are not repeated."""
    if isinstance(value, str):
        return repr(value) if len(value) <= _MAX_SHOWN else f"{len(value):,} characters long"
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return f"{value}" if abs(value) < 10**_MAX_SHOWN else "a huge number"
    return f"a {type(value).__name__}"
