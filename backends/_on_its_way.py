"""Pixels on their way from a device to the host: the copy is begun, and nobody waits for it on the lane.

A GPU computes behind the lane's back. Who asks for its numbers waits until it has nothing left to do,
and then it has to wait for the next ticks. Copies to pinned memory are only put into its queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from router.types import RawImage


class OnItsWay(Protocol):
    """A picture that will be in the host's memory."""

    @property
    def is_here(self) -> bool:
        """Whether `take` would not wait."""
        ...

    def take(self) -> RawImage:
        """The picture. Blocks until it is here; on any thread."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """A picture of the CPU's."""

    image: RawImage
    is_here: bool = True

    def take(self) -> RawImage:
        return self.image


@dataclass(frozen=True, slots=True)
class FromCuda:
    """A picture that a CUDA device is still to make and to copy."""

    pixels: torch.Tensor
    copied: Any

    @property
    def is_here(self) -> bool:
        return bool(self.copied.query())

    def take(self) -> RawImage:
        self.copied.synchronize()
        return _raw(self.pixels)


def begin(pixels: torch.Tensor) -> OnItsWay:
    """Begin to copy uint8 pixels [height, width, 3]."""
    if pixels.device.type != "cuda":
        return Here(_raw(pixels.cpu()))
    pinned = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
    pinned.copy_(pixels, non_blocking=True)
    # blocking: who waits for it sleeps
    copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(pixels.device))  # type: ignore[no-untyped-call, unused-ignore]
    return FromCuda(pinned, copied)


def as_pixels(picture: torch.Tensor) -> torch.Tensor:
    """[3, height, width] in 0..1, as Diffusers makes a PIL picture of it: uint8 [height, width, 3]."""
    return (picture.float() * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()


def _raw(pixels: torch.Tensor) -> RawImage:
    height, width, _ = pixels.shape
    return RawImage(height, width, pixels.numpy().tobytes())
