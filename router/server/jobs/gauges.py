"""Gauges: how many jobs wait and run, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from router.server.jobs.jobs import Jobs


def watch(jobs: Jobs, registry: CollectorRegistry) -> None:
    """Count what this process has in hand whenever the metrics are read."""
    gauge = Gauge("triptych_jobs", "Unfinished jobs.", ("state",), registry=registry)
    gauge.labels("queued").set_function(lambda: jobs.waiting)
    gauge.labels("running").set_function(lambda: jobs.running)
