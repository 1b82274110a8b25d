"""JobLimits: how many jobs may wait and run, and how much of them is kept for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobLimits:
    waiting: int = 1000
    """Jobs accepted and not begun; one more is refused."""
    running: int = 8
    """Jobs given to the router at once; it gathers them into common batches."""
    patience_s: float = 600.0
    """How long a job waits for an instance that is not available, before it fails."""
    bytes: int = 2 * 1024**3
    """Of everything stored. Ended jobs make room for new ones, the oldest first."""
    age_s: float = 7 * 86400.0
    """Age, counted from its end, at which a job is removed."""
