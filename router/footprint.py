"""Footprint: the bytes that a model takes on a device, by a family's formula or as they were measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

Stage: TypeAlias = Literal["denoise", "decode"]

_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


@dataclass(frozen=True, slots=True)
class Peak:
    """The most bytes that one run took beyond those that lay on the device before it.

    `rows` are those of a denoiser's run, or the pictures of a decoder's; `pixels` those of one picture.
    """

    rows: int
    pixels: int
    bytes: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.pixels < 1 or self.bytes < 0:
            raise ValueError(f"{self} was never measured")

    @property
    def work(self) -> int:
        return self.rows * self.pixels

    def per_pixel(self) -> int:
        """Bytes for each row and pixel, rounded up."""
        return -(-self.bytes // self.work)


@dataclass(frozen=True, slots=True)
class Workspace:
    """What was measured of a model's runs; `None` where nothing was."""

    denoise: Peak | None = None
    decode: Peak | None = None

    def joined(self, other: Workspace) -> Workspace:
        """The larger run of each kind: fixed parts weigh less in it, so that it tells most of others."""
        return Workspace(_larger(self.denoise, other.denoise), _larger(self.decode, other.decode))


class Demand(NamedTuple):
    """What one request asks of its instance's device while it is worked on."""

    rows: int
    """Of all its pictures."""
    pictures: int
    pixels: int
    """Of one picture."""


