"""`triptych generate`: from prompts to files."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from router import images
from router.cli.failures import describe, fail, reported
from router.cli.files import check_output, choose_output, format_of, numbered, write
from router.cli.options import AsJson, Asked, asking, parameters_of
from router.cli.output import print_json, print_line, print_note
from router.cli.progress import Show, add_bar, progress_bars
from router.cli.tracing import TraceFile, note_trace, traced
from router.config import RouterConfig
from router.contact_sheet import contact_sheet
from router.errors import InvalidRequestError, RouterError
from router.request import GenerateRequest
from router.router import BackendRouter
from router.settings import load_config
from router.types import Completed, GenerateResult, RawImage

METADATA_KEY = "triptych"
"""The text chunk that holds the effective parameters as JSON."""

Output: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Overwritten if it is there; else a new triptych-SEED.png."
    ),
]


@dataclasses.dataclass(frozen=True)
class Made:
    """One picture, and the record that makes it again."""

    image: RawImage
    seed: int
    record: dict[str, Any]
    result: GenerateResult


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
        requests = asked.requests()
        config = traced(load_config(ctx.obj), trace)
        outcomes = asyncio.run(_run(config, requests, quiet=as_json))
        results = [outcome for outcome in outcomes if isinstance(outcome, GenerateResult)]
        errors = [outcome for outcome in outcomes if isinstance(outcome, RouterError)]
        if not results:
            raise errors[0]
        errors += [error for result in results for error in result.errors]
        saved, unsaved = _save([made for result in results for made in _made(result)], output)
        if not saved["pictures"]:
            raise unsaved[0]
        _report(saved, errors + unsaved, as_json)


async def _run(
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


def _made(result: GenerateResult) -> list[Made]:
    return [
        Made(picture.image, picture.seed, _record(result, picture.seed), result)
        for picture in result.pictures
        if picture.image is not None
    ]


def _record(result: GenerateResult, seed: int) -> dict[str, Any]:
    """What makes this one picture again, and who made it."""
    alone = result.request.model_copy(update={"seed": seed, "num_images_per_prompt": 1})
    return {
        "task": alone.task,
        "parameters": parameters_of(alone),
        "instance": result.instance,
        "backend": result.backend,
        "adjustments": list(result.adjustments),
        "notes": list(result.notes),
    }


def _save(pictures: Sequence[Made], output: Path | None) -> tuple[dict[str, Any], list[RouterError]]:
    """Write the files: what was written, for people and programs alike, and why others were not."""
    chosen = choose_output(output, pictures[0].seed, len(pictures))
    saved: dict[str, Any] = {"pictures": [], "sheet": None}
    unsaved = []
    for path, made in zip(numbered(chosen, len(pictures)), pictures, strict=True):
        try:
            saved["pictures"].append(_save_one(path, made))
        except RouterError as exc:  # the others are worth having
            unsaved.append(exc)
    if len(pictures) > 1:
        try:
            _write(chosen, contact_sheet([made.image for made in pictures]), {})
            saved["sheet"] = str(chosen)
        except RouterError as exc:
            unsaved.append(exc)
    return saved, unsaved


def _save_one(path: Path, made: Made) -> dict[str, Any]:
    started = time.perf_counter()
    _write(path, made.image, {METADATA_KEY: json.dumps(made.record)})
    timings = dataclasses.replace(made.result.timings, encode_s=time.perf_counter() - started)
    return {"file": str(path), **made.record, "timings": dataclasses.asdict(timings)}


def _write(path: Path, image: RawImage, metadata: dict[str, str]) -> None:
    try:
        data = images.encode(image, format_of(path), metadata=metadata)
    except InvalidRequestError as exc:
        if exc.param != "metadata":
            raise
        print_note(f"{path} is saved without its parameters: {exc}")
        data = images.encode(image, format_of(path))
    write(path, data)


def _report(saved: dict[str, Any], errors: Sequence[RouterError], as_json: bool) -> None:
    """Raises `typer.Exit` where some pictures were not made."""
    exits = [fail(error, as_json=False) for error in errors]
    if as_json:
        print_json(saved | {"errors": [describe(error) for error in errors]})
    else:
        _print(saved)
    if exits:
        raise exits[0]


def _print(saved: dict[str, Any]) -> None:
    for note in dict.fromkeys(
        note for each in saved["pictures"] for note in each["adjustments"] + each["notes"]
    ):
        print_note(note)
    for each in saved["pictures"]:
        print_line(f"{each['file']}: {_facts(each)}")
    if saved["sheet"]:
        print_line(f"{saved['sheet']}: all pictures on one sheet")


def _facts(saved: dict[str, Any]) -> str:
    parameters, timings = saved["parameters"], saved["timings"]
    stages = ", ".join(f"{name.removesuffix('_s')} {seconds:.2f} s" for name, seconds in timings.items())
    size = f"{parameters['width']}x{parameters['height']}"
    return f"seed {parameters['seed']}, {size}, made by {saved['instance']} ({stages})"
