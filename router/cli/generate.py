"""`triptych generate`: from prompts to files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from router.cli.configuration import load_config
from router.cli.failures import reported
from router.cli.files import check_latents, check_output
from router.cli.options import AsJson, Asked, asking
from router.cli.progress import Show, add_bar, progress_bars
from router.cli.saving import made_of, report, save
from router.cli.tracing import TraceFile, note_trace, traced
from router.config import RouterConfig
from router.errors import RouterError
from router.request import GenerateRequest
from router.router import BackendRouter
from router.types import Completed, GenerateResult

Output: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Overwritten if it is there; else a new triptych-SEED.png."
    ),
]


@asking
def generate(
    ctx: typer.Context,
    asked: Asked,
    output: Output = None,
    trace: TraceFile = None,
    as_json: AsJson = False,
) -> None:
    """Make pictures of one or several prompts.

    Several pictures are saved as FILE-1, FILE-2, ... beside a sheet of them all in FILE. Each file
    holds the parameters that make its picture again.
    """
    with reported(as_json):
        check_output(output)
        check_latents(asked.latents)
        requests = asked.requests()
        config = traced(load_config(ctx.obj), trace)
        outcomes = asyncio.run(run(config, requests, quiet=as_json))
        results = [outcome for outcome in outcomes if isinstance(outcome, GenerateResult)]
        errors = [outcome for outcome in outcomes if isinstance(outcome, RouterError)]
        if not results:
            raise errors[0]
        errors += [error for result in results for error in result.errors]
        saved, unsaved = save([made for result in results for made in made_of(result)], output, asked.latents)
        if not saved["pictures"]:
            raise unsaved[0]
        report(saved, errors + unsaved, as_json)


async def run(
    config: RouterConfig, requests: Sequence[GenerateRequest], *, quiet: bool
) -> list[GenerateResult | RouterError]:
    """As many side by side as may run at once; one that fails leaves the others alone."""
    turn = asyncio.Semaphore(config.limits.concurrency)
    with progress_bars(quiet) as bars:
        async with BackendRouter(config) as router:

            async def follow(request: GenerateRequest, show: Show) -> GenerateResult | RouterError:
                async with turn:  # the router's queue is for others than ourselves
                    return await _follow(router, request, show)

            running = [follow(request, add_bar(bars, request)) for request in requests]
            outcomes = await asyncio.gather(*running)
    note_trace(router)
    return outcomes


async def _follow(
    router: BackendRouter, request: GenerateRequest, show: Show
) -> GenerateResult | RouterError:
    try:
        async for event in router.stream(request):
            show(event)
            if isinstance(event, Completed):
                result = event.result
    except RouterError as exc:
        return exc
    return result
