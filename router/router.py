"""BackendRouter: request -> route -> lease -> backend -> result, with failover and deadline."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any

from router import images, registry
from router.breaker import Clock
from router.catalogue import Catalogue, Resolve, wait_for_probes
from router.config import RouterConfig
from router.deadline import Deadline
from router.errors import (
    BackendError,
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    RequestCancelledError,
    RouterError,
)
from router.events import follow
from router.failover import Failover
from router.lease import Lease
from router.memory import MemoryLedger
from router.pool import Pool
from router.request import GenerateRequest
from router.routing import Route, choose_route
from router.served_model import ServedModel
from router.statistics import InstanceStatus, RouterStatistics
from router.types import Event, Generated, GenerateResult, OnEvent, RawImage, ignore_event


class BackendRouter:
    """Serves pictures from the models of a config: `async with BackendRouter(config) as router`.

    It belongs to the event loop it was entered on. Left normally, it lets running requests come to
    their end; left by an exception, it stops them. Then it unloads everything.
    """

    def __init__(
        self,
        config: RouterConfig | None = None,
        *,
        resolve: Resolve = registry.resolve,
        clock: Clock = time.monotonic,
    ) -> None:
        """Without a config it is read from `triptych.toml` and the environment. Nothing is loaded yet.

        `resolve` finds the backend that `InstanceConfig.backend` names; `clock` is for tests.
        """
        self.config = config or _load_config()
        self._ledger = MemoryLedger(self.config.device_memory)
        self._catalogue = Catalogue(self.config, resolve, self._ledger, clock)
        self._pool = Pool(self._catalogue.instances.values(), self.config.limits, self._ledger, clock)
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._request_ids = itertools.count(1)
        self._served = self._failed = self._cancelled = 0

    async def __aenter__(self) -> BackendRouter:
        if self._loop is not None:
            raise RouterError("This router was entered before; make a new BackendRouter.")
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if exc is not None:
            await self.cancel_requests()
        await self._pool.close()
        await self._catalogue.close()

    async def generate(
        self, request: GenerateRequest | None = None, /, *, on_event: OnEvent = ignore_event, **fields: Any
    ) -> GenerateResult:
        """Make the pictures of a request, given whole or as the fields of `GenerateRequest`.

        Cancelling it stops the work and ends when that has ended. Raises `InvalidRequestError`,
        `ModelNotFoundError` or `NoRouteError` for a request to be changed, `OverloadedError` for one
        to come again later, `DeadlineExceededError`, and `BackendError` when every candidate failed.
        Where some of several pictures failed, the others are returned with the errors of those.
        """
        task = self._current_task()
        self._tasks.add(task)
        try:
            if fields or not isinstance(request, GenerateRequest):
                request = await _as_request(request, fields)
            result = await self._generate(request, on_event, task)
        except (asyncio.CancelledError, RequestCancelledError):
            self._cancelled += 1
            raise
        except RouterError:
            self._failed += 1
            raise
        finally:
            self._tasks.discard(task)
        self._served += 1
        return result

    def stream(self, request: GenerateRequest | None = None, /, **fields: Any) -> AsyncIterator[Event]:
        """The events of a request as they come, `Completed` last. Raises what `generate` raises.

        Leaving the loop early cancels the request; `contextlib.aclosing` does so without delay.
        """

        def begin(on_event: OnEvent) -> asyncio.Task[GenerateResult]:
            return asyncio.create_task(self.generate(request, on_event=on_event, **fields))

        return follow(begin)

    async def explain(self, request: GenerateRequest | None = None, /, **fields: Any) -> Route:
        """The route that the request would take now; nothing is loaded or run.

        Where nobody can serve it, `candidates` is empty and `rejections` says why.
        """
        task = self._current_task()
        request = await _as_request(request, fields)
        return await self._route(request, self._catalogue.find(request.model), Deadline(task, None))

    async def load(self, model: str | None = None) -> None:
        """Load the instance that would be tried first for a plain prompt. Raises what `generate` raises."""
        route = await self.explain(model=model, prompt="anything")
        if not route.candidates:
            raise route.refusal()
        await self._pool.lease(route.candidates[0], route.request, ignore_event).load()

    async def cancel_requests(self) -> None:
        """Cancel every request in progress and wait until the work on it has ended."""
        for task in self._tasks:
            task.cancel()
        await self._pool.idle()

    async def probe(self) -> tuple[InstanceStatus, ...]:
        """Ask every instance now what it can do, and say how each one stands."""
        self._current_task()
        await asyncio.wait([instance.probe() for instance in self._catalogue.instances.values()])
        return self.instances()

    def instances(self) -> tuple[InstanceStatus, ...]:
        """How each instance stands, in config order."""
        return tuple(self._pool.slot(name).status() for name in self._catalogue.instances)

    def statistics(self) -> RouterStatistics:
        """Requests in progress, counts since the router was entered, lanes, promised bytes."""
        ledger = self._ledger
        return RouterStatistics(
            running=len(self._tasks),
            served=self._served,
            failed=self._failed,
            cancelled=self._cancelled,
            instances=self.instances(),
            lanes={device: lane.statistics() for device, lane in self._catalogue.lanes.items()},
            promised_bytes={device: ledger.promised_bytes(device) for device in ledger.devices()},
        )

    async def _generate(
        self, request: GenerateRequest, on_event: OnEvent, task: asyncio.Task[Any]
    ) -> GenerateResult:
        started = self._clock()
        deadline = Deadline(task, request.deadline_s or self.config.deadline_s)
        model = self._catalogue.find(request.model)
        route = await self._route(request, model, deadline)
        if not route.candidates:
            sole_error = model.sole_error() if route.temporary else None
            raise (sole_error or route.refusal()).with_traceback(None)
        return await self._serve(route, model, on_event, deadline, route_s=self._clock() - started)

    async def _route(self, request: GenerateRequest, model: ServedModel, deadline: Deadline) -> Route:
        """Probes are waited for where nothing is known yet, or where nobody else could serve."""
        if model.view is None:
            await wait_for_probes(model, deadline.left_s())
        route = self._choose(request, model)
        if (not route.candidates or model.config_error) and model.begin_probes():
            await wait_for_probes(model, deadline.left_s())
            route = self._choose(request, model)
        if model.config_error is not None:
            raise model.config_error.with_traceback(None)
        return route

    def _choose(self, request: GenerateRequest, model: ServedModel) -> Route:
        assert model.view is not None
        return choose_route(
            request,
            model.view,
            self.config.limits,
            seed=secrets.randbits(32) if request.seed is None else request.seed,
            unavailable=model.unavailable(),
            predict=self._predict if model.config.policy == "fastest" else None,
        )

    def _predict(self, instance: str, request: GenerateRequest) -> float:
        return self._pool.slot(instance).predicted_s(request)

    async def _serve(
        self,
        route: Route,
        model: ServedModel,
        on_event: OnEvent,
        deadline: Deadline,
        *,
        route_s: float,
    ) -> GenerateResult:
        """Try the candidates in turn, all with the same effective request."""
        candidates = [model.instances[name] for name in route.candidates]
        failover = Failover(candidates, self.config.max_failovers, next(self._request_ids))
        try:
            for instance in failover:
                lease = self._pool.lease(instance.name, route.request, on_event)
                try:
                    generated = await _attempt(lease, on_event, deadline)
                except (BackendError, OverloadedError) as exc:
                    failover.failed(lease, exc)
                else:
                    failover.served(lease)
                    return _result(route, generated, lease, failover, route_s)
            raise failover.error
        finally:
            failover.settle(route.request)

    def _current_task(self) -> asyncio.Task[Any]:
        """The task that asks, if this router can be used in it."""
        task = asyncio.current_task()
        if self._loop is None or task is None:
            raise RouterError("Enter the router first: `async with BackendRouter(...) as router`.")
        if task.get_loop() is not self._loop:
            raise RouterError("This router belongs to another event loop; use it there, or make one here.")
        if self._closed:
            raise RouterError("The router is closed; make a new BackendRouter.")
        return task


async def _attempt(lease: Lease, on_event: OnEvent, deadline: Deadline) -> Generated:
    """One try on one instance; ends, also by cancel or deadline, when the work has ended."""
    instance = lease.slot.instance
    try:
        with deadline:
            async with lease:
                return await instance.generate(lease.request, on_event, deadline.left_s())
    except TimeoutError as exc:
        raise DeadlineExceededError(
            f"The deadline passed while the request was {lease.stage} ({instance.name});"
            " give it a longer `deadline_s`, or come again later."
        ) from exc


def _result(
    route: Route, generated: Generated, lease: Lease, failover: Failover, route_s: float
) -> GenerateResult:
    return GenerateResult(
        pictures=generated.pictures,
        request=route.request,
        instance=lease.slot.name,
        backend=lease.slot.instance.config.backend,
        attempts=failover.attempts,
        adjustments=route.adjustments,
        notes=failover.notes,
        timings=lease.timings(route_s),
        ticks=generated.ticks,
        rows=generated.rows,
        peak_bytes=generated.peak_bytes,
    )


async def _as_request(request: object, fields: Mapping[str, Any]) -> GenerateRequest:
    """Pictures are decoded in a thread; everything else is checked here and now."""
    if request is not None:
        if not isinstance(request, GenerateRequest):
            kind = type(request).__name__
            raise InvalidRequestError(
                f"The request is of type {kind}; give the fields by name, `prompt=...`, or a GenerateRequest."
            )
        if fields:
            raise InvalidRequestError(
                f"Give a whole request or its fields, not both: {', '.join(fields)} came beside a request."
            )
        return request
    for param in ("image", "mask_image"):
        picture = fields.get(param)
        if picture is not None and not isinstance(picture, RawImage):
            raw = await asyncio.to_thread(images.to_raw_image, picture, param=param)
            fields = {**fields, param: raw}
    return GenerateRequest.of(**fields)


def _load_config() -> RouterConfig:
    """Imported late: who brings a config needs no settings library."""
    from router.settings import load_config

    return load_config()