class Demands:
    """What the requests in progress ask for together, as one demand for each size: runs join equal sizes."""

    __slots__ = ("_by_pixels",)

    def __init__(self) -> None:
        self._by_pixels: dict[int, Demand] = {}

    def __iter__(self) -> Iterator[Demand]:
        return iter(self._by_pixels.values())

    def add(self, demand: Demand) -> None:
        self._by_pixels[demand.pixels] = self._changed(demand, 1)

    def remove(self, demand: Demand) -> None:
        if self._by_pixels[demand.pixels] == demand:
            del self._by_pixels[demand.pixels]
        else:
            self._by_pixels[demand.pixels] = self._changed(demand, -1)

    def together_with(self, demand: Demand) -> list[Demand]:
        changed = self._changed(demand, 1)
        if len(self._by_pixels) == (demand.pixels in self._by_pixels):  # no other size is worked on
            return [changed]
        return [*(each for each in self if each.pixels != demand.pixels), changed]

    def _changed(self, demand: Demand, sign: int) -> Demand:
        held = self._by_pixels.get(demand.pixels)
        if held is None:
            return demand
        return Demand(held.rows + sign * demand.rows, held.pictures + sign * demand.pictures, demand.pixels)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes an instance takes on its device: at rest, and while it works.

    A lane runs one thing at a time, so that of two stages the larger counts, not their sum, unless they are
    `overlapped`.
    """

    weights_bytes: int
    row_bytes_per_pixel: int
    """The denoiser's workspace for each row and pixel."""
    decode_bytes_per_pixel: int
    """The VAE's workspace for each picture and pixel."""
    measured: tuple[Stage, ...] = ()
    """The stages whose bytes were measured on this device; those of the others follow from a formula."""
    row_limit: int | None = None
    """Most rows of one run; `None` is not bounded."""
    decode_limit: int = 1
    """Most pictures decoded in one run."""
    decode_tile_pixels: int | None = None
    """Pixels of a tile, where the VAE decodes tile by tile; `None` decodes whole pictures."""
    overlapped: bool = False
    """Whether pictures are decoded beside the next denoiser's runs, so that both stages count."""

    def denoise_bytes(self, demands: Iterable[Demand]) -> int:
        """Bytes of the largest run that these requests can share."""
        sizes = [(each.rows, each.pixels * self.row_bytes_per_pixel) for each in demands]
        return _largest_run(sizes, self.row_limit)

    def decode_bytes(self, demands: Iterable[Demand]) -> int:
        """Bytes of decoding as many of their pictures as are decoded at once."""
        tile = self.decode_tile_pixels
        sizes = [
            (each.pictures, self.decode_bytes_per_pixel * (min(each.pixels, tile) if tile else each.pixels))
            for each in demands
        ]
        return _largest_run(sizes, self.decode_limit)

    def workspace_bytes(self, demands: Iterable[Demand]) -> int:
        """Bytes beside the weights while all these are worked on."""
        demands = list(demands)
        if len(demands) == 1:
            return self.workspace_alone(demands[0])
        stages = self.denoise_bytes(demands), self.decode_bytes(demands)
        return sum(stages) if self.overlapped else max(stages)

    def workspace_alone(self, demand: Demand) -> int:
        """The same for one demand. The router asks this several times for every request: no list is made."""
        rows, pictures, pixels = demand.rows, demand.pictures, demand.pixels
        if self.row_limit is not None and rows > self.row_limit:
            rows = self.row_limit
        if pictures > self.decode_limit:
            pictures = self.decode_limit
        denoise = rows * pixels * self.row_bytes_per_pixel
        decode = pictures * min(pixels, self.decode_tile_pixels or pixels) * self.decode_bytes_per_pixel
        return denoise + decode if self.overlapped else max(denoise, decode)

    def pixels_within(self, free_bytes: int, rows: int) -> int | None:
        """Pixels of one picture of so many rows for which there is room; `None` is not bounded."""
        denoise, decode = rows * self.row_bytes_per_pixel, self.decode_bytes_per_pixel
        tile_bytes = (self.decode_tile_pixels or 0) * decode
        if self.overlapped:
            whole = _quotient(free_bytes, denoise + decode)
            in_tiles = whole is not None and 0 < (self.decode_tile_pixels or 0) < whole
            return _quotient(free_bytes - tile_bytes, denoise) if in_tiles else whole
        bounds = [free_bytes // denoise] if denoise else []
        if decode and not 0 < tile_bytes <= free_bytes:
            bounds.append(free_bytes // decode)
        return min(bounds, default=None)

    def rows_within(self, free_bytes: int, pixels: int) -> int:
        """Rows of one run for which there is room beside the weights; at least 1."""
        if self.overlapped:
            free_bytes -= self.decode_bytes([Demand(0, self.decode_limit, pixels)])
        return max(1, free_bytes // max(1, self.row_bytes_per_pixel * pixels))

    def with_measured(self, workspace: Workspace) -> Footprint:
        """The same with what was measured in the place of the formula."""
        denoise, decode = workspace.denoise, workspace.decode
        stages: tuple[tuple[Stage, Peak | None], ...] = (("denoise", denoise), ("decode", decode))
        return replace(
            self,
            row_bytes_per_pixel=denoise.per_pixel() if denoise else self.row_bytes_per_pixel,
            decode_bytes_per_pixel=decode.per_pixel() if decode else self.decode_bytes_per_pixel,
            measured=tuple(name for name, peak in stages if peak is not None),
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one request would take on an instance's device, in bytes."""

    weights_bytes: int
    denoise_bytes: int
    decode_bytes: int
    budget_bytes: int | None
    """What may be promised on the device; `None` is unlimited."""
    measured: tuple[Stage, ...] = ()
    overlapped: bool = False
    """As of the `Footprint`."""

    @classmethod
    def of(cls, footprint: Footprint, demand: Demand, budget_bytes: int | None) -> Estimate:
        demands = (demand,)
        return cls(
            weights_bytes=footprint.weights_bytes,
            denoise_bytes=footprint.denoise_bytes(demands),
            decode_bytes=footprint.decode_bytes(demands),
            budget_bytes=budget_bytes,
            measured=footprint.measured,
            overlapped=footprint.overlapped,
        )

    @property
    def workspace_bytes(self) -> int:
        stages = self.denoise_bytes, self.decode_bytes
        return sum(stages) if self.overlapped else max(stages)

    @property
    def needed_bytes(self) -> int:
        return self.weights_bytes + self.workspace_bytes

    @property
    def fits(self) -> bool:
        return self.budget_bytes is None or self.needed_bytes <= self.budget_bytes

    def parts(self) -> str:
        """The parts that the bytes needed are made of, and how they are known."""
        denoise, decode = told(self.denoise_bytes), told(self.decode_bytes)
        return (
            f"weights {told(self.weights_bytes)}, denoising {denoise} {self._how('denoise')},"
            f" decoding {decode} {self._how('decode')}{', both at once' * self.overlapped}"
        )

    def _how(self, stage: Stage) -> str:
        return "measured" if stage in self.measured else "by formula"


def facts_of(estimate: Estimate) -> dict[str, object]:
    """As plain values, for JSON."""
    return {
        "weights_bytes": estimate.weights_bytes,
        "denoise_bytes": estimate.denoise_bytes,
        "decode_bytes": estimate.decode_bytes,
        "needed_bytes": estimate.needed_bytes,
        "budget_bytes": estimate.budget_bytes,
        "measured": list(estimate.measured),
    }


def told(count: int) -> str:
    """Bytes for people, in decimal units: `6.94 GB`."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count} bytes"


def _larger(one: Peak | None, other: Peak | None) -> Peak | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda peak: (peak.work, peak.bytes))


def _quotient(bytes: int, each: int) -> int | None:
    return bytes // each if each else None


def _largest_run(sizes: list[tuple[int, int]], limit: int | None) -> int:
    """The most bytes of a run of at most `limit` rows, of (rows, bytes of each) that are there."""
    if len(sizes) == 1:
        ((rows, row_bytes),) = sizes
        return row_bytes * (rows if limit is None else min(rows, limit))
    if limit is None or sum([rows for rows, _ in sizes]) <= limit:
        return sum([rows * row_bytes for rows, row_bytes in sizes])
    total, left = 0, limit
    for rows, row_bytes in sorted(sizes, key=lambda size: -size[1]):
        taken = min(rows, left)
        total += taken * row_bytes
        left -= taken
    return total
