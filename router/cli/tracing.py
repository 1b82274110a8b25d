"""`--trace FILE`: a timeline of the lanes, from the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from router.cli.failures import UsageError
from router.cli.output import print_note
from router.config import RouterConfig
from router.router import BackendRouter

TraceFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="Write at the end which requests shared which run, as JSON for ui.perfetto.dev.",
    ),
]


def traced(config: RouterConfig, path: Path | None) -> RouterConfig:
    """The configuration with the timeline in this file. Raises `UsageError` where it could not be written."""
    if path is None:
        return config
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise UsageError(f"`--trace` is {str(path)!r}, where no file can be written; choose another place.")
    return config.model_copy(update={"watch": config.watch.model_copy(update={"trace": path})})


def note_trace(router: BackendRouter) -> None:
    """Of a router that was left: where the timeline is, or why there is none."""
    if router.trace is not None:
        print_note(router.trace.error or f"the timeline is in {router.trace.path}")
