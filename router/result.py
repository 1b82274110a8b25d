"""result_of: a route that was taken to its end, as the `GenerateResult` of its request."""

from __future__ import annotations

from router.failover import Failover
from router.lease import Lease
from router.routing import Route
from router.types import Generated, GenerateResult


def result_of(
    route: Route, generated: Generated, lease: Lease, failover: Failover, route_s: float
) -> GenerateResult:
    return GenerateResult(
        pictures=generated.pictures,
        request=route.request,
        instance=lease.slot.name,
        backend=lease.slot.instance.config.backend,
        attempts=failover.attempts,
        adjustments=route.adjustments,
        notes=route.notes + failover.notes + generated.notes,
        timings=lease.timings(route_s),
        ticks=generated.ticks,
        rows=generated.rows,
        peak_bytes=generated.peak_bytes,
    )
