"""Lane doubles: a Gather that doubles numbers, a gate that keeps the lane, tasks that arrive together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from router.call import Call
from router.lane import Lane


class Doubling:
    """A Gather that doubles numbers and remembers which calls shared a run."""

    def __init__(self, row_limit: int = 16) -> None:
        self.row_limit = row_limit
        self.runs: list[list[Any]] = []
        self.threads: set[int] = set()
        self.before: Callable[[list[Any]], None] = lambda values: None

    def __call__(self, calls: Sequence[Call]) -> Sequence[Any]:
        values = [call.arguments for call in calls]
        self.threads.add(threading.get_ident())
        self.runs.append(values)
        self.before(values)
        return [value * 2 for value in values]


class Gate:
    """A task that occupies the lane until opened, so that others arrive together behind it."""

    def __init__(self, lane: Lane) -> None:
        self._event = threading.Event()
        self._task = asyncio.ensure_future(lane.run(lambda: self._event.wait(10)))

    async def open(self) -> None:
        await asyncio.sleep(0)
        self._event.set()
        await self._task


def steps(lane: Lane, gather: Doubling, value: int, count: int, rows: int = 1) -> list[int]:
    """A pipeline in miniature: `count` calls, one after the other."""
    return [lane.call(Call("denoise", rows, gather, value)) for _ in range(count)]


async def together(lane: Lane, *functions: Callable[[], Any]) -> list[Any]:
    """Run the functions as tasks that all arrive before the first tick."""
    gate = Gate(lane)
    running = [asyncio.ensure_future(lane.run(function)) for function in functions]
    await gate.open()
    return await asyncio.gather(*running, return_exceptions=True)
