"""Doubles: backends whose every stage waits at a gate that the test opens, and fails where it says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from router.backend import Backend, BackendFactory
from router.capabilities import Capabilities, Defaults
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import GenerateError, RouterError
from router.footprint import Footprint
from router.request import GenerateRequest
from router.router import BackendRouter
from router.types import TASKS, Generated, GenerateResult, OnEvent, Picture, RawImage, Step

SIDE = 16
PIXELS = SIDE * SIDE
BROKE = "The graphics card is on fire."


def capabilities(**changes: Any) -> Capabilities:
    """Pictures of 16x16 on one device; weights take 1,000 bytes, a row of such a picture 256."""
    facts: dict[str, Any] = {
        "family": "double",
        "pipeline": "DoublePipeline",
        "tasks": frozenset(TASKS),
        "defaults": Defaults(SIDE, SIDE, num_inference_steps=4, guidance_scale=1.0),
        "footprint": Footprint(1_000, 1, 0),
        "device": "gpu",
        "dtype": "float32",
        "schedulers": ("DDIM",),
    }
    return Capabilities(**facts | changes)


def effective_request(prompt: str = "a circle", **fields: Any) -> GenerateRequest:
    filled = {"height": SIDE, "width": SIDE, "num_inference_steps": 4, "guidance_scale": 1.0, "seed": 1}
    return GenerateRequest.of(prompt=prompt, **filled | fields)


class Double:
    """One backend. Gates are open, and nothing fails, until the test says otherwise."""

    def __init__(self, name: str = "a", **changes: Any) -> None:
        self.name = name
        self.capabilities = capabilities(**changes)
        self.may_probe, self.may_load, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.may_generate, self.may_unload = asyncio.Event(), asyncio.Event()
        for gate in (self.may_probe, self.may_load, self.may_end, self.may_generate, self.may_unload):
            gate.set()
        self.fails: dict[str, list[BaseException]] = {}
        """Stage -> the errors of its next calls."""
        self.poison: dict[str, RouterError] = {}
        """Prompt -> the error that it always gives."""
        self.calls: list[str] = []
        self.seen: list[GenerateRequest] = []
        self.running = 0

    async def probe(self) -> Capabilities:
        await self._reach("probe", self.may_probe)
        return self.capabilities

    async def load(self) -> None:
        await self._reach("load", self.may_load)

    async def unload(self) -> None:
        await self._reach("unload", self.may_unload)

    async def generate(
        self, request: GenerateRequest, on_event: OnEvent, deadline_s: float | None
    ) -> Generated:
        self.seen.append(request)
        self.running += 1
        try:
            await self._reach("generate", self.may_generate)
            if error := self.poison.get(request.prompt):
                raise error
            on_event(Step(0, 1, 1))
            return generated(request)
        finally:
            while not self.may_end.is_set():  # the work goes on, whoever gave up
                await asyncio.shield(asyncio.ensure_future(self.may_end.wait()))
            self.running -= 1

    async def _reach(self, stage: str, gate: asyncio.Event) -> None:
        self.calls.append(stage)
        await gate.wait()
        if self.fails.get(stage):
            raise self.fails[stage].pop(0)


def generated(request: GenerateRequest) -> Generated:
    image = RawImage(SIDE, SIDE, bytes(PIXELS * 3))
    return Generated(tuple(Picture(index, seed, image) for index, seed in enumerate(request.seeds)))


def config_of(
    *doubles: Double,
    model: str = "m",
    policy: str = "order",
    residents: Collection[str] = (),
    **settings: Any,
) -> RouterConfig:
    """One model, its instances in the order of `doubles`."""
    instances = tuple(
        InstanceConfig(name=double.name, backend="double", resident=double.name in residents)
        for double in doubles
    )
    models = (ModelConfig(name=model, instances=instances, policy=policy),)
    return RouterConfig(models=models, default_model=model, **settings)


def resolve_to(*doubles: Double) -> Callable[[str], BackendFactory]:
    """What takes the place of the registry."""
    by_name: dict[str, Backend] = {double.name: double for double in doubles}

    def factory(config: InstanceConfig, lanes: object) -> Backend:
        return by_name[config.name]

    return lambda name: factory


@contextlib.asynccontextmanager
async def router_of(
    *doubles: Double, clock: Callable[[], float] = time.monotonic, probed: bool = True, **settings: Any
) -> AsyncIterator[BackendRouter]:
    """An entered router. `probed`: what needs a real thread is over, and `settle` sees to the rest."""
    config = config_of(*doubles, **settings)
    async with BackendRouter(config, resolve=resolve_to(*doubles), clock=clock) as router:
        if probed:
            await router.probe()
        yield router


def begin(router: BackendRouter, prompt: str = "a", **fields: Any) -> asyncio.Task[GenerateResult]:
    return asyncio.create_task(router.generate(prompt=prompt, **fields))


def broke(count: int = 1) -> dict[str, list[BaseException]]:
    return {"generate": [GenerateError(BROKE) for _ in range(count)]}


def breakers(router: BackendRouter) -> list[str]:
    return [status.breaker for status in router.instances()]


def running(router: BackendRouter) -> int:
    return sum(status.running for status in router.instances())


class Clock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def settle() -> None:
    """Let everything that can go on go on, until it waits for a gate."""
    for _ in range(30):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what a real thread has a part in."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 -- a thread cannot set an asyncio.Event
            await asyncio.sleep(0.001)
