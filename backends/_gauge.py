"""Gauge: how much device memory the heavy runs of one instance really take beyond what lies there already.

Only where the device's allocator counts, on CUDA. A CPU's process has no such count: its resident size is
not that of one run, so nothing is measured there and the formulas stand.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import torch

from router.footprint import Peak, Stage, Workspace

_RUNS = 3
"""Of each shape are measured: to ask the allocator costs about 0.1 ms."""

_UNSETTLED = 3
"""First runs of a compiled shape, in which a compiler measures and records."""

_LATENTS = ("sample", "hidden_states", "z")
_PACKED = 4
"""Latents in one token of FLUX."""


class Meter(Protocol):
    """What an allocator counts."""

    def now(self) -> int:
        """Bytes that are allocated."""
        ...

    def most(self) -> int:
        """The most that were, since the last `forget`."""
        ...

    def forget(self) -> None: ...


class CudaMeter:
    """Torch's own allocator of one device. None of these waits for the device."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    def now(self) -> int:
        return int(torch.cuda.memory_allocated(self._device))

    def most(self) -> int:
        return int(torch.cuda.max_memory_allocated(self._device))

    def forget(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)


class Gauge:
    """Of one instance. Called on its lane's thread, where one run at a time goes on."""

    def __init__(self, meter: Meter, cell_pixels: int, tile_pixels: int | None = None) -> None:
        """`cell_pixels`: those that one latent stands for. `tile_pixels`: most that are decoded at once."""
        self._meter = meter
        self._cell_pixels = cell_pixels
        self._tile_pixels = tile_pixels
        self._runs: Counter[tuple[Stage, tuple[int, ...]]] = Counter()
        self._most = 0
        self.workspace = Workspace()

    @property
    def peak_bytes(self) -> int:
        """The most that was allocated on the device so far."""
        self._most = max(self._most, self._meter.most())
        return self._most

    def row_bytes(self, latents: torch.Tensor) -> int | None:
        """Of one row of such latents in the denoiser; `None` until a run was measured."""
        peak = self.workspace.denoise
        return None if peak is None else max(1, peak.per_pixel() * self._pixels(latents))

    def around(self, function: Callable[..., Any], stage: Stage, *, unsettled: int = 0) -> Callable[..., Any]:
        """The function, measured in its first runs of each shape, after the `unsettled` ones."""

        @functools.wraps(function, updated=())
        def measured(*args: Any, **kwargs: Any) -> Any:
            latents = _latents(args, kwargs)
            key = (stage, tuple(latents.shape))
            if self._runs[key] == unsettled + _RUNS:
                return function(*args, **kwargs)
            self._runs[key] += 1
            before = self._begin()
            result = function(*args, **kwargs)
            if self._runs[key] > unsettled:
                self._note(stage, latents, self._meter.most() - before)
            return result

        return measured

    def _begin(self) -> int:
        self._most = self.peak_bytes
        self._meter.forget()
        return self._meter.now()

    def _note(self, stage: Stage, latents: torch.Tensor, taken: int) -> None:
        rows, pixels = int(latents.shape[0]), self._pixels(latents)
        if stage == "denoise":
            found = Workspace(denoise=Peak(rows, pixels, max(0, taken)))
        else:
            found = Workspace(decode=Peak(rows, min(pixels, self._tile_pixels or pixels), max(0, taken)))
        self.workspace = self.workspace.joined(found)

    def _pixels(self, latents: torch.Tensor) -> int:
        if latents.ndim == 3:  # [rows, tokens, channels]
            return int(latents.shape[1]) * _PACKED * self._cell_pixels
        return int(latents.shape[-2] * latents.shape[-1]) * self._cell_pixels


def _latents(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    named = (kwargs[name] for name in _LATENTS if name in kwargs)
    found: torch.Tensor = args[0] if args else next(named)
    return found


def gauged(gauge: Gauge | None, module: Callable[..., Any], quicker: Callable[..., Any] | None) -> Any:
    """What runs in a denoiser's place, measured where that can be; `None` is itself."""
    if gauge is None:
        return quicker
    return gauge.around(quicker or module, "denoise", unsettled=_UNSETTLED if quicker else 0)


def gauge_of(device: str, cell_pixels: int, tile_pixels: int | None, *, offloaded: bool) -> Gauge | None:
    """`None` where nothing can be measured: off CUDA, and where weights come and go during a run."""
    if offloaded or not device.startswith("cuda"):
        return None
    return Gauge(CudaMeter(device), cell_pixels, tile_pixels)
