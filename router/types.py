"""The small frozen values that travel through the house. No torch, numpy or PIL type is among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from router.errors import InvalidRequestError, RouterError
from router.footprint import Workspace

if TYPE_CHECKING:
    from router.request import GenerateRequest

Task: TypeAlias = Literal["text-to-image", "image-to-image", "inpainting", "upscale"]
TASKS: tuple[Task, ...] = ("text-to-image", "image-to-image", "inpainting")
"""What a model that paints does; `upscale` is for models of its own."""
EVERY_TASK: tuple[Task, ...] = (*TASKS, "upscale")

ReferenceMode: TypeAlias = Literal["none", "copy", "modify"]
"""What became of the picture that a request started from."""


@dataclass(frozen=True, slots=True)
class RawImage:
    """A decoded picture: uint8 RGB, `pixels` row-major, `height * width * 3` bytes."""

    height: int
    width: int
    pixels: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InvalidRequestError(
                f"A picture needs at least 1x1 pixels, not {self.height}x{self.width} (height x width).",
                param="image",
            )
        expected = self.height * self.width * 3
        if len(self.pixels) != expected:
            raise InvalidRequestError(
                f"A {self.height}x{self.width} RGB picture has {expected} bytes, not {len(self.pixels)}.",
                param="image",
            )


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """A named, fully fixed shape: what a static graph was made for."""

    name: str
    height: int
    width: int
    dtype: str
    row_buckets: tuple[int, ...]
    text_lengths: tuple[int, ...] = (77,)

    def holds(self, height: int, width: int) -> bool:
        """Whether exactly this size is served; nothing is resized to fit."""
        return (self.height, self.width) == (height, width)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a request: an image or the error that took its place, never neither."""

    index: int
    seed: int
    image: RawImage | None = None
    error: RouterError | None = None
    latents: bytes | None = field(default=None, repr=False)
    """A safetensors file, where the request asked for `latents`: docs/requests.md says what it holds."""
    fingerprint: bytes | None = field(default=None, repr=False)
    """512 bytes beside `latents`: 4 x 8 x 8 float16, little-endian; equal for equal latents."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What a backend made: every picture of the request, in order, and the facts of the run.

    `ticks` counts the common runs that its pictures took part in, `rows` all rows of those runs
    (neighbours' included), both summed over the pictures: `rows / ticks` is the mean batch shared.
    """

    pictures: tuple[Picture, ...]
    ticks: int = 0
    rows: int = 0
    peak_bytes: int | None = None
    notes: tuple[str, ...] = ()
    """What the caller should know of how they were made."""
    workspace: Workspace | None = None
    """What was measured of the instance's runs so far; `None` where nothing can be measured."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try on one instance. `error` is empty for the try that made the pictures."""

    instance: str
    seconds: float
    code: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Enhancement:
    """What became of a prompt before the request was routed."""

    original: str
    prompt: str
    """What was used; the effective request has it too."""
    cached: bool
    """Whether the answer was known, or asked for by another request at the same time."""

    def as_dict(self) -> dict[str, str | bool]:
        """For records and replies."""
        return {"original": self.original, "prompt": self.prompt, "cached": self.cached}


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds by stage. `encode_s` is spent outside the router, by whoever writes the file."""

    route_s: float = 0.0
    """Until it was known who can serve: long only while a first probe imports a library."""
    enhance_s: float = 0.0
    """Until there was an enhanced prompt."""
    queued_s: float = 0.0
    load_s: float = 0.0
    generate_s: float = 0.0
    encode_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.route_s + self.enhance_s + self.queued_s + self.load_s + self.generate_s + self.encode_s


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """The pictures, and everything needed to make them again."""

    pictures: tuple[Picture, ...]
    request: GenerateRequest
    """The effective parameters: the request with every default and the seed filled in."""
    instance: str
    backend: str
    attempts: tuple[Attempt, ...]
    adjustments: tuple[str, ...] = ()
    """One sentence for everything that was changed, with leave. Empty unless asked for."""
    notes: tuple[str, ...] = ()
    """What the caller should know and did not ask: a failover, a model that stood in."""
    enhancement: Enhancement | None = None
    """`None` where the prompt was used as it came."""
    timings: Timings = Timings()
    ticks: int = 0
    rows: int = 0
    peak_bytes: int | None = None

    @property
    def images(self) -> tuple[RawImage, ...]:
        """The pictures that succeeded, in order; at least one, else `generate` had raised."""
        return tuple([picture.image for picture in self.pictures if picture.image is not None])

    @property
    def reference_mode(self) -> ReferenceMode:
        """Whether the request's `image` was copied, modified, or there was none."""
        return self.request.reference_mode

    @property
    def errors(self) -> tuple[RouterError, ...]:
        """The errors of the pictures that failed beside others that did not."""
        return tuple(picture.error for picture in self.pictures if picture.error is not None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture, in the order of `pictures`."""
        return tuple(picture.seed for picture in self.pictures)


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits for an instance; `position` 1 is next."""

    instance: str
    position: int


@dataclass(frozen=True, slots=True)
class Loading:
    """The instance that will serve is being loaded; told about once a second, until it is."""

    instance: str
    elapsed_s: float = 0.0
    """Since the load began, to a tenth."""
    expected_s: float | None = None
    """What loading it took before; `None` where it is not known."""


@dataclass(frozen=True, slots=True)
class Step:
    """One denoising step of one picture is done: `index` of `total`, counted from 1."""

    picture: int
    index: int
    total: int
    preview: RawImage | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """The last event of every stream that did not raise."""

    result: GenerateResult


Event: TypeAlias = Queued | Loading | Step | Completed
OnEvent: TypeAlias = Callable[[Event], None]
"""Called on the event loop, never on a lane's thread. It must return at once."""


def ignore_event(event: Event) -> None:
    """The `OnEvent` where nobody listens: a backend need not make events for it."""


Rejections: TypeAlias = Mapping[str, str]
"""Instance name -> the one sentence why it cannot serve."""
