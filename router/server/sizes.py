"""GET /api/v1/sizes: what the presets of a model stand for, at any aspect ratio."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Request
from pydantic import BaseModel

from router.config import Limits
from router.errors import ModelNotFoundError
from router.request import GenerateRequest
from router.routing import ModelView, beyond_size_limits, effective
from router.server.documents import errors
from router.server.front import front_of
from router.sizes import RATIOS, SHARES, SizeName

routes = APIRouter(tags=["operation"])


class SizeDocument(BaseModel):
    ratio: str
    """`16:9`, width to height; what the size comes near to."""
    preset: SizeName
    width: int
    height: int


class SizesReply(BaseModel):
    model: str
    sizes: list[SizeDocument]


@routes.get("/api/v1/sizes", response_model=SizesReply, responses=errors(400, 401, 403, 404))
async def sizes(request: Request, model: str | None = None, aspect_ratio: str = RATIOS[0]) -> SizesReply:
    """The presets of one model at one aspect ratio, WIDTH:HEIGHT. Empty while no instance is known."""
    router = front_of(request).router
    asked = GenerateRequest.of(prompt="anything", model=model, aspect_ratio=aspect_ratio)
    name = asked.model or router.config.default_model
    config = router.config.model(name)
    if config is None:
        raise ModelNotFoundError(name, tuple(each.name for each in router.config.models))
    known = {each.name: each.capabilities for each in router.instances() if each.capabilities is not None}
    view = ModelView.of(config, known)
    return SizesReply(model=name, sizes=list(sizes_of(view, router.config.limits, [aspect_ratio])))


def sizes_of(view: ModelView, limits: Limits, ratios: Sequence[str] = RATIOS) -> Iterator[SizeDocument]:
    """Every preset at these ratios, without those that no instance makes or that pass the limits."""
    able = [each.capabilities for each in view.instances if each.capabilities is not None]
    for ratio, preset in itertools.product(ratios, SHARES):
        asked = GenerateRequest.of(prompt="anything", size=preset, aspect_ratio=ratio)
        wanted = effective(asked, view, seed=0)
        if all(each.refuses_size(wanted) for each in able) or beyond_size_limits(wanted, limits):
            continue
        yield SizeDocument(ratio=ratio, preset=preset, width=wanted.width or 0, height=wanted.height or 0)
