"""What operators and their machines ask: alive, ready, metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from router.server import cuda
from router.server.documents import errors
from router.server.front import front_of
from router.server.metrics import MEDIA_TYPE

routes = APIRouter(tags=["operation"])


class Life(BaseModel):
    status: str


class Health(BaseModel):
    status: str
    cuda: bool | None
    """Whether CUDA can be used on this machine; null where its driver gives no answer."""
    devices: list[str]
    """What the instances run on, as far as they were probed."""


class Readiness(BaseModel):
    status: str
    reason: str
    """Why it is not ready; empty if it is."""


@routes.get("/healthz", response_model=Life)
async def healthz(request: Request) -> Response:
    """Whether the process is alive."""
    return JSONResponse({"status": "alive"})


@routes.get("/health", response_model=Health)
async def health(request: Request) -> Response:
    """Whether the process is alive, whether there is CUDA, and which devices serve."""
    statuses = front_of(request).router.instances()
    devices = sorted({status.device for status in statuses if status.capabilities is not None})
    has_cuda = await asyncio.to_thread(cuda.is_available)
    return JSONResponse({"status": "ok", "cuda": has_cuda, "devices": devices})


@routes.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
async def readyz(request: Request) -> Response:
    """Whether an instance can serve. Costs no picture and no probe."""
    front = front_of(request)
    usable = [status for status in front.router.instances() if not status.error]
    if front.closing:
        reason = "The service is shutting down."
    elif not front.ready:
        reason = "The service is starting; models are probed and loaded."
    elif not usable:
        reason = "No instance can serve; `triptych check` says why."
    else:
        return JSONResponse({"status": "ready", "reason": ""})
    return JSONResponse({"status": "not ready", "reason": reason}, 503, {"Retry-After": "1"})


@routes.get(
    "/metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(401)},
    response_class=Response,
)
async def metrics(request: Request) -> Response:
    """For Prometheus; wants the key where there are keys."""
    text = await asyncio.to_thread(front_of(request).metrics.text)
    return Response(text, media_type=MEDIA_TYPE)
