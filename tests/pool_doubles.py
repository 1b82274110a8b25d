"""Pool doubles: a pool over doubles, and callers that hold a lease until the test lets them go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import pytest

from router.breaker import Breaker
from router.config import BreakerConfig, InstanceConfig, Limits
from router.instance import Instance
from router.lease import Lease
from router.memory import MemoryLedger
from router.pool import Pool
from router.request import GenerateRequest
from router.types import Event
from tests.doubles import Clock, Double, effective_request, settle

WEIGHTS = 1_000


async def pool_of(
    *doubles: Double,
    budget: int | None = None,
    clock: Callable[[], float] | None = None,
    idle_unload_s: float | None = None,
    residents: Collection[str] = (),
    **limits: int,
) -> Pool:
    instances = [instance_of(double, budget, resident=double.name in residents) for double in doubles]
    await asyncio.gather(*[instance.probe() for instance in instances])
    ledger = MemoryLedger({} if budget is None else {"gpu": budget})
    return Pool(instances, Limits(**limits), ledger, clock or Clock(), idle_unload_s)


def instance_of(double: Double, budget: int | None, *, resident: bool = False) -> Instance:
    async def make(config: InstanceConfig) -> Double:
        return double

    return Instance(
        "m",
        InstanceConfig(name=double.name, backend="double", resident=resident),
        Breaker(BreakerConfig()),
        make,
        device_memory={} if budget is None else {"gpu": budget},
        on_probed=lambda _: None,
    )


class Caller:
    """One request that holds its lease until the test says `end`."""

    alive: ClassVar[set[Caller]] = set()
    """A task that nobody holds is collected in the middle of the test, and leaves the pool."""

    def __init__(self, pool: Pool, instance: str, request: GenerateRequest | None = None) -> None:
        self.events: list[Event] = []
        self.lease: Lease = pool.lease(instance, request or effective_request(), self.events.append)
        self.inside = False
        self._may_end = asyncio.Event()
        self.task = asyncio.create_task(self._hold())
        self.alive.add(self)
        self.task.add_done_callback(lambda _: self.alive.discard(self))

    async def _hold(self) -> None:
        async with self.lease:
            self.inside = True
            await self._may_end.wait()

    def let_go(self) -> None:
        self._may_end.set()

    async def end(self) -> None:
        self.let_go()
        await self.task
        await settle()

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task
        await settle()


async def callers(pool: Pool, *instances: str, **fields: Any) -> list[Caller]:
    made = [Caller(pool, instance, effective_request(**fields)) for instance in instances]
    await settle()
    return made


def promised(pool: Pool) -> int:
    return pool._ledger.promised_bytes("gpu")
