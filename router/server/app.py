"""create_app: the routes of every wire form, one handler for errors, and what begins and ends with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeAlias

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from router.errors import ConfigError
from router.router import BackendRouter
from router.server import (
    capabilities,
    errors,
    native,
    openai,
    operation,
    output_routes,
    page,
    picture_urls,
    sizes,
    superres,
    watching,
)
from router.server.access import Access
from router.server.direct import Direct
from router.server.front import Front
from router.server.gate import ID_HEADER, Gate
from router.server.head import Head
from router.server.jobs import routes as jobs_routes
from router.server.jobs.gauges import watch
from router.server.jobs.jobs import Jobs
from router.server.jobs.limits import JobLimits
from router.server.links import Links
from router.server.metrics import Metrics
from router.server.outputs import Outputs
from router.server.picture_urls import Fetch
from router.server.quotas import Quotas
from router.server.settings import ServerSettings
from router.server.state import StateFolder

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig  # which older ones have not, nor the telemetry

Start: TypeAlias = Callable[[], Awaitable[None]]
"""Probes, loads what is to be there from the start, resumes the jobs, and lets requests in."""

_JOBS_FILE = "jobs.sqlite"
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI would look for OpenTelemetry at each request, and log exceptions there with all they say."""

# A new wire form is one more module with `routes`.
_FORMS = (
    native,
    superres,
    output_routes,
    openai,
    jobs_routes,
    capabilities,
    sizes,
    operation,
    watching,
    page,
)


def create_app(router: BackendRouter, settings: ServerSettings) -> FastAPI:
    """The service. The lifespan takes the state folder, enters `router`, and leaves both at the end."""
    front = _front(router, settings)
    routes = [route for form in _FORMS for route in form.routes.routes]
    app = FastAPI(
        title="Triptych",
        version=version("triptych"),
        lifespan=living,
        middleware=[
            *_cross_origin(settings),
            Middleware(Gate, front=front),
            Middleware(Head),
            Middleware(Direct, routes=routes),
        ],
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    app.state.front = front
    errors.install(app)
    app.router.routes.extend(routes)  # as they are: a router inside the router costs each request 30 us
    return app


@asynccontextmanager
async def living(app: FastAPI) -> AsyncIterator[None]:
    """For servers that open their port when all is there. Raises what keeps the service from beginning."""
    front: Front = app.state.front
    async with opened(front) as start:
        await start()
        yield
        await front.begin_to_close()


@asynccontextmanager
async def opened(front: Front) -> AsyncIterator[Start]:
    """From taking the state folder to letting it go. Raises `ConfigError` where it cannot be had.

    What it gives is to be awaited once, and raises what probing and loading raise.
    """
    state = StateFolder(front.settings.state)
    await asyncio.to_thread(state.open)
    try:
        front.links.use_secret(state.secret)
        await asyncio.to_thread(front.outputs.open)
        async with front.router, AsyncExitStack() as stack:
            yield lambda: _start(front, stack)
    finally:
        await asyncio.to_thread(state.close)


async def _start(front: Front, stack: AsyncExitStack) -> None:
    await front.router.probe()
    await front.router.load_resident()
    for model in front.settings.preload:
        await front.router.load(model)
    await stack.enter_async_context(front.jobs)
    front.closers.append(front.jobs.drain)
    front.ready = True


def _front(router: BackendRouter, settings: ServerSettings) -> Front:
    access, metrics = Access(settings), Metrics(router)
    limits = JobLimits(
        waiting=settings.jobs_waiting,
        running=settings.jobs_running,
        patience_s=settings.jobs_patience_s,
        bytes=settings.jobs_bytes,
        age_s=settings.jobs_s,
    )
    jobs = Jobs(settings.state / _JOBS_FILE, limits, router, metrics.served)
    watch(jobs, metrics.registry)
    return Front(
        router=router,
        settings=settings,
        access=access,
        quotas=Quotas(settings.requests_per_key, settings.pictures_per_minute),
        links=Links(settings.link_s, on=access.has_keys),
        outputs=Outputs(settings.outputs_folder, settings.outputs_bytes, settings.outputs_s),
        metrics=metrics,
        jobs=jobs,
        fetch=_fetch(settings),
    )


def _fetch(settings: ServerSettings) -> Fetch:
    """The library is imported only where addresses may be fetched."""
    if not settings.image_urls:
        return picture_urls.refuse
    try:
        from router.server.fetch import Fetcher
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"`server.image_urls` needs {exc.name}, which is missing: pip install 'triptych[server]'"
        ) from exc
    return Fetcher(settings.image_hosts, settings.max_image_bytes, settings.image_s).fetch


def _cross_origin(settings: ServerSettings) -> list[Middleware]:
    """Closed, unless pages of other origins are listed."""
    if not settings.origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-API-Key"],
            expose_headers=[ID_HEADER, "Retry-After"],
        )
    ]
