"""Recording: what is known of one request while it goes on; at its end it becomes a `Record`."""

from __future__ import annotations

import asyncio
import time
from contextvars import Token
from dataclasses import replace
from types import TracebackType

from router.errors import RequestCancelledError, RouterError
from router.lease import Lease
from router.record import Record, Warned, facts_of
from router.recorder import Recorder
from router.reference import mode_of
from router.request import GenerateRequest
from router.request_id import REQUEST_ID, new_request_id
from router.similarity import similarity
from router.trace import Request, Span, Trace
from router.types import GenerateResult, Timings


class Recording:
    """Entered with `with` around all that is done for the request."""

    __slots__ = (
        "_began",
        "_began_at",
        "_recorder",
        "_similarity",
        "_token",
        "_warnings",
        "attempts",
        "id",
        "lease",
        "model",
        "request",
        "result",
        "route_s",
    )

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._token: Token[str] | None = None
        self._warnings: dict[Warned, str] = {}
        self._similarity: float | None = None
        self.id = REQUEST_ID.get()
        self.request: GenerateRequest | None = None
        self.model = ""
        self.lease: Lease | None = None
        """Of the newest attempt."""
        self.attempts = 0
        self.route_s = 0.0
        self.result: GenerateResult | None = None

    def __enter__(self) -> Recording:
        if not self.id:
            self.id = new_request_id()
            self._token = REQUEST_ID.set(self.id)
        self._began_at, self._began = time.time(), self._recorder.clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            REQUEST_ID.reset(self._token)
        record = self._record(_code_of(exc))
        self._recorder.keep(record)
        if self._recorder.trace is not None:
            self._note_in(self._recorder.trace, record)

    def routed(self, request: GenerateRequest, seconds: float) -> None:
        """The request with all that the model fills in, and how long it took to know who can serve."""
        self.request, self.route_s = request, seconds

    def attempt(self, lease: Lease) -> Lease:
        self.lease = lease
        self.attempts += 1
        return lease

    async def judged(self, result: GenerateResult) -> GenerateResult:
        """The result, with a note where a picture is too unlike the one it was made from."""
        self.result = result
        least = self._recorder.config.min_similarity
        if least is None or result.request.task != "image-to-image":
            return result
        self._similarity = found = await asyncio.to_thread(_least_similarity, result)
        if found >= least:
            return result
        note = f"The picture is unlike `image`: SSIM {found:.2f} at 128 pixels, where {least:g} is wanted."
        self._warnings["low_similarity"] = note
        self.result = replace(result, notes=(*result.notes, note))
        return self.result

    def _record(self, code: str) -> Record:
        request, result, lease = self.request, self.result, self.lease
        timings = result.timings if result else self._timings_so_far()
        seconds = self._recorder.clock() - self._began
        slow = self._slow(seconds)
        instance = None if lease is None else lease.slot.instance
        return Record(  # by position: by name it takes more than twice as long
            self.id,
            self._began_at,
            code,
            self.model,
            request.task if request else "",
            mode_of(request) if request else "none",
            instance.name if instance else "",
            instance.config.backend if instance else "",
            self.attempts,
            request.height if request else None,
            request.width if request else None,
            request.num_inference_steps if request else None,
            len(result.images) if result else 0,
            result.ticks if result else 0,
            result.rows if result else 0,
            lease.bytes if lease else 0,
            result.peak_bytes if result else None,
            timings,
            seconds,
            self._similarity,
            (*self._warnings, *slow),
            (*(result.notes if result else ()), *slow.values()),
        )

    def _timings_so_far(self) -> Timings:
        return self.lease.timings(self.route_s) if self.lease else Timings(route_s=self.route_s)

    def _slow(self, seconds: float) -> dict[Warned, str]:
        most = self._recorder.config.slow_s
        if most is None or seconds <= most:
            return {}
        return {"slow": f"The request took {seconds:.1f} s, more than {most:g} s."}

    def _note_in(self, trace: Trace, record: Record) -> None:
        """The whole and its stages, on the clock of the lanes."""
        now, lanes_now = self._recorder.clock(), time.perf_counter()
        offset = lanes_now - now
        spans = [Span(f"request {self.id}", self._began + offset, lanes_now, 0, facts_of(record))]
        for stage, began, ended in self.lease.stages() if self.lease else ():
            spans.append(Span(stage, began + offset, ended + offset, 1, {}))
        trace.request(Request(self.id, tuple(spans)))


def _code_of(exc: BaseException | None) -> str:
    """Empty for none; what is not ours is a mistake of ours."""
    if exc is None:
        return ""
    if isinstance(exc, asyncio.CancelledError):
        return RequestCancelledError.code
    return exc.code if isinstance(exc, RouterError) else RouterError.code


def _least_similarity(result: GenerateResult) -> float:
    reference = result.request.image
    assert reference is not None
    return min(similarity(reference, image) for image in result.images)
