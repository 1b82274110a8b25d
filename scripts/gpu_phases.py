"""The phases of bench_gpu: what is measured of one model, each phase in a call of its own if need be."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from backends._errors import forget_frames
from backends._gauge import Gauge
from backends._speed import SpeedOptions
from router.errors import RouterError
from router.footprint import Workspace
from router.request import GenerateRequest
from scripts.gpu_card import Card
from scripts.gpu_changes import changes
from scripts.gpu_models import Asked, denoiser, parameters
from scripts.gpu_promise import Promise
from scripts.gpu_ways import Captured, OnLane, Plain, compile_blocks, requests

COUNTS = (1, 8, 4, 16)
"""The first two are those of the targets, and all that compiled ways are measured at."""

PLAIN_BATCH = 8
LONG_S = 20.0
"""Runs are repeated until so many seconds are spent on them."""

FAULTS = (RuntimeError, ValueError, TypeError, AssertionError, ImportError, RouterError)
"""What torch, its compiler, its extensions and a lane raise for what cannot be here."""


@dataclass
class Bench:
    """One model on one card. `rows` are what was measured, `left_out` what the time did not suffice for."""

    card: Card
    pipeline: Any
    asked: Asked
    dtype: torch.dtype
    repeats: int
    row_limit: int
    ends_at: float
    counts: tuple[int, ...] = COUNTS
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """What a device or library could not do, and what it said. The rest is measured all the same."""

    def run(self, phases: Sequence[str]) -> Iterator[None]:
        """Comes back after each phase."""
        self.learn()
        for phase in phases:
            with self._noting(f"phase {phase}"):
                getattr(self, phase.replace("-", "_"))()
            yield

    def learn(self) -> None:
        """What the shares are of: the card's matrix rate, and the operations of a picture."""
        name, module = denoiser(self.pipeline)
        wanted = requests(self.asked, 1, steps=2)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            Plain(self.pipeline, 1).call(wanted)
            whole = counter.get_total_flops()
        captured = Captured(self.pipeline, wanted)
        with FlopCounterMode(display=False) as counter:
            output = captured()
            step = counter.get_total_flops()
        self.facts |= {
            "denoiser": type(module).__name__,
            "denoiser_parameters": parameters(module),
            "rows_per_picture": captured.rows,
            "flop_per_step": step,
            "flop_per_picture": whole + (self.asked.steps - 2) * step,
            "matrix_flop_per_s": self.card.matrix_rate(self.dtype),
            "matrix_dtype": str(self.dtype).removeprefix("torch."),
            "finite": bool(torch.isfinite(output[0]).all()),
            "name": name,
        }

    @property
    def most(self) -> int:
        """Requests at once that plain Diffusers and single choices are measured with."""
        return min(PLAIN_BATCH, max(self.counts))

    def eager(self, way: str = "Diffusers, eager") -> None:
        self._plain(way, 1, 1)
        self._plain(way, self.most, self.most)

    def compiled(self) -> None:
        undo = compile_blocks(denoiser(self.pipeline)[1])
        try:
            self.eager("Diffusers, compiled blocks")
        finally:
            undo()

    def lane(self) -> None:
        self._on_lane("lane", SpeedOptions())

    def lane_compiled(self) -> None:
        buckets = sorted(
            {min(self.row_limit, count * self.facts["rows_per_picture"]) for count in self.counts}
        )
        options = SpeedOptions(compile=True, compile_part="blocks", row_buckets=tuple(buckets))
        self._on_lane("lane, compiled blocks", options, self.counts[:2])

    def choices(self) -> None:
        """Each setting alone, on one call of the denoiser with the rows of a full tick."""
        per_picture = self.facts["rows_per_picture"]
        captured = Captured(self.pipeline, requests(self.asked, max(1, self.row_limit // per_picture)))
        plain = captured()[0].float()
        first = self._choice("as it is", captured, plain, captured)
        if self.card.is_cuda:  # against the lines of phase `lane`
            options = SpeedOptions(decode_stream=True)
            with self._noting("choice: decode_stream"):
                self._on_lane("lane, decoding on a stream of its own", options, [self.most])
        for name, change in changes(captured, self.card, self.dtype):
            with self._noting(f"choice: {name}"), change as call:
                self._choice(name, captured, plain, call, first)

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except FAULTS as exc:
            said = next(iter(f"{exc}".splitlines()), "")
            self.failed.append(f"{what}: {type(exc).__name__}: {said[:200]}")
            forget_frames(exc)
        self.card.forget_freed()

    def _plain(self, way: str, count: int, batch: int) -> None:
        plain = Plain(self.pipeline, batch)
        how = f"{count} at once" if batch > 1 else "one at a time"
        self._measure(f"{way}, {how}", count, "equal", plain.run, batch)

    def _on_lane(self, way: str, options: SpeedOptions, counts: Sequence[int] = ()) -> None:
        started = time.perf_counter()
        rows, meter = self.facts["rows_per_picture"], self.card.meter
        promise = Promise(self.pipeline, self.asked, self.dtype, rows)
        gauge = Gauge(meter, promise.cell_pixels) if meter else None
        lane = OnLane(self.pipeline, str(self.card.device), options, self.asked, self.row_limit, gauge)
        self.facts[f"load_s of {way}"] = time.perf_counter() - started

        def run(count: int, workload: str) -> None:
            measured = self._measure(way, count, workload, lane.run, count)
            limits = lane.backend.row_limit, lane.backend.decode_row_limit
            if measured is not None:
                beside = {"overlapped": options.decode_stream}
                measured["formula_bytes"] = promise.bytes(count, *limits, Workspace(), **beside)
                promised = promise.bytes(count, *limits, lane.backend.workspace(), **beside)
                peak = measured["peak_bytes"]
                measured |= {"promised_bytes": promised, "peak_share": peak and peak / promised}

        try:
            for count in counts or self.counts:
                run(count, "equal")
                if count > 1:
                    run(count, "mixed")
        finally:
            lane.close()

    def _measure(
        self,
        way: str,
        count: int,
        workload: str,
        run: Callable[[Sequence[GenerateRequest]], None],
        at_once: int,
    ) -> dict[str, Any] | None:
        if time.monotonic() > self.ends_at:
            self.left_out.append(f"{way}, {count} {workload}")
            return None
        wanted = requests(self.asked, count, mixed=workload == "mixed")
        run(self._shorter(wanted))
        self.card.forget_peak()
        seconds = self._seconds(lambda: run(wanted))
        peak = self.card.peak_bytes()
        middle = statistics.median(seconds)
        step_s = None
        if workload == "equal":
            step_s = max(0.0, self._step_s(run, wanted, middle) * at_once / count) or None  # 0: lost in noise
        per_picture = middle / count
        self.rows.append(
            {
                "way": way,
                "requests": count,
                "workload": workload,
                "seconds": seconds,
                "images_per_s": 1 / per_picture,
                "s_per_picture": per_picture,
                "iterations_per_s": step_s and 1 / step_s,
                "overhead_per_step_s": step_s and step_s - self._bare_s(at_once),
                "matrix_share": self.facts["flop_per_picture"]
                / per_picture
                / self.facts["matrix_flop_per_s"],
                "peak_bytes": peak,
            }
        )
        return self.rows[-1]

    def _step_s(
        self,
        run: Callable[[Sequence[GenerateRequest]], None],
        wanted: Sequence[GenerateRequest],
        seconds: float,
    ) -> float:
        """Of one step of all requests: what half of the steps take less. Texts and decoding fall out."""
        shorter = self._shorter(wanted)
        less = statistics.median(self._seconds(lambda: run(shorter)))
        return (seconds - less) / (self.asked.steps - self.asked.steps // 2)

    def _shorter(self, wanted: Sequence[GenerateRequest]) -> list[GenerateRequest]:
        """With half of the steps."""
        return [each.model_copy(update={"num_inference_steps": _half(each)}) for each in wanted]

    def _seconds(self, run: Callable[[], object]) -> list[float]:
        """Of `repeats` runs, fewer where they are long."""
        first = self.card.seconds(run, 1)
        return first + self.card.seconds(run, min(self.repeats - 1, int(LONG_S // first[0])))

    def _bare_s(self, count: int) -> float:
        """The denoiser alone, for a step of so many requests, in ticks as large as the lane's."""
        at_once = max(1, min(count, self.row_limit // self.facts["rows_per_picture"]))
        captured = Captured(self.pipeline, requests(self.asked, at_once))
        captured()
        ticks = math.ceil(count / at_once)
        return ticks * statistics.median(self.card.seconds(captured, max(3, self.repeats)))

    def _choice(
        self,
        name: str,
        captured: Captured,
        plain: torch.Tensor,
        call: Callable[[], Any],
        first: float | None = None,
    ) -> float:
        if time.monotonic() > self.ends_at:
            self.left_out.append(f"choice: {name}")
            return math.nan
        started = time.perf_counter()
        output = call()[0].float()
        made_ready_s = time.perf_counter() - started
        call()
        seconds = self.card.seconds(call, max(3, self.repeats))
        middle = statistics.median(seconds)
        self.rows.append(
            {
                "way": f"denoiser: {name}",
                "rows": captured.rows,
                "seconds": seconds,
                "ratio": (first or middle) / middle,
                "first_call_s": made_ready_s,
                "psnr_db": psnr(output, plain),
            }
        )
        return middle


def _half(request: GenerateRequest) -> int:
    return max(1, (request.num_inference_steps or 1) // 2)


def psnr(output: torch.Tensor, plain: torch.Tensor) -> float | None:
    """Decibels over the range of the plain output; `None` where they are equal."""
    error = (output - plain).square().mean().item()
    spread = (plain.max() - plain.min()).item()
    return 10 * math.log10(spread**2 / error) if error else None
