"""Adapters: the LoRAs of one instance. Loaded when first asked for, at most so many at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from backends._building import BUILDING
from backends._errors import forget_frames, is_out_of_memory, losses_heard
from backends._gather import Gathering
from backends._lora_file import LoraTensors, inject, read_lora
from backends._module_adapters import ModuleAdapters
from backends._stand_in import MakesCalls
from backends._thread import on_a_thread_of_its_own
from router.cause import log_cause
from router.errors import DeviceLostError, InvalidRequestError, MemoryBudgetError, RouterError
from router.lane import Lane
from router.lora import Lora, LoraError, find_loras
from router.lora_names import DENOISERS, TEXT_ENCODERS
from router.lora_request import LoraSet

log = logging.getLogger("router")


@dataclass(frozen=True, slots=True)
class AdapterStatistics:
    """What LoRAs have cost an instance since it was loaded."""

    loaded: tuple[str, ...]
    """Those that lie in the modules now, the least recently used first."""
    size_bytes: int
    loads: int
    unloads: int
    switches: int
    """Runs of a module that other LoRAs than the last one's were applied for."""
    load_s: float


@dataclass(frozen=True, slots=True)
class _Loaded:
    adapter: str
    """What peft calls it: LoRAs may have names that are none for a module."""
    size_bytes: int


class Adapters:
    """Its methods run on the event loop; what changes modules runs on the lane's thread, between ticks."""

    def __init__(self, instance: str, folders: Sequence[str], limit: int) -> None:
        self._instance = instance
        self._folders = folders
        self._limit = limit
        self._modules: dict[str, ModuleAdapters] = {}
        self._loaded: dict[str, _Loaded] = {}
        self._users: Counter[str] = Counter()
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._loads = self._unloads = 0
        self._load_s = 0.0

    def place(self, pipeline: Any, lane: Lane) -> None:
        """Take the modules of a pipeline that was just loaded. On the lane's thread, as `let_go`."""
        self._pipeline, self._lane = pipeline, lane
        if self._folders:
            self._modules = {name: ModuleAdapters(module) for name, module in _changeable(pipeline)}

    def let_go(self) -> None:
        """The pipeline is unloaded, and its LoRAs with it."""
        self._pipeline, self._modules, self._loaded = None, {}, {}

    def module(self, component: str) -> ModuleAdapters:
        """Those of one module of the pipeline that was placed."""
        return self._modules[component]

    def calls_of(self, component: str, gathering: Gathering, loras: LoraSet) -> MakesCalls:
        """What makes the calls of one task to a module of the pipeline."""
        module = self._modules.get(component)
        return module.calls(gathering, loras) if module else gathering

    @contextlib.asynccontextmanager
    async def held(self, loras: LoraSet) -> AsyncIterator[None]:
        """Inside, these are loaded, and are not let go. Raises `InvalidRequestError` for one that cannot be.

        Who comes first is served first, so that nobody waits for ever while others use all there is room for.
        """
        names = [name for name, _ in loras]
        if names:  # who asks for none waits for nobody's
            async with self._turn:
                for name in names:
                    await self._load(name, names)
                self._users.update(names)
        try:
            yield
        finally:
            self._users.subtract(names)
            self._freed.set()

    def statistics(self) -> AdapterStatistics:
        return AdapterStatistics(
            loaded=tuple(self._loaded),
            size_bytes=sum(each.size_bytes for each in list(self._loaded.values())),
            loads=self._loads,
            unloads=self._unloads,
            switches=sum(module.switches for module in self._modules.values()),
            load_s=self._load_s,
        )

    async def _load(self, name: str, kept: Collection[str]) -> None:
        if name in self._loaded:
            self._loaded[name] = self._loaded.pop(name)  # the most recently used
            return
        await self._make_room(kept)
        started = time.perf_counter()
        try:
            read = await on_a_thread_of_its_own(lambda: self._read(name))
            await self._lane.run(lambda: self._put_in(name, read))
        except LoraError as exc:
            raise self._refusal(name, str(exc)) from exc
        except (RouterError, asyncio.CancelledError):
            raise
        except Exception as exc:
            raise self._failure(name, exc) from exc
        seconds = time.perf_counter() - started
        self._load_s += seconds
        facts = {"instance": self._instance, "seconds": seconds, "bytes": self._loaded[name].size_bytes}
        log.info("LoRA %r loaded", name, extra=facts)

    async def _make_room(self, kept: Collection[str]) -> None:
        """Let the least recently used one go that nobody uses; wait for one where all are in use."""
        while len(self._loaded) >= self._limit:
            idle = next((name for name in self._loaded if not self._users[name] and name not in kept), None)
            if idle is not None:
                await self._lane.run(partial(self._take_out, idle))
            else:
                self._freed.clear()
                await self._freed.wait()

    def _failure(self, name: str, exc: Exception) -> RouterError:
        """What the libraries raised: a file they cannot use is the request's fault, want of memory is not."""
        log_cause(log, "a LoRA could not be loaded", exc, self._instance)
        forget_frames(exc)
        if is_out_of_memory(exc):
            return MemoryBudgetError(
                f"{self._instance} found too little device memory to load LoRA {name!r}; come again later,"
                " or lower its option `loaded_loras`."
            )
        return self._refusal(name, f"could not be loaded ({type(exc).__name__})")

    def _refusal(self, name: str, what: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._instance}: LoRA {name!r} {what}; leave it out of `loras`.", param="loras"
        )

    def _read(self, name: str) -> LoraTensors:
        """Blocking: the file as it lies there now."""
        file = find_loras(self._folders).get(name)
        if file is None:
            raise LoraError("is no longer in its folder")
        return read_lora(Lora.read(name, file), self._pipeline)

    # On the lane's thread.

    def _put_in(self, name: str, read: LoraTensors) -> None:
        self._loads += 1
        adapter = f"adapter{self._loads}"
        try:
            with losses_heard(self._instance), BUILDING:
                inject(read, adapter, type(self._pipeline), self._modules)
        except DeviceLostError:
            raise
        except BaseException:
            self._remove(adapter)
            raise
        touched = [module for module in self._modules.values() if module.holds(adapter)]
        for module in touched:
            module.added(name, adapter)
        self._loaded[name] = _Loaded(adapter, sum(module.size_bytes(adapter) for module in touched))

    def _take_out(self, name: str) -> None:
        self._remove(self._loaded.pop(name).adapter)
        self._unloads += 1

    def _remove(self, adapter: str) -> None:
        for module in self._modules.values():
            if module.holds(adapter):
                module.remove(adapter)


def _changeable(pipeline: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    for name in DENOISERS + TEXT_ENCODERS:
        if isinstance(module := getattr(pipeline, name, None), torch.nn.Module):
            yield name, module
