"""Pool: which instances are loaded, who runs on them, who waits, and which bytes that takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from router.breaker import Clock
from router.config import Limits
from router.errors import QueueFullError, RouterError
from router.instance import Instance
from router.lease import Lease
from router.memory import MemoryLedger
from router.request import GenerateRequest
from router.residency import Residency
from router.room import demand_of
from router.slot import Slot, State
from router.types import OnEvent


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
        idle_unload_s: float | None = None,
    ) -> None:
        self._slots: Mapping[str, Slot] = {each.name: Slot(each, ledger) for each in instances}
        self._limits = limits
        self._ledger = ledger
        self.residency = Residency(self._slots.values(), ledger, clock, idle_unload_s, self._settled)
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
        demand = demand_of(slot.capabilities, request)
        bytes = slot.workspace_bytes(demand, self.residency.room_bytes(slot))
        return Lease(self, slot, request, on_event, demand=demand, bytes=bytes)

    # What a lease asks for.

    def enter(self, lease: Lease) -> None:
        """Admit the request or put it into the queue of its instance. Raises `QueueFullError`."""
        self._check_open()
        slot = lease.slot
        if slot.state is State.READY and not self._waiting and self._has_place(slot) and self._admit(lease):
            return
        self.residency.check_possible(slot)
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
            slot.leases.remove(lease)
            slot.demands.remove(lease.demand)
            slot.running_work -= lease.work
            slot.last_used = self.clock()
            slot.workspace.shrink(slot.workspace_left())
            self.residency.watch_idle()
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
        await self.residency.close()

    # The decision.

    def _turn(self) -> None:
        decision = self._decide()
        for slot in decision.loads:
            self.residency.load(slot)
        for slot in decision.unloads:
            self.residency.unload(slot)

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
                    self.residency.promise_weights(slot)
                    decision.loads.append(slot)
                self._drop(lease)
                self._admit(lease)
                if not self._has_turn(slot):
                    open_slots.remove(slot)
            else:
                chosen = self.residency.choose_evictions(slot, self._needed_bytes(lease))
                for each in chosen:
                    each.state = State.UNLOADING
                decision.unloads += chosen
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
        """What must be promised now: more workspace, and the weights if they are not yet."""
        slot = lease.slot
        more = slot.workspace.growth_bytes(slot.device, slot.workspace_with(lease))
        return more if slot.is_loaded else more + slot.footprint.weights_bytes

    def _admit(self, lease: Lease) -> bool:
        """Give the request its place and its bytes, if these fit."""
        slot = lease.slot
        device = slot.device
        if not slot.workspace.resize(device, max(slot.workspace.bytes, slot.workspace_with(lease))):
            return False
        slot.leases.append(lease)
        slot.demands.add(lease.demand)
        slot.running_work += lease.work
        lease.admit(device)
        return True

    def _settled(self, slot: Slot, error: RouterError | None) -> None:
        """A load or an unload has ended: whoever waits for it, or for its bytes, can go on."""
        if error is not None:
            self._refuse_waiting(slot, error)
        self._turn()
        self._wake()

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
