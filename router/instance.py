"""Instance: one configured way to serve a model, its backend, and what is known of it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TypeAlias

from router.backend import Backend, chosen_by, learned_by
from router.breaker import Breaker
from router.capabilities import Capabilities
from router.cause import log_cause
from router.config import InstanceConfig
from router.errors import (
    BackendError,
    BackendUnavailableError,
    ConfigError,
    GenerateError,
    LoadError,
    RouterError,
)
from router.families import why_not_family
from router.footprint import Workspace
from router.measured import MeasuredStore
from router.measurements import Measurements
from router.model_files import ModelFiles
from router.reload import Reload
from router.request import GenerateRequest
from router.types import Generated, OnEvent

PROBE_LIMIT_S = 30.0

log = logging.getLogger("router")

MakeBackend: TypeAlias = Callable[[InstanceConfig], Awaitable[Backend]]


class Instance:
    """The edge to a backend: whatever it raises leaves here as an error of the house."""

    def __init__(
        self,
        model: str,
        config: InstanceConfig,
        breaker: Breaker,
        make_backend: MakeBackend,
        *,
        device_memory: Mapping[str, int],
        on_probed: Callable[[Instance], None],
        measured: MeasuredStore | None = None,
        type: str = "",
    ) -> None:
        """`type` is the family that the configuration says the model is of."""
        self.model = model
        self.name = config.name
        self.config = config
        self.breaker = breaker
        self.capabilities: Capabilities | None = None
        self.error: RouterError | None = None
        """Why the last probe failed; `None` after one that went well."""
        self._type = type
        self._make_backend = make_backend
        self._device_memory = device_memory
        self._on_probed = on_probed
        self.measurements = Measurements(measured or MeasuredStore(None))
        self._backend: Backend | None = None
        self._probing: asyncio.Task[None] | None = None
        self._files = ModelFiles.of(config.source)
        self._reload = None if self._files is None else self._reload_of(self._files)

    @property
    def is_probed(self) -> bool:
        return self.capabilities is not None or self.error is not None

    @property
    def wants_probe(self) -> bool:
        """Whether a probe is in progress, or it is time for one."""
        return not self.is_probed or self._probing is not None or self.breaker.probe_due

    @property
    def device(self) -> str:
        return self.capabilities.device if self.capabilities else self.config.device

    def probe(self) -> asyncio.Task[None]:
        """Ask the backend what it can do: one probe at a time, however many wait for it.

        The outcome is in `capabilities`, `error` and the breaker; the task itself never raises.
        """
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe(), name=f"probe {self.name}")
        return self._probing

    def stop_probe(self) -> None:
        if self._probing is not None:
            self._probing.cancel()

    async def load(self) -> None:
        """Where the files of the model have changed since the last probe, that is made again first."""
        await (self._reload.load() if self._reload else self._load())

    async def unload(self) -> None:
        if self._reload:
            await self._reload.ended()
        await self._unload()

    async def generate(
        self, request: GenerateRequest, on_event: OnEvent, deadline_s: float | None
    ) -> Generated:
        """At least one picture, or an error; a model whose files have changed is loaded anew first."""
        if self._reload is None:
            return await self._generate(request, on_event, deadline_s)
        before = self._reload.count
        made = await self._reload.around(lambda: self._generate(request, on_event, deadline_s))
        if self._reload.count == before:
            return made
        note = f"The files of {self.name} had changed; it was loaded anew."
        return dataclasses.replace(made, notes=(*made.notes, note))

    def _reload_of(self, files: ModelFiles) -> Reload:
        return Reload(self.name, files, probe=self._probe_anew, load=self._load, unload=self._unload)

    async def _load(self) -> None:
        backend = self._made()
        with _Edge(self.name, LoadError):
            await backend.load()
        if self.capabilities is not None:
            self.measurements.chosen(self.capabilities, chosen_by(backend))

    async def _unload(self) -> None:
        with _Edge(self.name, BackendError):
            await self._made().unload()

    async def _probe_anew(self) -> None:
        await self.probe()
        if self.error is not None:
            raise self.error.with_traceback(None)

    async def _generate(
        self, request: GenerateRequest, on_event: OnEvent, deadline_s: float | None
    ) -> Generated:
        with _Edge(self.name, GenerateError, (request.prompt, request.negative_prompt)):
            generated = await self._made().generate(request, on_event, deadline_s)
        if generated.workspace is not None:
            self._learn(generated.workspace)
        if not any([picture.image for picture in generated.pictures]):
            errors = [picture.error for picture in generated.pictures if picture.error is not None]
            raise errors[0] if errors else GenerateError("It made no picture.", instance=self.name)
        return generated

    def _made(self) -> Backend:
        if self._backend is None:
            raise BackendUnavailableError("It was never probed.", instance=self.name)
        return self._backend

    async def _probe(self) -> None:
        try:
            with _Edge(self.name, BackendUnavailableError):
                if self._files is not None:
                    await self._files.begin()
                if self._backend is None:
                    self._backend = await self._make_backend(self.config)
                capabilities = await self._answer(self._backend)
                if why := why_not_family(self.model, self._type, capabilities.family):
                    raise ConfigError(f"{self.name}: {why}")
                capabilities = await self.measurements.recall(self._within_limits(capabilities))
                capabilities = learned_by(self._backend, capabilities)
        except RouterError as exc:
            self.error = exc
            self.breaker.trip(str(exc))
        else:
            self.capabilities = capabilities
            self.error = None
            self.breaker.probe_succeeded()
        finally:
            self._probing = None
        self._on_probed(self)

    def _within_limits(self, capabilities: Capabilities) -> Capabilities:
        """A configured budget takes the place of what the device has, and so does a configured row limit."""
        budget = self._device_memory.get(capabilities.device, capabilities.device_memory_bytes)
        footprint = capabilities.footprint
        if self.config.row_limit is not None:
            footprint = dataclasses.replace(footprint, row_limit=self.config.row_limit)
        return dataclasses.replace(capabilities, device_memory_bytes=budget, footprint=footprint)

    def _learn(self, workspace: Workspace) -> None:
        """What a run has shown of the memory that runs need counts from the next request on."""
        assert self.capabilities is not None
        before, self.capabilities = self.capabilities, self.measurements.learn(self.capabilities, workspace)
        if self.capabilities is not before:
            self._on_probed(self)

    async def _answer(self, backend: Backend) -> Capabilities:
        try:
            async with asyncio.timeout(PROBE_LIMIT_S) as limit:
                return await backend.probe()
        except TimeoutError as exc:
            if not limit.expired():
                raise
            raise BackendUnavailableError(
                f"It did not answer a probe within {PROBE_LIMIT_S:.0f} s.", instance=self.name
            ) from exc

    def __repr__(self) -> str:
        return f"<Instance {self.name!r} {self.config.backend}, {self.breaker.state.value}>"


class _Edge:
    """Maps what is not ours to one error class, and writes the instance's name on backend errors."""

    __slots__ = ("_error", "_instance", "_secrets")

    def __init__(
        self, instance: str, error: type[BackendError], secrets: tuple[str | None, ...] = ()
    ) -> None:
        self._instance = instance
        self._error = error
        self._secrets = secrets

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            return
        if isinstance(exc, BackendError):
            exc.instance = exc.instance or self._instance
        elif isinstance(exc, Exception) and not isinstance(exc, RouterError):
            log_cause(log, "a backend raised what is none of its errors", exc, self._instance, self._secrets)
            raise self._error(
                f"The backend raised {type(exc).__name__}, which is none of its errors.",
                instance=self._instance,
            ) from exc
