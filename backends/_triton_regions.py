"""Regions: the shared memory between this process and one server, used again from request to request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc
from tritonclient.utils import InferenceServerException

from backends._triton_connection import Connection
from backends._triton_errors import status_of
from backends._triton_region import Region, orphans, sweep

T = TypeVar("T")

_LOG = logging.getLogger("router.backends")

_LEAST_BYTES = 1 << 16
_MOST_IDLE = 32
_FIRST_WAIT_S, _LAST_WAIT_S = 0.02, 4.0


class Regions:
    """Off until `begin`, and from the first failure on; then `take` gives nothing and gRPC carries all."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._connection: Connection | None = None
        self._is_on = False
        self._idle: list[Region] = []
        self._busy: set[Region] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def begin(self, connection: Connection) -> None:
        """Use memory of this machine that the server can open; remove what killed clients left."""
        self._connection, self._is_on = connection, True
        await asyncio.to_thread(sweep)
        with contextlib.suppress(InferenceServerException, grpc.RpcError):
            known = await connection.regions()
            for name in await asyncio.to_thread(orphans, known):
                await connection.unregister(name)

    async def take(self, size: int) -> Region | None:
        """A region of at least `size` bytes, to be given back or dropped; `None` while there is none."""
        if not self._is_on:
            return None
        found = next((region for region in self._idle if region.size >= size), None)
        if found is not None:
            self._idle.remove(found)
        else:
            found = await self._finished(self._made(_rounded(size)))
        if found is not None:
            self._busy.add(found)
        return found

    def give_back(self, region: Region) -> None:
        """The server has done with it."""
        if region not in self._busy:  # all were forgotten meanwhile
            return
        self._busy.discard(region)
        if self._is_on and len(self._idle) < _MOST_IDLE:
            self._idle.append(region)
        else:
            self._begin(self._unregistered(region))

    def drop(self, region: Region) -> None:
        """The server may still write to it: nobody else gets it."""
        if region in self._busy:
            self._busy.discard(region)
            self._begin(self._unregistered(region))

    def forget(self) -> None:
        """The server no longer knows any of them: it was started again."""
        self._idle.clear()
        self._busy.clear()  # each is unmapped with the last reference to it

    def switch_off(self, why: str = "the server does not find it") -> None:
        if self._is_on:
            _LOG.warning("%s: pictures go over gRPC, not by shared memory: %s", self._instance, why)
        self._is_on = False

    async def close(self) -> None:
        for region in [*self._idle, *self._busy]:
            self._begin(self._unregistered(region))
        self.forget()
        self._is_on = False
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _finished(self, making: Coroutine[Any, Any, Region | None]) -> Region | None:
        """A region whose first user gave up meanwhile is there for the next."""
        task = self._begin(making)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._keep)
            raise

    async def _made(self, size: int) -> Region | None:
        assert self._connection is not None
        try:
            region = await asyncio.to_thread(Region, size)
        except OSError as exc:
            self.switch_off(f"this machine has none to give ({exc.strerror})")
            return None
        try:
            await self._connection.register(region.name, region.size)
        except (InferenceServerException, grpc.RpcError) as exc:
            self.switch_off(f"{self._connection.address.name} cannot open ours ({status_of(exc)[1]})")
            return None
        finally:
            await asyncio.to_thread(region.forget_name)
        return region

    async def _unregistered(self, region: Region) -> None:
        """The server refuses while a request that was stopped still holds the region, until its next step."""
        assert self._connection is not None
        wait_s = _FIRST_WAIT_S
        while wait_s < _LAST_WAIT_S:
            try:
                await self._connection.unregister(region.name)
            except (InferenceServerException, grpc.RpcError) as exc:
                if status_of(exc)[0] == "UNAVAILABLE":  # and with the server went its regions
                    return
            else:
                return
            await asyncio.sleep(wait_s)
            wait_s *= 2
        _LOG.warning("%s: %s stays registered at the server", self._instance, region)

    def _keep(self, task: asyncio.Task[Region | None]) -> None:
        region = None if task.cancelled() else task.result()
        if region is not None:
            self._idle.append(region)

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _rounded(size: int) -> int:
    """The next power of two, so that few sizes serve all."""
    return max(_LEAST_BYTES, 1 << (size - 1).bit_length())
