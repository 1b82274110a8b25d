"""The fastest of several ways, found by running each; kernels of attention, chosen so at load."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_LOG = logging.getLogger("router.backends")

Clock: TypeAlias = Callable[[Callable[[], object]], float]
"""Runs something and says how many seconds it took, to the end of what the device was given."""

NATIVE: Final = "native"
"""PyTorch's own order of kernels."""

SDPA_KERNELS: Final[Mapping[str, SDPBackend]] = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}

RUNS = 5
WORTH = 0.98
"""A way must take less than this share of the first one's time: smaller differences are noise."""


@dataclass(frozen=True, slots=True)
class Race:
    """`seconds` of each way in the order they were tried; `None` for one that cannot be here.

    There are none where the winner is remembered.
    """

    winner: str
    seconds: Mapping[str, float | None]

    def __str__(self) -> str:
        said = (f"{name} {s * 1e3:.2f} ms" for name, s in self.seconds.items() if s is not None)
        if not self.seconds:
            return f"{self.winner}, as measured before"
        return f"{self.winner}, measured: {', '.join(said)}"


def fastest(ways: Mapping[str, Callable[[], object]], clock: Clock, *, runs: int = RUNS) -> Race:
    """Each way is run once to warm up, then `runs` times; its time is the median.

    The first way wins unless another one is clearly faster. What raises `RuntimeError` or `ValueError` is no
    candidate; if the first one does, its error is raised.
    """
    seconds: dict[str, float | None] = {}
    for name, run in ways.items():
        try:
            run()
            seconds[name] = statistics.median(clock(run) for _ in range(runs))
        except (RuntimeError, ValueError):
            if not seconds:
                raise
            seconds[name] = None
    first = next(iter(seconds))
    limit = (seconds[first] or 0.0) * WORTH
    faster = {name: taken for name, taken in seconds.items() if taken is not None and taken < limit}
    return Race(min(faster, key=faster.__getitem__, default=first), seconds)


def device_clock(device: torch.device) -> Clock:
    """The wall clock around work of the device."""

    def seconds(run: Callable[[], object]) -> float:
        _wait_for(device)
        started = time.perf_counter()
        run()
        _wait_for(device)
        return time.perf_counter() - started

    return seconds


def only_kernel(name: str) -> AbstractContextManager[Any]:
    """Inside, all attention of the process runs by this kernel, or raises `RuntimeError` where it cannot."""
    return nullcontext() if name == NATIVE else sdpa_kernel(SDPA_KERNELS[name])


def first_kernel(name: str) -> AbstractContextManager[Any]:
    """Inside, this kernel goes first, and the others are there for what it cannot do.

    It is a setting of the process: none is ever forbidden, so that no other thread fails for it.
    """
    if name == NATIVE:
        return nullcontext()
    others = [kernel for kernel in (*SDPA_KERNELS.values(), SDPBackend.MATH) if kernel != SDPA_KERNELS[name]]
    return sdpa_kernel([SDPA_KERNELS[name], *others], set_priority=True)


class FastestAttention:
    """Stands for a denoiser in its `Gathering`, and runs it by the kernel that was fastest for it.

    The first call while `warming` decides, and should be as large as ticks will be. A compiled
    denoiser must not be compiled before: it keeps the kernel that it was compiled with.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        clock: Clock | None = None,
        others: Mapping[str, Callable[[], AbstractContextManager[Any]]] | None = None,
    ) -> None:
        """`others`: kernels that are not PyTorch's, and what has the denoiser run by them inside."""
        self.warming = False
        self.race: Race | None = None
        self._function = function
        self._name = name
        self._clock = clock
        self._others = others or {}

    def remember(self, winner: str | None) -> None:
        """Go by what an earlier load has found; by nothing that is no kernel here."""
        if winner in (NATIVE, *SDPA_KERNELS, *self._others):
            self.race = Race(str(winner), {})

    def __call__(self, **values: Any) -> Any:
        if self.warming and self.race is None:
            self.race = self._measured(values)
            _LOG.info("attention of %s: %s", self._name, self.race)
        with self._by(self.race.winner if self.race else NATIVE):
            return self._function(**values)

    def _by(self, kernel: str) -> AbstractContextManager[Any]:
        return self._others[kernel]() if kernel in self._others else first_kernel(kernel)

    def _measured(self, values: Mapping[str, Any]) -> Race:
        def run_by(kernel: str) -> Callable[[], object]:
            def run() -> object:
                with self._by(kernel):  # PyTorch's not alone: lanes of other devices run meanwhile
                    return self._function(**values)

            return run

        device = next(each.device for each in values.values() if isinstance(each, torch.Tensor))
        ways = {kernel: run_by(kernel) for kernel in (NATIVE, *SDPA_KERNELS, *self._others)}
        return fastest(ways, self._clock or device_clock(device))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
