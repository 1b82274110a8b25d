"""Room: what a request takes on an instance's device, and the largest size for which there is room."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from router.footprint import Demand, Estimate
from router.sizes import Size

if TYPE_CHECKING:
    from router.capabilities import Capabilities
    from router.request import GenerateRequest


def demand_of(capabilities: Capabilities, request: GenerateRequest, pictures: int | None = None) -> Demand:
    """What all pictures of an effective request ask for, or so many of them."""
    count = request.num_images_per_prompt if pictures is None else pictures
    height, width = size_of(request)
    return Demand(capabilities.rows_of(request) * count, count, height * width)


def estimate(capabilities: Capabilities, request: GenerateRequest, pictures: int | None = None) -> Estimate:
    """The bytes of an effective request; nothing is loaded to know them."""
    demand = demand_of(capabilities, request, pictures)
    return Estimate.of(capabilities.footprint, demand, capabilities.device_memory_bytes)


def fitted(capabilities: Capabilities, request: GenerateRequest) -> GenerateRequest:
    """The request at the largest size of its aspect ratio for which there is room; else as it is."""
    if estimate(capabilities, request, pictures=1).fits:
        return request
    size = largest_size(capabilities, request)
    return request.model_copy(update=size._asdict()) if size else request


def memory_reason(capabilities: Capabilities, request: GenerateRequest) -> str | None:
    """Why not even one picture of the request can ever fit."""
    budget, footprint = capabilities.device_memory_bytes, capabilities.footprint
    if budget is None:
        return None
    workspace = footprint.workspace_alone(demand_of(capabilities, request, pictures=1))
    if footprint.weights_bytes + workspace <= budget:
        return None
    needed = estimate(capabilities, request, pictures=1)
    largest = largest_size(capabilities, request)
    cure = "no size fits" if largest is None else f"{largest.height}x{largest.width} fits"
    return (
        f"{request.height}x{request.width} needs {needed.needed_bytes:,} bytes on {capabilities.device},"
        f" which has {needed.budget_bytes:,} ({needed.parts()}); {cure}."
    )


def largest_size(capabilities: Capabilities, request: GenerateRequest) -> Size | None:
    """The largest size of the request's aspect ratio that fits, `None` where none does.

    The request has a size, which is not exceeded. Among fixed sizes it is the largest of them.
    """
    demand = demand_of(capabilities, request, pictures=1)
    footprint = capabilities.footprint
    free_bytes = max(0, (capabilities.device_memory_bytes or 0) - footprint.weights_bytes)
    most = footprint.pixels_within(free_bytes, demand.rows)
    pixels = demand.pixels if most is None else most
    if not free_bytes:
        return None
    if capabilities.profiles:
        fitting = [size for size in capabilities.sizes.fixed if math.prod(size) <= pixels]
        return max(fitting, key=math.prod, default=None)
    scale = min(1.0, (pixels / demand.pixels) ** 0.5)
    step = capabilities.size_multiple
    size = Size(*(int(side * scale) // step * step for side in size_of(request)))
    return size if min(size) >= capabilities.min_side else None


def size_of(request: GenerateRequest) -> tuple[int, int]:
    """Height and width of an effective request."""
    height, width = request.height, request.width
    if height is None or width is None:
        raise ValueError("the size is not filled in yet; choose_route does it")
    return height, width
