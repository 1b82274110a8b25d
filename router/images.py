"""`RawImage` <-> PNG, JPEG, WebP. The one place in `router` that imports PIL, and only inside functions."""

from __future__ import annotations

import json
import re
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from router.errors import ConfigError, InvalidRequestError
from router.types import RawImage

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

Format: TypeAlias = Literal["png", "jpeg", "webp"]
FORMATS: tuple[Format, ...] = get_args(Format)

MAX_PIXELS = 4096 * 4096
DEFAULT_QUALITY = 95

_PLAIN_MODES = frozenset({"1", "L", "P", "RGB"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA"})
_DESCRIPTION_TAG = 0x010E  # EXIF ImageDescription: where JPEG and WebP keep what PNG has as text
_MAX_EXIF_BYTES = 65_000
_JPEG_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e]")
_MAX_JPEG_SCANS = 100
_BROKEN = "is broken or cut off; save it again as PNG, JPEG or WebP"
_TO_RGB = "convert it to RGB with 8 bits per channel"

# A hostile file reaches far into PIL, so the list is long; a test throws mutated files at it.
_RAISED_BY_PIL = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,  # where the app turns warnings into errors
    struct.error,
    zlib.error,
)


def to_raw_image(value: object, *, param: str = "image") -> RawImage:
    """What an app may give as a picture, as the `RawImage` that travels.

    Takes a `RawImage`, a PIL image, or the bytes of a PNG, JPEG or WebP file. Decoding takes time
    (about 10 ms per megapixel); an async app with large pictures calls it in a thread. Raises
    `InvalidRequestError` with `param` for everything else and for every picture `decode` refuses.
    """
    if isinstance(value, RawImage):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return decode(bytes(value), param=param)
    pil = sys.modules.get("PIL.Image")  # who has a PIL image has imported it
    if pil is not None and isinstance(value, pil.Image):
        with _broken_is_refused(param):
            return _checked(value, MAX_PIXELS, param)
    raise _refused(param, _why_no_picture(value))


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, param: str = "image") -> RawImage:
    """The picture in a PNG, JPEG or WebP file, turned upright by its EXIF orientation.

    Gray and palette pictures become RGB, opaque alpha is dropped; colour profiles are not applied.
    Raises `InvalidRequestError` with `param` for another format, a broken or truncated file, more
    than `max_pixels`, several frames, real transparency, 16 bits per channel and CMYK. Damage
    inside a JPEG that its decoder passes over is not noticed.
    """
    with _broken_is_refused(param), _open(data, param) as image:
        return _checked(image, max_pixels, param)


def decode_mask(data: bytes, *, max_pixels: int = MAX_PIXELS, param: str = "mask") -> RawImage:
    """A mask as OpenAI's clients send it: what is transparent will be painted anew, and is white here.

    A file without transparency is a mask already. Raises as `decode` does.
    """
    with _broken_is_refused(param), _open(data, param) as image:
        if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
            return _checked(image, max_pixels, param)
        _check_header(image, max_pixels, param)
        operations = _pillow().ImageOps
        alpha = operations.exif_transpose(image).convert("RGBA").getchannel("A")
        return _from_pil(operations.invert(alpha).convert("RGB"))


def encode(
    image: RawImage,
    format: Format = "png",
    *,
    quality: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The picture as a file. `metadata` becomes PNG text chunks, or JSON in EXIF for JPEG and WebP.

    `quality` is 1 to 100 (95 if left out) and for JPEG and WebP only. Raises `InvalidRequestError`
    for an unknown format or quality, metadata too long for EXIF, a picture too large for the format.
    """
    options = _encode_options(format, quality, metadata or {})
    buffer = BytesIO()
    try:
        _to_pil(image).save(buffer, format=format, **options)
    except (OSError, ValueError) as exc:
        raise InvalidRequestError(
            f"A {image.height}x{image.width} picture cannot be written as {format}; choose png.",
            param="format",
        ) from exc
    return buffer.getvalue()


def read_metadata(data: bytes, *, max_pixels: int = MAX_PIXELS) -> dict[str, str]:
    """The texts in a picture file: what `encode` was given as `metadata`, and what others wrote.

    Raises `InvalidRequestError` for a file that is not a sound PNG, JPEG or WebP.
    """
    with _broken_is_refused("image"), _open(data, "image") as image:
        _check_size(image, max_pixels, "image")
        if image.format == "PNG":
            image.load()
            return {str(key): str(text) for key, text in image.info.items() if isinstance(text, str)}
        return _texts(image.getexif().get(_DESCRIPTION_TAG))


def luma(image: RawImage, height: int, width: int) -> bytes:
    """Brightness by ITU-R 601, a byte a pixel, row-major; resized by area, whatever the shape."""
    size, by_area = (width, height), _pillow().Image.Resampling.BOX
    return _to_pil(image).convert("L").resize(size, by_area).tobytes()


def _open(data: bytes, param: str) -> ImageFile:
    """The file's header, read by the one decoder its first bytes ask for; nothing is decoded yet."""
    pillow = _pillow()
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data, param)
        return pillow.PngImagePlugin.PngImageFile(BytesIO(data))  # type: ignore[no-any-return]
    if data.startswith(b"\xff\xd8\xff"):
        _check_jpeg(data, param)
        return pillow.JpegImagePlugin.JpegImageFile(BytesIO(data))  # type: ignore[no-any-return]
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return pillow.WebPImagePlugin.WebPImageFile(BytesIO(data))  # type: ignore[no-any-return]
    if not data:
        raise _refused(param, "is empty; give the bytes of a PNG, JPEG or WebP file")
    raise _refused(param, "is neither PNG, JPEG nor WebP; give the bytes of such a file")


