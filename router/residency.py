"""Residency: which instances are loaded; it loads and unloads them, and promises their weights' bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import TypeAlias

from router.breaker import Clock
from router.errors import BackendError, MemoryBudgetError, RouterError
from router.footprint import told
from router.memory import MemoryLedger
from router.slot import Slot, State

log = logging.getLogger("router")

OnSettled: TypeAlias = Callable[[Slot, RouterError | None], None]
"""A load or an unload has ended, with the error that everybody who waited for the load gets."""


class Residency:
    """Decides synchronously who goes and who stays; acts in tasks that nobody who gives up can stop."""

    def __init__(
        self,
        slots: Collection[Slot],
        ledger: MemoryLedger,
        clock: Clock,
        idle_unload_s: float | None,
        on_settled: OnSettled,
    ) -> None:
        self._slots = slots
        self._residents = [slot for slot in slots if slot.is_resident]
        self._ledger = ledger
        self._clock = clock
        self._idle_unload_s = idle_unload_s
        self._on_settled = on_settled
        self._timer: asyncio.TimerHandle | None = None

    # Decisions: nothing is begun here.

    def promise_weights(self, slot: Slot) -> None:
        """For a load that will begin; they were seen to fit."""
        slot.state, slot.load_began = State.LOADING, self._clock()
        slot.weights.resize(slot.device, slot.footprint.weights_bytes)

    def choose_evictions(self, wanted: Slot, needed_bytes: int) -> list[Slot]:
        """The idle instances to unload, least recently used first; none if all of them would not do."""
        others = [slot for slot in self._slots if slot.device == wanted.device and slot is not wanted]
        short_bytes = self._ledger.shortage_bytes(wanted.device, needed_bytes)
        short_bytes -= sum(slot.weights.bytes for slot in others if slot.state is State.UNLOADING)
        chosen: list[Slot] = []
        for slot in sorted(others, key=lambda slot: slot.last_used):
            if short_bytes > 0 and slot.is_idle and not slot.is_resident:
                chosen.append(slot)
                short_bytes -= slot.weights.bytes
        return chosen if short_bytes <= 0 else []

    def room_bytes(self, slot: Slot) -> int | None:
        """What this instance can have of its device, weights included: all that residents leave."""
        budget = self._ledger.budget_bytes(slot.device)
        if budget is None or not self._residents:
            return budget
        return budget - sum(map(_weights_bytes, self._residents_beside(slot)))

    def check_possible(self, slot: Slot) -> None:
        """What no eviction makes room for would wait for ever, and everything younger behind it.

        Raises `MemoryBudgetError`.
        """
        room, weights = self.room_bytes(slot), slot.footprint.weights_bytes
        if room is None or weights <= room:
            return
        held = ", ".join(f"{each.name} {told(_weights_bytes(each))}" for each in self._residents_beside(slot))
        beside = f" beside what is always resident ({held})" if held else ""
        raise MemoryBudgetError(
            f"{slot.name} needs {weights:,} bytes on {slot.device} for its weights, where"
            f" {max(0, room):,} may be promised{beside}."
        )

    def _residents_beside(self, slot: Slot) -> list[Slot]:
        return [each for each in self._residents if _holds_for_ever(each, slot.device) and each is not slot]

    # Actions.

    def load(self, slot: Slot) -> None:
        slot.loading = asyncio.create_task(self._load(slot), name=f"load {slot.name}")

    def unload(self, slot: Slot) -> None:
        """`slot` is marked as unloading from now on."""
        slot.state = State.UNLOADING
        slot.unloading = asyncio.create_task(self.unloaded(slot), name=f"unload {slot.name}")

    async def _load(self, slot: Slot) -> RouterError | None:
        """Load, and return the error that every request waiting for it gets."""
        error: RouterError | None = None
        try:
            await slot.instance.load()
        except RouterError as exc:
            error = exc
            self._load_failed(slot, exc)
        else:
            slot.state = State.READY
            slot.last_used = self._clock()
            seconds = slot.last_used - slot.load_began
            slot.loaded(seconds)
            log.info("loaded", extra={"instance": slot.name, "seconds": seconds})
            self.watch_idle()
        self._on_settled(slot, error)
        return error

    def _load_failed(self, slot: Slot, error: RouterError) -> None:
        slot.state = State.FAILED
        slot.weights.shrink()
        if isinstance(error, BackendError):  # counted here: once for the load, not for each who waits
            slot.instance.breaker.failed(str(error))
        log.warning("load failed: %s", error, extra={"instance": slot.name, "code": error.code})

    async def unloaded(self, slot: Slot) -> None:
        """Unload it now."""
        slot.state = State.UNLOADING
        try:
            await slot.instance.unload()
            slot.state = State.COLD
        except RouterError as exc:
            slot.state = State.FAILED
            log.warning("unload failed: %s", exc, extra={"instance": slot.name, "code": exc.code})
        slot.weights.shrink()
        self._on_settled(slot, None)

    # Idle instances.

    def watch_idle(self) -> None:
        """An instance may have become idle: look again when the first of them has been so for long enough."""
        if self._idle_unload_s is None or self._timer is not None:
            return
        since = min((slot.last_used for slot in self._slots if _may_go(slot)), default=None)
        if since is not None:
            left_s = max(0.0, since + self._idle_unload_s - self._clock())
            self._timer = asyncio.get_running_loop().call_later(left_s, self.unload_idle)

    def unload_idle(self) -> None:
        """Unload what nobody has used for `idle_unload_s`."""
        self._timer = None
        if self._idle_unload_s is None:
            return
        for slot in self._slots:
            idle_s = self._clock() - slot.last_used
            if _may_go(slot) and idle_s >= self._idle_unload_s:
                log.info("unloading what is idle", extra={"instance": slot.name, "seconds": idle_s})
                self.unload(slot)
        self.watch_idle()

    async def close(self) -> None:
        """Unload everything that is idle, and look no more."""
        self._idle_unload_s = None
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*[self.unloaded(slot) for slot in self._slots if slot.is_idle])


def _may_go(slot: Slot) -> bool:
    return slot.is_idle and not slot.waiting and not slot.is_resident


def _holds_for_ever(slot: Slot, device: str) -> bool:
    return slot.instance.capabilities is not None and slot.device == device


def _weights_bytes(slot: Slot) -> int:
    return slot.weights.bytes or slot.footprint.weights_bytes
