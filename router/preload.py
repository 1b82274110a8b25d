"""Preload: loading instances before a request needs them, and those that are `resident` for good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from router.config import ModelConfig
from router.errors import BackendUnavailableError
from router.lease import Lease
from router.request import GenerateRequest
from router.routing import Route
from router.types import OnEvent, ignore_event
from router.upscaling import PLAIN

Explain: TypeAlias = Callable[..., Awaitable[Route]]
MakeLease: TypeAlias = Callable[[str, GenerateRequest, OnEvent], Lease]


async def load_first(model: str | None, explain: Explain, lease: MakeLease) -> None:
    """The instance that would be tried first for a plain request. Raises what loading raises."""
    route = await _plain_route(model, explain)
    await lease(route.candidates[0], route.request, ignore_event).load()


async def load_residents(models: Iterable[ModelConfig], explain: Explain, lease: MakeLease) -> None:
    """One after the other, in config order. Raises what loading raises, for one that cannot serve too."""
    for model in models:
        names = [instance.name for instance in model.instances if instance.resident]
        route = await _plain_route(model.name, explain) if names else None
        for name in names:
            assert route is not None
            if name not in route.candidates:
                why = route.rejections.get(name, "it serves no plain request.")
                raise BackendUnavailableError(
                    f"{name} is resident, and cannot be loaded: {why}", instance=name
                )
            await lease(name, route.request, ignore_event).load()


async def _plain_route(model: str | None, explain: Explain) -> Route:
    routes = [await explain(model=model, **fields) for fields in PLAIN]
    route = next((route for route in routes if route.candidates), routes[0])
    if not route.candidates:
        raise route.refusal()
    return route