def _check_png(data: bytes, param: str) -> None:
    """PIL cuts 16 bits to 8 in silence and does not compare the checksums of pixel data."""
    if data[24:25] == b"\x10":
        raise _refused(param, f"has 16 bits per channel; {_TO_RGB}")
    position, kind = 8, b""
    while kind != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        body = data[position + 4 : position + 8 + length]
        kind, position = body[:4], position + 12 + length
        if data[position - 4 : position] != zlib.crc32(body).to_bytes(4, "big"):
            raise _refused(param, _BROKEN)


def _check_jpeg(data: bytes, param: str) -> None:
    """A progressive file has about ten scans; a thousand, 30 bytes each, keep a decoder busy for seconds."""
    if len(_JPEG_SCAN.findall(data)) > _MAX_JPEG_SCANS:
        raise _refused(param, f"has more than {_MAX_JPEG_SCANS} scans; save it again as PNG")


def _checked(image: Image, max_pixels: int, param: str) -> RawImage:
    _check_header(image, max_pixels, param)
    return _from_pil(_flat(_pillow().ImageOps.exif_transpose(image), param))


def _check_header(image: Image, max_pixels: int, param: str) -> None:
    """Every check that the header allows comes before the first pixel is decoded."""
    _check_size(image, max_pixels, param)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise _refused(param, f"is animated ({frames} frames); give a single frame")
    if image.mode not in _PLAIN_MODES | _ALPHA_MODES:
        raise _refused(param, f"has the colour mode {image.mode}; {_TO_RGB}")


def _check_size(image: Image, max_pixels: int, param: str) -> None:
    if image.height * image.width > max_pixels:
        size = f"{image.height}x{image.width} (height x width)"
        raise _refused(param, f"is {size}; make it smaller, {max_pixels:,} pixels at most")


def _flat(image: Image, param: str) -> Image:
    """RGB without loss, or a refusal: only alpha that hides nothing may go."""
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise _refused(param, "has transparent parts; flatten it onto a background first")
    return image.convert("RGB")


def _encode_options(format: str, quality: int | None, metadata: Mapping[str, str]) -> dict[str, Any]:
    if format not in FORMATS:
        raise InvalidRequestError(f"`format` is {format!r}; use {', '.join(FORMATS)}.", param="format")
    if quality is not None and format == "png":
        raise InvalidRequestError("`quality` has no meaning for png; leave it out.", param="quality")
    if quality is not None and not 1 <= quality <= 100:
        raise InvalidRequestError(f"`quality` is {quality}; it goes from 1 to 100.", param="quality")
    if format == "png":
        return {"pnginfo": _png_texts(metadata)}
    return {"quality": quality or DEFAULT_QUALITY, "exif": _exif_texts(metadata)}


def _png_texts(metadata: Mapping[str, str]) -> Any:
    texts = _pillow().PngImagePlugin.PngInfo()
    for key, text in metadata.items():
        texts.add_text(key, text)
    return texts


def _exif_texts(metadata: Mapping[str, str]) -> bytes:
    if not metadata:
        return b""
    exif = _pillow().Image.Exif()
    exif[_DESCRIPTION_TAG] = json.dumps(dict(metadata))
    written: bytes = exif.tobytes()
    if len(written) > _MAX_EXIF_BYTES:
        raise InvalidRequestError(
            f"`metadata` takes {len(written):,} bytes, and only png holds more than {_MAX_EXIF_BYTES:,}.",
            param="metadata",
        )
    return written


def _texts(description: object) -> dict[str, str]:
    """What `_exif_texts` wrote, or the description that somebody else wrote."""
    if not isinstance(description, str):
        return {}
    try:
        found = json.loads(description)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return {"description": description}
    return {key: text if isinstance(text, str) else json.dumps(text) for key, text in found.items()}


def _to_pil(image: RawImage) -> Image:
    made: Image = _pillow().Image.frombytes("RGB", (image.width, image.height), image.pixels)
    return made


def _from_pil(image: Image) -> RawImage:
    return RawImage(height=image.height, width=image.width, pixels=image.tobytes())


def _pillow() -> Any:
    """The `PIL` package with the modules used here; no other of its decoders is loaded."""
    try:
        import PIL
        import PIL.Image
        import PIL.ImageOps
        import PIL.JpegImagePlugin
        import PIL.PngImagePlugin
        import PIL.WebPImagePlugin
    except ImportError as exc:
        raise ConfigError("Pillow, which reads and writes pictures, is missing: pip install pillow") from exc
    return PIL


@contextmanager
def _broken_is_refused(param: str) -> Iterator[None]:
    """Whatever PIL raises on a file that is not what it claims to be becomes one sentence."""
    try:
        yield
    except _RAISED_BY_PIL as exc:
        raise _refused(param, _BROKEN) from exc
    except _pillow().Image.DecompressionBombError as exc:
        raise _refused(param, f"is too large; make it smaller, {MAX_PIXELS:,} pixels at most") from exc


def _refused(param: str, said: str) -> InvalidRequestError:
    return InvalidRequestError(f"The picture in `{param}` {said}.", param=param)


def _why_no_picture(value: object) -> str:
    if isinstance(value, str):
        return "is text; paths and URLs are not opened for you, so read the file yourself and give its bytes"
    if hasattr(value, "__fspath__"):
        return "is a path; read the file yourself and give its bytes: path.read_bytes()"
    kind = type(value).__name__
    return f"is of type {kind}; give a RawImage, a PIL image, or the bytes of a PNG, JPEG or WebP"
