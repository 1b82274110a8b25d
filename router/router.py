"""BackendRouter: request -> route -> lease -> backend -> result, with failover and deadline."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

from router import registry
from router.breaker import Clock
from router.catalogue import Catalogue, Resolve, wait_for_probes
from router.config import RouterConfig
from router.deadline import Deadline
from router.enhancements import Enhancements
from router.errors import (
    BackendError,
    OverloadedError,
    RouterError,
)
from router.events import follow
from router.failover import Failover
from router.incoming import as_request
from router.memory import MemoryLedger
from router.pool import Pool
from router.preload import load_first, load_residents
from router.record import Record
from router.recorder import Recorder
from router.recording import Recording
from router.request import GenerateRequest
from router.result import result_of
from router.routing import Route
from router.served_model import ServedModel
from router.statistics import InstanceStatus, RouterStatistics
from router.trace import Trace
from router.types import Event, GenerateResult, OnEvent, ignore_event
from router.upscaling import find_upscaler, told


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
        self._recorder = Recorder(self.config.watch, clock)
        self._catalogue = Catalogue(self.config, resolve, self._ledger, clock, self._recorder.trace)
        self._pool = Pool(
            [*self._catalogue.instances.values(), *self._catalogue.lanczos.instances.values()],
            self.config.limits,
            self._ledger,
            clock,
            self.config.memory.idle_unload_s,
        )
        self._enhancements = Enhancements(self.config.enhance)
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()

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
        await self._enhancements.close()
        await self._catalogue.close()
        await self._recorder.close()

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
            with Recording(self._recorder) as recording:
                if fields or not isinstance(request, GenerateRequest):
                    request = await as_request(request, fields)
                recording.request = request
                return await recording.judged(await self._generate(request, on_event, task, recording))
        finally:
            self._tasks.discard(task)

    async def upscale(self, image: object, scale: int = 4, **fields: Any) -> GenerateResult:
        """`generate` of a picture `scale` (2 or 4) times as large, by a model that does that.

        Without one it is refused, unless `allow_adjustments={"upscaler"}` lets Lanczos resampling do.
        """
        return await self.generate(image=image, scale=scale, **fields)

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
        request = await as_request(request, fields)
        self._enhancements.wanted(request)  # refused here as it would be there
        deadline = Deadline(task, None)
        model = await self._find(request, deadline)
        route = await self._route(request, model, deadline)
        return route.with_estimates(model.view) if model.view else route

    async def load(self, model: str | None = None) -> None:
        """Load the instance that would be tried first for a plain request. Raises what `generate` raises."""
        await load_first(model, self.explain, self._pool.lease)

    async def load_resident(self) -> None:
        """Load every instance that is `resident`, as services do at their start."""
        await load_residents(self.config.models, self.explain, self._pool.lease)

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
            served=self._recorder.served,
            failed=self._recorder.failed,
            cancelled=self._recorder.cancelled,
            instances=self.instances(),
            lanes={device: lane.statistics() for device, lane in self._catalogue.lanes.items()},
            promised_bytes={device: ledger.promised_bytes(device) for device in ledger.devices()},
            budget_bytes={device: ledger.budget_bytes(device) for device in ledger.devices()},
            warnings=dict(self._recorder.warned),
            enhancements=self._enhancements.statistics(),
        )

    @property
    def trace(self) -> Trace | None:
        """The timeline that is written when the router is left, if there is to be one."""
        return self._recorder.trace

    def records(self) -> tuple[Record, ...]:
        """How the newest requests went, the newest first; `watch.records` of them are kept."""
        return self._recorder.records()

    async def _generate(
        self, request: GenerateRequest, on_event: OnEvent, task: asyncio.Task[Any], recording: Recording
    ) -> GenerateResult:
        """What nobody can serve is refused before its prompt is enhanced; the new prompt is routed anew."""
        started = self._clock()
        deadline = Deadline(task, request.deadline_s or self.config.deadline_s)
        model = await self._find(request, deadline)
        recording.model = model.config.name
        route = await self._route_or_raise(request, model, deadline)
        recording.routed(route.request, self._clock() - started)
        if not self._enhancements.wanted(request):
            return await self._serve(route, model, on_event, deadline, recording)
        started = self._clock()
        prepared = await self._enhancements.prepare(request, deadline)
        route = await self._route_or_raise(prepared.request, model, deadline)
        enhance_s = self._clock() - started
        result = await self._serve(route, model, on_event, deadline, recording)
        return prepared.told_in(result, enhance_s)

    async def _find(self, request: GenerateRequest, deadline: Deadline) -> ServedModel:
        if request.task != "upscale":
            return self._catalogue.find(request.model)
        return await find_upscaler(
            request, self._catalogue, lambda each: self._route(request, each, deadline)
        )

    async def _route_or_raise(
        self, request: GenerateRequest, model: ServedModel, deadline: Deadline
    ) -> Route:
        route = await self._route(request, model, deadline)
        if not route.candidates:
            sole_error = model.sole_error() if route.temporary else None
            raise (sole_error or route.refusal()).with_traceback(None)
        return route

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
        route = model.choose_route(
            request,
            self.config.limits,
            seed=secrets.randbits(32) if request.seed is None else request.seed,
            predict=self._predict if model.config.policy == "fastest" else None,
            presets=self.config.presets,
        )
        return told(route)

    def _predict(self, instance: str, request: GenerateRequest) -> float:
        return self._pool.slot(instance).predicted_s(request)

    async def _serve(
        self,
        route: Route,
        model: ServedModel,
        on_event: OnEvent,
        deadline: Deadline,
        recording: Recording,
    ) -> GenerateResult:
        """Try the candidates in turn, all with the same effective request."""
        candidates = [model.instances[name] for name in route.candidates]
        failover = Failover(candidates, self.config.max_failovers, recording.id)
        try:
            for instance in failover:
                lease = recording.attempt(self._pool.lease(instance.name, route.request, on_event))
                try:
                    generated = await lease.generate(deadline)
                except (BackendError, OverloadedError) as exc:
                    failover.failed(lease, exc)
                else:
                    failover.served(lease)
                    return result_of(route, generated, lease, failover, recording.route_s)
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


def _load_config() -> RouterConfig:
    """Imported late: who brings a config needs no settings library."""
    from router.settings import load_config

    return load_config()
