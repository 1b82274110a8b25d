"""What the router knows about itself: frozen values for operators, and the pace routing predicts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.answers import AnswersStatistics
from router.capabilities import Capabilities
from router.lane import LaneStatistics

_NEWEST_SHARE = 0.2


class Pace:
    """Moving averages of measured seconds; `None` until something was measured."""

    __slots__ = ("load_s", "request_s", "work_s")

    def __init__(self) -> None:
        self.request_s: float | None = None
        """Seconds of one request, alone or beside others."""
        self.work_s: float | None = None
        """Seconds per row and step of everything that ran at once."""
        self.load_s: float | None = None

    def served(self, seconds: float, work: int) -> None:
        """A request took `seconds` while `work` rows times steps were in progress, its own included."""
        self.request_s = _average(self.request_s, seconds)
        self.work_s = _average(self.work_s, seconds / work)

    def loaded(self, seconds: float) -> None:
        self.load_s = _average(self.load_s, seconds)


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance as an operator sees it."""

    name: str
    model: str
    backend: str
    device: str
    """As configured until a probe went well, then the device in use."""
    state: str
    """`cold`, `loading`, `ready`, `unloading` or `failed`."""
    breaker: str
    """`closed`, `open` or `half-open`."""
    capabilities: Capabilities | None
    """`None` until a probe went well."""
    error: str
    """Why it cannot be used now; empty if it can."""
    running: int
    waiting: int
    served: int
    failed: int
    request_s: float | None
    """Measured seconds of one request; `None` until one was served."""


@dataclass(frozen=True, slots=True)
class RouterStatistics:
    """Requests in progress, and counts since the router was entered."""

    running: int
    served: int
    failed: int
    cancelled: int
    instances: tuple[InstanceStatus, ...]
    lanes: Mapping[str, LaneStatistics]
    promised_bytes: Mapping[str, int]
    """Device -> bytes promised on it now."""
    budget_bytes: Mapping[str, int | None]
    """Device -> bytes that may be promised on it; `None` is unlimited."""
    warnings: Mapping[tuple[str, str, str], int]
    """Warning, model and instance -> how often; the warnings are those of `Record`."""
    enhancements: AnswersStatistics | None = None
    """Answers of the enhancer of prompts; `None` where none is configured."""


def _average(average: float | None, measured: float) -> float:
    return measured if average is None else average + _NEWEST_SHARE * (measured - average)
