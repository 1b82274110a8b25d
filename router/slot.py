"""Slot: one instance's place in the pool. Its state, who runs on it, who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

from router.capabilities import Capabilities
from router.errors import RouterError
from router.instance import Instance
from router.request import GenerateRequest
from router.statistics import InstanceStatus, Pace
from router.types import Footprint

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
        "failed",
        "instance",
        "last_used",
        "loading",
        "name",
        "pace",
        "promised_on",
        "running",
        "running_work",
        "served",
        "state",
        "unloading",
        "waiting",
        "weights_bytes",
    )

    def __init__(self, instance: Instance) -> None:
        self.name = instance.name
        self.instance = instance
        self.state = State.COLD
        self.running = 0
        self.running_work = 0
        self.waiting: deque[Lease] = deque()
        self.weights_bytes = 0
        self.promised_on = ""
        """The device where `weights_bytes` are promised; empty while none are."""
        self.last_used = 0.0
        self.pace = Pace()
        self.loading: asyncio.Task[RouterError | None] | None = None
        self.unloading: asyncio.Task[None] | None = None
        self.served = 0
        self.failed = 0

    @property
    def device(self) -> str:
        return self.promised_on or self.instance.device

    @property
    def is_loaded(self) -> bool:
        """Whether the weights' bytes are promised: loaded, or being loaded."""
        return self.state is State.READY or self.state is State.LOADING

    @property
    def is_idle(self) -> bool:
        return self.state is State.READY and not self.running

    @property
    def is_busy(self) -> bool:
        return self.running > 0 or self.state is State.LOADING or self.state is State.UNLOADING

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

    def workspace_bytes(self, request: GenerateRequest, rows: int, budget_bytes: int | None) -> int:
        """For all pictures at once, or what the device has for them: a lane splits what is more."""
        assert request.height is not None
        assert request.width is not None
        footprint, row_limit = self.footprint, self.instance.config.row_limit
        rows = rows if row_limit is None else min(rows, row_limit)
        wanted_bytes = footprint.workspace_bytes(request.height, request.width, rows)
        if budget_bytes is None:
            return wanted_bytes
        return min(wanted_bytes, max(0, budget_bytes - (self.weights_bytes or footprint.weights_bytes)))

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
