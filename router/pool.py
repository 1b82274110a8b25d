"""Pool: which instances are loaded, who runs on them, who waits, and which bytes that takes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from router.breaker import Clock
from router.config import Limits
from router.errors import BackendError, MemoryBudgetError, QueueFullError, RouterError
from router.instance import Instance
from router.lease import Lease
from router.memory import MemoryLedger
from router.request import GenerateRequest
from router.slot import Slot, State
from router.types import OnEvent

log = logging.getLogger("router")


@dataclass(slots=True)
class _Decision:
    """What follows from one decision; it is carried out when the decision is complete."""

    loads: list[Slot] = field(default_factory=list)
    unloads: list[Slot] = field(default_factory=list)


class Pool:
    """Leases instances to requests. Everything here runs on one event loop, so nothing is locked.

    A request is in flight from its admission on, when it has a place on its instance and its bytes
    are promised. One that still waits counts for nothing: it must not keep an idle instance loaded.
    """

    def __init__(
        self,
        instances: Iterable[Instance],
        limits: Limits,
        ledger: MemoryLedger,
        clock: Clock = time.monotonic,
    ) -> None:
        self._slots: Mapping[str, Slot] = {each.name: Slot(each) for each in instances}
        self._limits = limits
        self._ledger = ledger
        self.clock = clock
        self._arrivals = 0
        self._waiting = 0
        self._closing = False
        self._changed: asyncio.Future[None] | None = None

    def slot(self, instance: str) -> Slot:
        return self._slots[instance]

    def lease(self, instance: str, request: GenerateRequest, on_event: OnEvent) -> Lease:
        """`async with` it: inside, the instance is loaded and the request's bytes are promised.

        Entering raises `QueueFullError` where too many wait already, and what loading raised.
        """
        slot = self._slots[instance]
        rows = slot.rows_in(request)
        bytes = slot.workspace_bytes(request, rows, self._ledger.budget_bytes(slot.device))
        return Lease(self, slot, request, on_event, rows=rows, bytes=bytes)

    # What a lease asks for.

    def enter(self, lease: Lease) -> None:
        """Admit the request or put it into the queue of its instance. Raises `QueueFullError`."""
        self._check_open()
        slot = lease.slot
        if slot.state is State.READY and not self._waiting and self._has_place(slot) and self._admit(lease):
            return
        self._check_possible(lease)
        self._arrivals += 1
        lease.arrival = self._arrivals
        slot.waiting.append(lease)
        self._waiting += 1
        self._turn()
        if not lease.admitted and len(slot.waiting) > self._limits.queue:
            raise self._queue_full(lease)

    def leave(self, lease: Lease) -> None:
        """The request's work has ended, or it no longer waits: give its place and bytes back."""
        slot = lease.slot
        if lease.admitted:
            lease.admitted = False
            slot.running -= 1
            slot.running_work -= lease.work
            slot.last_used = self.clock()
            self._ledger.release(lease.device, lease.bytes)
        elif lease in slot.waiting:
            self._drop(lease)
        if self._waiting:
            self._turn()
        self._wake()

    async def idle(self) -> None:
        """Wait until nothing runs, loads or unloads."""
        while any(slot.is_busy for slot in self._slots.values()):
            if self._changed is None or self._changed.done():
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)

    async def close(self) -> None:
        """Refuse what waits, let what runs come to its end, and unload everything."""
        self._closing = True
        for slot in self._slots.values():
            self._refuse_waiting(slot, RouterError("The router is closed; no new request is served."))
        await self.idle()
        await asyncio.gather(*[self._unload(slot) for slot in self._slots.values() if slot.is_idle])

    # The decision.

    def _turn(self) -> None:
        decision = self._decide()
        for slot in decision.loads:
            slot.loading = asyncio.create_task(self._load(slot), name=f"load {slot.name}")
        for slot in decision.unloads:
            slot.unloading = asyncio.create_task(self._unload(slot), name=f"unload {slot.name}")

    def _decide(self) -> _Decision:
        """Admit who can be admitted: instance by instance the oldest, among these the oldest first.

        There are three cases for a request whose instance has a free place:
        1. Its bytes fit (the weights too, if they are not loaded): it is admitted.
        2. They would fit without idle instances: these are unloaded, least recently used first.
        3. Neither: it waits until running requests give bytes back.
        In 2 and 3 younger requests for the same device wait behind it. Only those that need no
        load may overtake it, as often as an instance has places; else two instances that do not
        fit together would be loaded in turn for every single request.
        """
        decision = _Decision()
        short: dict[str, Lease] = {}  # device -> the oldest request that waits for its bytes
        open_slots = [slot for slot in self._slots.values() if self._has_turn(slot)]
        while open_slots:
            slot = min(open_slots, key=lambda each: each.waiting[0].arrival)
            lease = slot.waiting[0]
            oldest = short.get(slot.device)
            if oldest is not None and not self._may_overtake(lease, oldest):
                open_slots.remove(slot)
            elif self._fits(lease):
                if oldest is not None:
                    oldest.overtaken += 1
                if not slot.is_loaded:
                    self._begin_load(slot, decision)
                self._drop(lease)
                self._admit(lease)
                if not self._has_turn(slot):
                    open_slots.remove(slot)
            else:
                self._evict_for(lease, decision)
                short.setdefault(slot.device, lease)
                open_slots.remove(slot)
        return decision

    def _has_turn(self, slot: Slot) -> bool:
        return bool(slot.waiting) and self._has_place(slot) and slot.state is not State.UNLOADING

    def _has_place(self, slot: Slot) -> bool:
        return slot.running < self._limits.concurrency

    def _may_overtake(self, lease: Lease, oldest: Lease) -> bool:
        return lease.slot.is_loaded and oldest.overtaken < self._limits.concurrency and self._fits(lease)

    def _fits(self, lease: Lease) -> bool:
        return self._ledger.fits(lease.slot.device, self._needed_bytes(lease))

    def _needed_bytes(self, lease: Lease) -> int:
        """What must be promised now: the workspace, and the weights if they are not yet."""
        slot = lease.slot
        return lease.bytes if slot.is_loaded else lease.bytes + slot.footprint.weights_bytes

    def _admit(self, lease: Lease) -> bool:
        """Give the request its place and its bytes, if these fit."""
        slot = lease.slot
        device = slot.device
        if not self._ledger.promise(device, lease.bytes):
            return False
        slot.running += 1
        slot.running_work += lease.work
        lease.admit(device)
        return True

    def _begin_load(self, slot: Slot, decision: _Decision) -> None:
        slot.state = State.LOADING
        slot.promised_on, slot.weights_bytes = slot.device, slot.footprint.weights_bytes
        self._ledger.promise(slot.device, slot.weights_bytes)
        decision.loads.append(slot)

    def _evict_for(self, lease: Lease, decision: _Decision) -> None:
        """Choose idle instances to unload; none if even all of them would not make room."""
        device = lease.slot.device
        others = [slot for slot in self._slots.values() if slot.device == device]
        short_bytes = self._ledger.shortage_bytes(device, self._needed_bytes(lease))
        short_bytes -= sum(slot.weights_bytes for slot in others if slot.state is State.UNLOADING)
        chosen: list[Slot] = []
        for slot in sorted(others, key=lambda slot: slot.last_used):
            if short_bytes > 0 and slot.is_idle and slot is not lease.slot:
                chosen.append(slot)
                short_bytes -= slot.weights_bytes
        if short_bytes <= 0:
            for slot in chosen:
                slot.state = State.UNLOADING
            decision.unloads += chosen

    # Loads and unloads belong to the pool: whoever waits for one may give up, it goes on.

    async def _load(self, slot: Slot) -> RouterError | None:
        """Load, and return the error that every request waiting for it gets."""
        started = self.clock()
        error: RouterError | None = None
        try:
            await slot.instance.load()
        except RouterError as exc:
            error = exc
            self._load_failed(slot, exc)
        else:
            slot.state = State.READY
            slot.last_used = self.clock()
            slot.pace.loaded(self.clock() - started)
            log.info("loaded", extra={"instance": slot.name, "seconds": self.clock() - started})
        self._turn()
        self._wake()
        return error

    def _load_failed(self, slot: Slot, error: RouterError) -> None:
        slot.state = State.FAILED
        self._give_back_weights(slot)
        if isinstance(error, BackendError):  # counted here: once for the load, not for each who waits
            slot.instance.breaker.failed(str(error))
        log.warning("load failed: %s", error, extra={"instance": slot.name, "code": error.code})
        self._refuse_waiting(slot, error)

    async def _unload(self, slot: Slot) -> None:
        slot.state = State.UNLOADING
        try:
            await slot.instance.unload()
            slot.state = State.COLD
        except RouterError as exc:
            slot.state = State.FAILED
            log.warning("unload failed: %s", exc, extra={"instance": slot.name, "code": exc.code})
        self._give_back_weights(slot)
        self._turn()
        self._wake()

    def _give_back_weights(self, slot: Slot) -> None:
        self._ledger.release(slot.promised_on, slot.weights_bytes)
        slot.promised_on, slot.weights_bytes = "", 0

    # The queue.

    def _drop(self, lease: Lease) -> None:
        lease.slot.waiting.remove(lease)
        self._waiting -= 1
        for position, other in enumerate(lease.slot.waiting, start=1):
            other.moved_to(position)

    def _refuse_waiting(self, slot: Slot, error: RouterError) -> None:
        for lease in tuple(slot.waiting):
            self._drop(lease)
            lease.refuse(error)

    def _queue_full(self, lease: Lease) -> QueueFullError:
        slot = lease.slot
        self._drop(lease)
        waiting, places = len(slot.waiting), self._limits.concurrency
        request_s = slot.pace.request_s
        retry_after_s = None if request_s is None else request_s * (waiting + 1) / places
        again = "later" if retry_after_s is None else f"in about {retry_after_s:.1f} s"
        return QueueFullError(
            f"{waiting} requests wait for {slot.name}, which is as many as may wait; come again {again}.",
            retry_after_s=retry_after_s,
        )

    def _check_possible(self, lease: Lease) -> None:
        """What no eviction makes room for would wait for ever, and everything younger behind it."""
        slot = lease.slot
        budget, weights = self._ledger.budget_bytes(slot.device), slot.footprint.weights_bytes
        if budget is not None and weights > budget:
            raise MemoryBudgetError(
                f"{slot.name} needs {weights:,} bytes on {slot.device}, where {budget:,} may be promised."
            )

    def _check_open(self) -> None:
        if self._closing:
            raise RouterError("The router is closed; no new request is served.")

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def __repr__(self) -> str:
        slots = self._slots.values()
        counts = [(state.value, sum(slot.state is state for slot in slots)) for state in State]
        states = ", ".join(f"{count} {name}" for name, count in counts if count)
        running = sum(slot.running for slot in slots)
        return f"<Pool [{states} | {running} running, {self._waiting} waiting]>"
