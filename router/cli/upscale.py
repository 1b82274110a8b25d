"""`triptych upscale`: a picture file, made larger."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Annotated

import typer

from router.cli.configuration import load_config
from router.cli.failures import reported
from router.cli.files import check_output
from router.cli.generate import Output, run
from router.cli.options import AsJson, read_picture
from router.cli.saving import made_of, report, save
from router.errors import RouterError
from router.request import GenerateRequest


def upscale(
    ctx: typer.Context,
    image: Annotated[Path, typer.Argument(metavar="IN", help="PNG, JPEG or WebP.", show_default=False)],
    output: Output = None,
    scale: Annotated[int, typer.Option(help="2 or 4: how many times wider and higher.")] = 4,
    model: Annotated[
        str | None, typer.Option(help="A configured model; else the first that can do it.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="upscaler: resample where no model can do it; adds no detail.")
    ] = None,
    deadline_s: Annotated[
        float | None, typer.Option("--deadline", help="Give up after this many seconds.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a picture larger, by a configured upscaler: a model with the backend `spandrel`.

    Without one it is refused, unless `--allow upscaler` lets Lanczos resampling do; the result says so.
    """
    with reported(as_json):
        check_output(output)
        request = GenerateRequest.of(
            image=read_picture(image, "image", "IN"),
            scale=scale,
            model=model,
            deadline_s=deadline_s,
            allow_adjustments=allow or (),
        )
        (outcome,) = asyncio.run(run(load_config(ctx.obj), [request], quiet=as_json))
        if isinstance(outcome, RouterError):
            raise outcome
        saved, unsaved = save(made_of(outcome), output or _beside(image, scale))
        if not saved["pictures"]:
            raise unsaved[0]
        report(saved, unsaved, as_json)


def _beside(image: Path, scale: int) -> Path:
    """`IN-x4.png`, or where that is taken, `IN-x4_2.png`, ..."""
    first = image.with_name(f"{image.stem}-x{scale}.png")
    others = (image.with_name(f"{image.stem}-x{scale}_{number}.png") for number in itertools.count(2))
    return next(path for path in itertools.chain([first], others) if not path.exists())
