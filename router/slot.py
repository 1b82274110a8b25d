"""Slot: one instance's place in the pool. Its state, who runs on it, who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

from router.capabilities import Capabilities
from router.errors import RouterError
from router.footprint import Demand, Demands, Footprint
from router.instance import Instance
from router.memory import Holding, MemoryLedger
from router.request import GenerateRequest
from router.statistics import InstanceStatus, Pace

if TYPE_CHECKING:
    from router.lease import Lease


_UNMEASURED_WORK_S = 1e-9


class State(StrEnum):
    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"
    """As cold, after a load or an unload that went wrong."""


class Slot:
    """Plain state, changed by the pool alone."""

    __slots__ = (
        "demands",
        "failed",
        "instance",
        "last_used",
        "leases",
        "load_began",
        "loading",
        "name",
        "pace",
        "running_work",
        "served",
        "state",
        "unloading",
        "waiting",
        "weights",
        "workspace",
    )

    def __init__(self, instance: Instance, ledger: MemoryLedger) -> None:
        self.name = instance.name
        self.instance = instance
        self.state = State.COLD
        self.leases: list[Lease] = []
        """Of the requests in progress."""
        self.demands = Demands()
        """Theirs."""
        self.running_work = 0
        self.waiting: deque[Lease] = deque()
        self.weights = Holding(ledger)
        self.workspace = Holding(ledger)
        """What the requests in progress need together: their lane does one thing at a time."""
        self.last_used = 0.0
        self.load_began = 0.0
        self.pace = Pace()
        self.loading: asyncio.Task[RouterError | None] | None = None
        self.unloading: asyncio.Task[None] | None = None
        self.served = 0
        self.failed = 0

    @property
    def device(self) -> str:
        return self.weights.device or self.instance.device

    @property
    def running(self) -> int:
        """Requests in progress."""
        return len(self.leases)

    @property
    def is_resident(self) -> bool:
        """Whether it is never unloaded to make room, nor for being idle."""
        return self.instance.config.resident

    @property
    def is_loaded(self) -> bool:
        """Whether the weights' bytes are promised: loaded, or being loaded."""
        return self.state is State.READY or self.state is State.LOADING

    @property
    def is_idle(self) -> bool:
        return self.state is State.READY and not self.leases

    @property
    def is_busy(self) -> bool:
        return bool(self.leases) or self.state is State.LOADING or self.state is State.UNLOADING

    @property
    def footprint(self) -> Footprint:
        return self.capabilities.footprint

    @property
    def capabilities(self) -> Capabilities:
        capabilities = self.instance.capabilities
        assert capabilities is not None, "routing gives no candidate without capabilities"
        return capabilities

    def rows_in(self, request: GenerateRequest) -> int:
        """Rows of all pictures of an effective request."""
        return self.capabilities.rows_of(request) * request.num_images_per_prompt

    def workspace_bytes(self, demand: Demand, room_bytes: int | None) -> int:
        """For all pictures of a request, or what the device has for them: a lane splits what is more."""
        wanted_bytes = self.footprint.workspace_alone(demand)
        if room_bytes is None:
            return wanted_bytes
        return min(wanted_bytes, max(0, room_bytes - (self.weights.bytes or self.footprint.weights_bytes)))

    def workspace_with(self, lease: Lease) -> int:
        """What the requests in progress would need together with this one."""
        if not self.leases:
            return lease.bytes
        return self.footprint.workspace_bytes(self.demands.together_with(lease.demand))

    def workspace_left(self) -> int:
        """What the requests in progress need together."""
        if len(self.leases) < 2:
            return self.leases[0].bytes if self.leases else 0
        return self.footprint.workspace_bytes(self.demands)

    def loaded(self, seconds: float) -> None:
        """It took so long to load."""
        self.pace.loaded(seconds)
        self.instance.measurements.loaded(self.capabilities, seconds)

    def predicted_s(self, request: GenerateRequest) -> float:
        """Seconds until one more request would be done.

        An instance that nothing was measured on counts as quick, so that it is tried, the less busy
        the quicker, so that not everything is tried on one.
        """
        work_s = _UNMEASURED_WORK_S if self.pace.work_s is None else self.pace.work_s
        load_s = 0.0 if self.state is State.READY else self.pace.load_s or 0.0
        before = self.running_work + sum(lease.work for lease in self.waiting)
        return load_s + work_s * (before + self.rows_in(request) * steps_of(request))

    def status(self) -> InstanceStatus:
        instance = self.instance
        return InstanceStatus(
            name=self.name,
            model=instance.model,
            backend=instance.config.backend,
            device=instance.device,
            state=self.state.value,
            breaker=instance.breaker.state.value,
            capabilities=instance.capabilities,
            error=instance.breaker.why_not() or "",
            running=self.running,
            waiting=len(self.waiting),
            served=self.served,
            failed=self.failed,
            request_s=self.pace.request_s,
        )

    def __repr__(self) -> str:
        return f"<Slot {self.name!r} {self.state.value}, {self.running} running, {len(self.waiting)} waiting>"


def steps_of(request: GenerateRequest) -> int:
    return request.num_inference_steps or 1
