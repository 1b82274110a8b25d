"""The device that is measured: its clock, its memory, and the rate its matrix units reach here and now."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable

import torch

from backends._gauge import Meter
from scripts.machine import machine

LARGE, SMALL = 8192, 256
"""Sides of the matrices whose product gives the rate, on a GPU and on a CPU."""


class Card:
    """A torch device, and what is asked of it around a measurement."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.is_cuda = self.device.type == "cuda"
        self._most = 0

    @property
    def name(self) -> str:
        if not self.is_cuda:
            return machine()
        facts = torch.cuda.get_device_properties(self.device)
        return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"

    def synchronize(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def forget_peak(self) -> None:
        self._most = 0
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

    def forget_freed(self) -> None:
        """Give back what one way no longer uses, before the next."""
        if self.is_cuda:
            with contextlib.suppress(RuntimeError):  # the device is lost
                torch.cuda.empty_cache()

    def peak_bytes(self) -> int | None:
        """Most bytes that tensors held since `forget_peak`; `None` on a CPU."""
        return max(self._most, self.most()) if self.is_cuda else None

    @property
    def meter(self) -> Meter | None:
        """Itself, where the allocator counts: what a gauge resets is not to be hidden from `peak_bytes`."""
        return self if self.is_cuda else None

    def now(self) -> int:
        return int(torch.cuda.memory_allocated(self.device))

    def most(self) -> int:
        return int(torch.cuda.max_memory_allocated(self.device))

    def forget(self) -> None:
        self._most = max(self._most, self.most())
        torch.cuda.reset_peak_memory_stats(self.device)

    def seconds(self, run: Callable[[], object], repeats: int) -> list[float]:
        """Of each run, to the end of what the device was given."""
        found = []
        for _ in range(repeats):
            self.synchronize()
            started = time.perf_counter()
            run()
            self.synchronize()
            found.append(time.perf_counter() - started)
        return found

    def matrix_rate(self, dtype: torch.dtype, repeats: int = 20) -> float:
        """Floating-point operations per second of a large product of random numbers: the median."""
        side = LARGE if self.is_cuda else SMALL
        left, right = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        self.seconds(lambda: left @ right, 3)
        return 2 * side**3 / statistics.median(self.seconds(lambda: left @ right, repeats))
