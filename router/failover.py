"""Failover: which instance is tried next for one request, and whom its failures are blamed on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from router.breaker import fingerprint
from router.errors import (
    BackendError,
    DeviceLostError,
    GenerateError,
    MemoryBudgetError,
    QueueFullError,
    RouterError,
)
from router.instance import Instance
from router.lease import Lease
from router.request import GenerateRequest
from router.types import Attempt

log = logging.getLogger("router")


class Failover:
    """Iterate over it for the instances to try, tell it how each attempt ended, `settle` at the end.

    A full queue only sends the request on; out of memory never to an instance on the same device.
    """

    __slots__ = (
        "_candidates",
        "_failures",
        "_left",
        "_request_id",
        "_served_by",
        "_short_devices",
        "attempts",
        "error",
        "notes",
    )

    def __init__(self, candidates: Sequence[Instance], most: int, request_id: str) -> None:
        self._candidates = candidates
        self._left = most
        self._request_id = request_id
        self._short_devices: set[str] = set()
        self._failures: list[tuple[Instance, BackendError]] = []
        self._served_by: Instance | None = None
        self.attempts: tuple[Attempt, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.error: RouterError = RouterError("No instance was tried.")
        """Of the last attempt that failed."""

    def __iter__(self) -> Iterator[Instance]:
        for instance in self._candidates:
            if instance.device not in self._short_devices and self._left >= 0:
                yield instance

    def failed(self, lease: Lease, error: RouterError) -> None:
        instance = lease.slot.instance
        self.error = error
        self.attempts += (Attempt(instance.name, lease.seconds, error.code, str(error)),)
        if isinstance(error, QueueFullError):
            return
        self._left -= 1
        if isinstance(error, MemoryBudgetError):
            self._short_devices.add(instance.device)
        elif isinstance(error, BackendError) and lease.is_loaded:  # a failed load was counted by the pool
            self._failures.append((instance, error))
        facts = {"request_id": self._request_id, "instance": instance.name, "code": error.code}
        log.warning("attempt failed: %s", error, extra=facts)

    def served(self, lease: Lease) -> None:
        self._served_by = instance = lease.slot.instance
        self.notes = tuple(
            [f"{each.instance} could not serve ({each.code}); {instance.name} did." for each in self.attempts]
        )
        self.attempts += (Attempt(instance.name, lease.seconds),)

    def settle(self, request: GenerateRequest) -> None:
        """Count success and failures for the breakers of those whom they tell of.

        Two instances that fail on one request, and none that serves it, tell of the request. Else a
        failure tells of its instance, but one request counts once, however often it is repeated.
        So a poisonous request opens no breaker where there is another instance to compare with,
        and nowhere by being repeated.
        """
        if self._served_by is not None:
            self._served_by.breaker.succeeded()
        if not self._failures:
            return
        failed_on = {instance.name for instance, error in self._failures if isinstance(error, GenerateError)}
        poisonous = self._served_by is None and len(failed_on) > 1
        for instance, error in self._failures:
            if isinstance(error, DeviceLostError):
                instance.breaker.trip(str(error))
            elif not isinstance(error, GenerateError):
                instance.breaker.failed(str(error))
            elif not poisonous:
                instance.breaker.failed(str(error), fingerprint(request))
