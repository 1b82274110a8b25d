"""Catalogue: the models of a config with their instances, and the lanes of the devices they run on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from router.backend import Backend, BackendFactory
from router.breaker import Breaker, Clock
from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.errors import DeadlineExceededError, ModelNotFoundError
from router.instance import Instance
from router.lane import Lane
from router.measured import MeasuredStore
from router.memory import MemoryLedger
from router.served_model import ServedModel
from router.trace import Trace

Resolve = Callable[[str], BackendFactory]

LANCZOS = ModelConfig(
    name="lanczos",
    instances=(InstanceConfig(name="built-in/lanczos", backend="lanczos", device="cpu"),),
    description="Resampling, by leave, where no configured model makes a picture larger.",
)
"""A model beside the configured ones, which no list has."""


class Catalogue:
    """Made from a config alone; backends and lanes are made when a probe first needs them."""

    def __init__(
        self,
        config: RouterConfig,
        resolve: Resolve,
        ledger: MemoryLedger,
        clock: Clock,
        trace: Trace | None = None,
    ) -> None:
        self._config = config
        self._resolve = resolve
        self._ledger = ledger
        self._clock = clock
        self._trace = trace
        self._importing = asyncio.Lock()
        self._threads = _threads_of_a_cpu_lane(config)
        self._measured = MeasuredStore(config.memory.cache)
        self.lanes: dict[str, Lane] = {}
        self.models: Mapping[str, ServedModel] = {model.name: self._served(model) for model in config.models}
        self.lanczos = self._served(LANCZOS)
        self.instances: Mapping[str, Instance] = {
            instance.name: instance for model in self.models.values() for instance in model.instances.values()
        }

    def find(self, name: str | None) -> ServedModel:
        """The model of that name, or the default one. Raises `ModelNotFoundError`."""
        model = self.models.get(name or self._config.default_model)
        if model is None:
            raise ModelNotFoundError(name or self._config.default_model, tuple(self.models))
        return model

    async def close(self) -> None:
        """Stop probing, keep what was measured, and end the threads of the lanes."""
        for instance in (*self.instances.values(), *self.lanczos.instances.values()):
            instance.stop_probe()
        await self._measured.close()
        for lane in self.lanes.values():
            await asyncio.to_thread(lane.close)

    def _served(self, config: ModelConfig) -> ServedModel:
        return ServedModel(
            config, [self._instance(config.name, each, config.type) for each in config.instances]
        )

    def _instance(self, model: str, config: InstanceConfig, type: str = "") -> Instance:
        return Instance(
            model,
            config,
            Breaker(self._config.breaker, self._clock),
            self._make_backend,
            device_memory=self._config.device_memory,
            on_probed=self._on_probed,
            measured=self._measured,
            type=type,
        )

    async def _make_backend(self, config: InstanceConfig) -> Backend:
        async with self._importing:  # libraries that import their parts late do not bear two threads at it
            factory = await asyncio.to_thread(self._resolve, config.backend)
        return factory(config, self._lane)

    def _lane(self, device: str) -> Lane:
        """Raises `DeviceLostError` for one that is gone: a probe must not call its instances well."""
        if device not in self.lanes:
            threads = self._threads if device.startswith("cpu") else None
            self.lanes[device] = Lane(device, threads=threads, trace=self._trace)
        self.lanes[device].check()
        return self.lanes[device]

    def _on_probed(self, instance: Instance) -> None:
        if instance.capabilities is not None:
            self._ledger.set_budget(instance.device, instance.capabilities.device_memory_bytes)
        is_built_in = self.lanczos.instances.get(instance.name) is instance
        (self.lanczos if is_built_in else self.models[instance.model]).on_probed()


def _threads_of_a_cpu_lane(config: RouterConfig) -> int | None:
    """Lanes on one CPU split its threads; a single one leaves their number to the library."""
    devices = {instance.device for model in config.models for instance in model.instances}
    lanes = sum(device.startswith("cpu") for device in devices)
    return max(1, (os.cpu_count() or 1) // lanes) if lanes > 1 else None


async def wait_for_probes(model: ServedModel, limit_s: float | None) -> None:
    """Wait until every probe of the model that is due has ended. Raises `DeadlineExceededError`."""
    probes = model.begin_probes()
    if not probes:
        return
    _, pending = await asyncio.wait(probes, timeout=limit_s)
    if pending:
        raise DeadlineExceededError(
            f"The deadline passed while the instances of {model.config.name!r} were probed;"
            " give it a longer `deadline_s`, or come again later."
        )
