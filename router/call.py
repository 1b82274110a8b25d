"""Call: one model call of one task, and Gather: what runs many of them as one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Gather(Protocol):
    """What runs calls of one key together. Called on the lane's thread, in no task."""

    row_limit: int
    """Most rows in one run; a single call may have more."""

    def __call__(self, calls: Sequence[Call]) -> Sequence[Any]:
        """Run all calls as one; one result for each, in their order.

        Raises `MemoryError` when the device had not the memory (the lane halves and tries again),
        `DeviceLostError` when no further call can succeed; anything else fails a single call.
        """
        ...


@dataclass(slots=True, eq=False)
class Call:
    """One model call of one task, waiting to be run together with others of the same key."""

    key: Hashable
    rows: int
    gather: Gather
    arguments: Any = None
    urgent: bool = False
    """Goes before older calls: short itself, and its task's next calls join the long runs of others."""
    room: Callable[[], int | None] | None = None
    """Rows of its kind for which there is memory at this moment; asked once a tick, of its first call."""
