"""Sizes: presets and aspect ratios of a model, sizes written in one word, the nearest that can be made."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

SizeName: TypeAlias = Literal["s", "m", "l"]

SHARES: Mapping[SizeName, float] = {"s": 0.5, "m": 0.75, "l": 1.0}
"""Name -> its sides over those of the model's native size: 512, 768 and 1024 for one of 1024x1024."""

RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4")
"""Aspect ratios that are offered, width to height; any other may be asked for."""

SIZE_PATTERN = r"^([sml]|[0-9]{1,9}x[0-9]{1,9})$"
RATIO_PATTERN = r"^[1-9][0-9]{0,4}:[1-9][0-9]{0,4}$"

_SIDES = re.compile(r"(\d{1,99})x(\d{1,99})", re.ASCII)
_STEPS = 16  # of a preset's sides: 64 pixels for a model of 1024, as SDXL was trained, 32 for one of 512
_ALIKE = 0.1  # how far a fixed size may be off in shape and in scale, as a logarithm, to pass for a preset
_FAR = 0.4  # and in scale where there are no others: half as large again
_AROUND = 2  # steps to either side of the wanted width


class Size(NamedTuple):
    """In pixels."""

    height: int
    width: int


class SizeError(ValueError):
    """A size that cannot be read; `param` is the field."""

    def __init__(self, message: str, param: str = "size") -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class SizeRange:
    """The sizes that one instance makes: multiples around its native size, or fixed ones alone."""

    native: Size
    multiple: int
    fixed: tuple[Size, ...] = ()

    def named(self, name: SizeName, ratio: float | None = None) -> Size | None:
        """The size of that name, `None` where no fixed one is like it; `ratio` is width over height."""
        if not self.fixed:
            return self.ideal(name, ratio)
        size = self.likest(name, ratio)
        return size if size and abs(math.log(self._scale(size) / SHARES[name])) <= _ALIKE else None

    def likest(self, name: SizeName, ratio: float | None = None) -> Size | None:
        """Of the fixed sizes of that shape whose scale is nearest to this preset's: the nearest."""
        shape, found = ratio or self.native.width / self.native.height, []
        for size in self.fixed:
            off = {preset: abs(math.log(self._scale(size) / share)) for preset, share in SHARES.items()}
            if min(off.values()) == off[name] <= _FAR and _off(size, shape, 1)[0] <= _ALIKE:
                found.append((off[name], size))
        return min(found)[1] if found else None

    def _scale(self, size: Size) -> float:
        return math.sqrt(math.prod(size) / math.prod(self.native))

    def ideal(self, name: SizeName, ratio: float | None = None) -> Size:
        """The preset where any multiple can be made: of the native area times the share squared."""
        share, native = SHARES[name], self.native.width / self.native.height
        ratio = ratio or native
        if share == 1 and ratio == native:
            return self.native
        step = max(1, min(self.native) // _STEPS // self.multiple) * self.multiple
        wanted = math.sqrt(math.prod(self.native) * share**2 * ratio)
        middle = round(wanted / step)
        widths = [max(1, middle + steps) * step for steps in range(-_AROUND, _AROUND + 1)]
        sizes = [Size(max(1, round(width / ratio / step)) * step, width) for width in widths]
        return min(sizes, key=lambda size: sum(_off(size, ratio, wanted**2 / ratio)))


def choose_size(ranges: Sequence[SizeRange], name: SizeName, ratio: float | None = None) -> Size | None:
    """The preset of a model: the first of its instances that makes one says how large it is.

    Where all make fixed sizes alone, one that is farther off passes for it too. Where there is none,
    the size is what it would be without them: each instance then says that it does not make it. `None`
    where there are no instances.
    """
    for find in (SizeRange.named, SizeRange.likest, SizeRange.ideal):
        for each in ranges:
            if size := find(each, name, ratio):
                return size
    return None


def nearest_fixed(sizes: Iterable[Size], wanted: Size) -> Size:
    """The one that is least off in shape, then in area."""
    ratio, area = wanted.width / wanted.height, math.prod(wanted)
    return min(sizes, key=lambda size: (round(_off(size, ratio, area)[0], 9), abs(math.prod(size) - area)))


def nearest_multiple(side: float, multiple: int, least: int, most: int) -> int:
    """The nearest multiple that is not below `least` nor above `most`."""
    lowest, highest = -(-least // multiple) * multiple, most // multiple * multiple
    return max(lowest, min(highest, round(side / multiple) * multiple))


def ratio_of(text: str) -> float:
    """`16:9` as width over height. Raises `SizeError`."""
    if not re.fullmatch(RATIO_PATTERN, text):
        raise SizeError(
            f"`aspect_ratio` is {text[:40]!r}; write WIDTH:HEIGHT in whole numbers, such as 16:9 or 3:2.",
            "aspect_ratio",
        )
    width, _, height = text.partition(":")
    return int(width) / int(height)


def with_sides(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with a `size` in pixels as `height` and `width`, and a preset in lower case.

    Raises `SizeError` for a `size` or `aspect_ratio` that cannot be read, or stands beside other sides.
    """
    read = {name: value for name, value in fields.items() if name != "size" or value is not None}
    size, ratio = read.get("size"), read.get("aspect_ratio")
    has_sides = any(read.get(side) is not None for side in ("height", "width"))
    if isinstance(size, str):
        if has_sides:
            raise SizeError("Give `size`, or `height` and `width`, not both.")
        read["size"] = size = size.strip().lower()
        if size not in SHARES:
            read |= _sides(read.pop("size"))
            has_sides = True
    if isinstance(ratio, str):
        ratio_of(ratio)
        if has_sides:
            raise SizeError(
                "`aspect_ratio` shapes a `size` of s, m or l, or the model's own; leave it out where the"
                " sides are given.",
                "aspect_ratio",
            )
    return read


def _sides(size: str) -> dict[str, int]:
    matched = _SIDES.fullmatch(size)
    if matched is None:
        raise SizeError(f"`size` is {size[:40]!r}; write s, m, l, or WIDTHxHEIGHT in pixels: 1024x768.")
    return {"height": int(matched[2]), "width": int(matched[1])}


def _off(size: Size, ratio: float, area: float) -> tuple[float, float]:
    """How far a size is off in shape and in scale: zero, or the logarithm of the factor."""
    shape = abs(math.log(size.width / size.height / ratio))
    return shape, abs(math.log(math.prod(size) / area)) / 2
