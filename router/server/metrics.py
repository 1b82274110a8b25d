"""Metrics for Prometheus: counted per request, and read from the router when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from router.breaker import BreakerState
from router.router import BackendRouter
from router.slot import State
from router.types import GenerateResult

MEDIA_TYPE = CONTENT_TYPE_LATEST

_BY_INSTANCE = ("model", "instance")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_STEP_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ROWS = (1, 2, 4, 8, 12, 16, 24, 32)


class Metrics:
    """One registry of its own, so that several services can live in one process.

    Every metric is kept as a function from its labels to what counts: looking them up took longer.
    """

    def __init__(self, router: BackendRouter) -> None:
        registry = self.registry = CollectorRegistry()
        registry.register(_RouterCollector(router))

        def counter(name: str, text: str, labels: Sequence[str]) -> Callable[..., Counter]:
            return cache(Counter(name, text, labels, registry=registry).labels)

        def histogram(
            name: str, text: str, labels: Sequence[str], buckets: Sequence[float] = _SECONDS
        ) -> Callable[..., Histogram]:
            return cache(Histogram(name, text, labels, registry=registry, buckets=buckets).labels)

        self._requests = counter("triptych_requests", "Replies sent.", ("route", "status"))
        self._errors = counter("triptych_errors", "Error replies.", ("code",))
        self._request_s = histogram("triptych_request_seconds", "Until the reply was sent.", ("route",))
        self._pictures = counter("triptych_pictures", "Pictures made.", _BY_INSTANCE)
        self._queued_s = histogram(
            "triptych_queue_wait_seconds", "Waiting for a place on the instance.", _BY_INSTANCE
        )
        self._generate_s = histogram(
            "triptych_generate_seconds", "Making all pictures of a request.", _BY_INSTANCE
        )
        self._step_s = histogram(
            "triptych_step_seconds",
            "Seconds of a request's generation over its steps.",
            _BY_INSTANCE,
            _STEP_SECONDS,
        )
        self._rows = histogram(
            "triptych_rows_per_tick",
            "Mean rows of the common runs that a request took part in, neighbours' included.",
            _BY_INSTANCE,
            _ROWS,
        )

    def answered(self, route: str, status: int, code: str, seconds: float) -> None:
        self._requests(route, status).inc()
        self._request_s(route).observe(seconds)
        if code:
            self._errors(code).inc()

    def served(self, result: GenerateResult) -> None:
        labels = (result.request.model, result.instance)
        timings = result.timings
        self._pictures(*labels).inc(len(result.images))
        self._queued_s(*labels).observe(timings.queued_s)
        self._generate_s(*labels).observe(timings.generate_s)
        self._step_s(*labels).observe(timings.generate_s / (result.request.num_inference_steps or 1))
        if result.ticks:
            self._rows(*labels).observe(result.rows / result.ticks)

    def text(self) -> bytes:
        """Everything in Prometheus' text form; some milliseconds, so in a thread of the caller's choice."""
        return generate_latest(self.registry)


class _RouterCollector(Collector):
    """What the router knows of itself, at the moment of asking."""

    def __init__(self, router: BackendRouter) -> None:
        self._router = router

    def collect(self) -> Iterable[Metric]:
        yield from self._of_instances()
        yield from self._of_lanes()
        yield self._of_warnings()
        yield from self._of_enhancements()

    def _of_instances(self) -> Iterable[Metric]:
        running = GaugeMetricFamily("triptych_running", "Requests in progress.", labels=_BY_INSTANCE)
        waiting = GaugeMetricFamily("triptych_queue", "Requests that wait.", labels=_BY_INSTANCE)
        states = GaugeMetricFamily(
            "triptych_instance_state", "1 for the state it is in.", labels=(*_BY_INSTANCE, "state")
        )
        breakers = GaugeMetricFamily(
            "triptych_breaker_state", "1 for the state it is in.", labels=(*_BY_INSTANCE, "state")
        )
        for status in self._router.instances():
            labels = [status.model, status.name]
            running.add_metric(labels, status.running)
            waiting.add_metric(labels, status.waiting)
            for state in State:
                states.add_metric([*labels, state.value], status.state == state.value)
            for breaker in BreakerState:
                breakers.add_metric([*labels, breaker.value], status.breaker == breaker.value)
        return running, waiting, states, breakers

    def _of_warnings(self) -> Metric:
        text = "Requests that were slow, pictures unlike the one they were made from, by their thresholds."
        warnings = CounterMetricFamily("triptych_warnings", text, labels=("warning", *_BY_INSTANCE))
        for labels, count in self._router.statistics().warnings.items():
            warnings.add_metric(labels, count)
        return warnings

    def _of_enhancements(self) -> Iterable[Metric]:
        """None where no enhancer is configured."""
        found = self._router.statistics().enhancements
        if found is None:
            return
        text = "Prompts asked to be enhanced: made anew, known, shared with another request, failed."
        counts = CounterMetricFamily("triptych_enhancements", text, labels=("answer",))
        for name in ("made", "hits", "joined", "failed"):
            counts.add_metric([name], getattr(found, name))
        yield counts

    def _of_lanes(self) -> Iterable[Metric]:
        statistics = self._router.statistics()
        promised = GaugeMetricFamily("triptych_promised_bytes", "Memory promised.", labels=("device",))
        ticks = CounterMetricFamily("triptych_lane_ticks", "Common runs.", labels=("device",))
        rows = CounterMetricFamily("triptych_lane_rows", "Rows of the common runs.", labels=("device",))
        busy = CounterMetricFamily("triptych_lane_busy_seconds", "Time in common runs.", labels=("device",))
        occupancy = GaugeMetricFamily("triptych_lane_occupancy", "Mean rows of a run.", labels=("device",))
        for device, promised_bytes in statistics.promised_bytes.items():
            promised.add_metric([device], promised_bytes)
        for device, lane in statistics.lanes.items():
            ticks.add_metric([device], lane.ticks)
            rows.add_metric([device], lane.rows)
            busy.add_metric([device], lane.busy_s)
            occupancy.add_metric([device], lane.occupancy)
        return promised, ticks, rows, busy, occupancy
