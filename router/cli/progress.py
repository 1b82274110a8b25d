"""The progress bars: one for each request, fed by the events of its stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from router.cli.output import STDERR
from router.request import GenerateRequest
from router.types import Completed, Event, Loading, Queued, Step

_SHOWN_CHARACTERS = 32

Show: TypeAlias = Callable[[Event], None]


def progress_bars(quiet: bool) -> Progress:
    """Bars on stderr, gone when done; none where nobody watches."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=STDERR,
        transient=True,
        disable=quiet or not STDERR.is_terminal,
    )


def add_bar(bars: Progress, request: GenerateRequest) -> Show:
    """A bar for the request, and the function that shows an event on it."""
    bar = bars.add_task(_shortened(request.prompt or request.task), total=None, state="starting")
    done = [0] * request.num_images_per_prompt  # steps of each picture

    def show(event: Event) -> None:
        match event:
            case Queued(position=position):
                bars.update(bar, state=f"waiting, number {position}")
            case Loading():
                bars.update(bar, state=_loading(event))
            case Step(picture=picture, index=index, total=total):
                done[picture] = index
                bars.update(bar, completed=sum(done), total=total * len(done), state="")
            case Completed():
                bars.update(bar, state="done")

    return show


def _loading(event: Loading) -> str:
    about = "" if event.expected_s is None else f" of about {event.expected_s:.0f}"
    return f"loading {event.instance}" + (f", {event.elapsed_s:.0f}{about} s" if event.elapsed_s >= 1 else "")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 1]}…"
