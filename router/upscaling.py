"""Upscaling: which model makes a picture larger. Lanczos resampling is always there, but only by leave."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from router.catalogue import LANCZOS, Catalogue
from router.request import GenerateRequest
from router.routing import Route
from router.served_model import ServedModel
from router.types import RawImage

RouteTo: TypeAlias = Callable[[ServedModel], Awaitable[Route]]
"""The route of the request at hand on a model; its instances are probed where that was never done."""

_TOLD: Final = "The picture was made larger by Lanczos resampling, which adds no detail to it."
_LANCZOS_INSTANCES: Final = tuple(instance.name for instance in LANCZOS.instances)
_PICTURE: Final = RawImage(64, 64, bytes(64 * 64 * 3))

PLAIN: tuple[dict[str, Any], ...] = (
    {"prompt": "anything"},
    {"image": _PICTURE, "scale": 4},
    {"image": _PICTURE, "scale": 2},
)
"""Requests one of which every model serves that paints, or makes larger."""


async def find_upscaler(request: GenerateRequest, catalogue: Catalogue, route_to: RouteTo) -> ServedModel:
    """The model that makes a picture larger. Raises `ModelNotFoundError`.

    Where none is named, it is the first that can serve the request, and Lanczos where nobody can and
    `allow_adjustments` has `upscaler`. What no model does is refused by Lanczos, whose sentence is the
    cure, or else by the first upscaler there is.
    """
    if request.model == LANCZOS.name and LANCZOS.name not in catalogue.models:
        return catalogue.lanczos
    asked = list(catalogue.models.values()) if request.model is None else [catalogue.find(request.model)]
    upscalers = []
    for model in asked:
        route = await route_to(model)
        if route.candidates:
            return model
        if any(_enlarges(model)):
            upscalers.append(model)
    if "upscaler" in request.allow_adjustments:
        return catalogue.lanczos
    return next(iter(upscalers), catalogue.lanczos if request.model is None else asked[0])


def told(route: Route) -> Route:
    """The route; one to Lanczos says so."""
    if route.candidates != _LANCZOS_INSTANCES:
        return route
    return dataclasses.replace(route, adjustments=(*route.adjustments, _TOLD))


def _enlarges(model: ServedModel) -> list[bool]:
    known = [instance.capabilities for instance in model.instances.values()]
    return ["upscale" in each.tasks for each in known if each is not None]
