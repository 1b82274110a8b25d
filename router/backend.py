"""The Backend protocol: what stands behind an instance, ours or a third party's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from router.capabilities import Capabilities
from router.config import InstanceConfig
from router.lane import Lane
from router.request import GenerateRequest
from router.types import Generated, OnEvent


class Backend(Protocol):
    """One way to run one model. All methods are called on the event loop and must not block it."""

    async def probe(self) -> Capabilities:
        """Say what this instance can do, from config, manifest or metadata alone.

        Takes no device memory and loads no weights. Raises `BackendUnavailableError`
        (library missing, server down) or `LoadError` (files missing or unreadable).
        """
        ...

    async def load(self) -> None:
        """Take the device memory and make ready. Raises `LoadError`; then nothing is held."""
        ...

    async def generate(
        self, request: GenerateRequest, on_event: OnEvent, deadline_s: float | None
    ) -> Generated:
        """Make the pictures of an effective request (every default and the seed filled in).

        Picture `i` uses `request.seed + i`. `deadline_s` is the seconds left, for backends that
        can pass it on; the router enforces it by cancelling. When cancelled, returns or raises
        only after the work on the device has really ended. Raises `GenerateError`,
        `MemoryBudgetError`, `BackendUnavailableError` if no picture could be made; when only
        some failed, their errors stand in `Generated.pictures`.
        """
        ...

    async def unload(self) -> None:
        """Give the device memory back. Called only when no `generate` is running."""
        ...


def learned_by(backend: Backend, found: Capabilities) -> Capabilities:
    """What was measured of its runs before, told to a backend that has a method `learned(found)`.

    It takes its capabilities with measured bytes, and returns them with what follows, such as the rows
    that a run may have. What is loaded next goes by it.
    """
    learned: Callable[[Capabilities], Capabilities] | None = getattr(backend, "learned", None)
    return found if learned is None else learned(found)


def chosen_by(backend: Backend) -> tuple[tuple[str, str], ...]:
    """What a backend that has a method `chosen()` found to be fastest at load: what it compared -> the way.

    It is kept with what was measured, and comes back in `Capabilities.choices` of `learned`.
    """
    chosen: Callable[[], tuple[tuple[str, str], ...]] | None = getattr(backend, "chosen", None)
    return () if chosen is None else chosen()


Lanes: TypeAlias = Callable[[str], Lane]
"""Device string -> the one lane that owns it."""

BackendFactory: TypeAlias = Callable[[InstanceConfig, Lanes], Backend]
"""What an import string in the registry leads to; usually the backend's class."""
