"""`triptych check`: does everything work, and if not, what is wrong and what cures it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.text import Text

from router.capabilities import Capabilities
from router.cli.configuration import load_config
from router.cli.failures import cause_of, describe, reported, sentence_of
from router.cli.options import AsJson
from router.cli.output import STDOUT, print_json, print_note
from router.cli.parity import check_parity
from router.config import Limits, RouterConfig
from router.enhancements import Enhancements
from router.enhancer import EnhanceConfig
from router.errors import RouterError
from router.request import GenerateRequest
from router.router import BackendRouter
from router.routing import nearest_size
from router.types import RawImage

_PROMPT = "a red circle on a white background"
_SHEET = Path("parity.png")
_SIDE, _STEPS = 64, 2  # the tiny picture, or as near to it as the instance takes


@dataclass(frozen=True)
class Line:
    """One thing that was looked at: what was found, or what is wrong with it."""

    subject: str
    found: str = ""
    error: RouterError | None = None


Note: TypeAlias = Callable[[Line], None]


def check(
    ctx: typer.Context,
    parity: Annotated[
        bool, typer.Option("--parity", help="Compare the pictures of each model's instances instead.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where --parity draws them.")] = _SHEET,
    pictures: Annotated[int, typer.Option(min=1, max=64, help="How many pictures --parity compares.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Look at configuration, libraries and model files, and make one tiny picture on each instance.

    Each line says that all is well, or what is wrong and the cure. Exits with 0 only if all is well.
    """
    if parity:
        with reported(as_json):
            check_parity(load_config(ctx.obj), output, pictures, as_json)
        return
    lines: list[Line] = []

    def note(line: Line) -> None:
        lines.append(line)
        if not as_json:
            _print(line)

    with reported(as_json):
        asyncio.run(_check(load_config(ctx.obj), note))
    faults = [line.error for line in lines if line.error]
    if as_json:
        print_json({"ok": not faults, "lines": [_described(line) for line in lines]})
    if faults:
        raise typer.Exit(faults[0].exit_code)


async def _check(config: RouterConfig, note: Note) -> None:
    for source in config.sources:
        note(Line("configuration", source))
    if config.enhance is not None:
        await _check_enhancer(config.enhance, note)
    for model in config.models:
        for instance in model.instances:
            alone = model.model_copy(update={"instances": (instance,)})
            async with BackendRouter(
                config.model_copy(update={"models": (alone,), "default_model": model.name})
            ) as router:
                await _check_instance(router, config.limits, note)


async def _check_enhancer(config: EnhanceConfig, note: Note) -> None:
    enhancements = Enhancements(config)
    try:
        answer = await enhancements.ask(_PROMPT, seed=0)
        note(Line("enhancer", f"{config.kind}, an answer of {len(answer)} characters"))
    except RouterError as exc:
        note(Line("enhancer", error=exc))
    finally:
        await enhancements.close()


async def _check_instance(router: BackendRouter, limits: Limits, note: Note) -> None:
    (status,) = await router.probe()
    subject = f"{status.name} probe"
    try:
        if status.capabilities is None:
            await router.generate(prompt=_PROMPT, enhance=False)  # raises what the probe raised
            return
        note(Line(subject, _facts(status.capabilities)))
        subject = f"{status.name} picture"
        result = await router.generate(_tiny(status.capabilities, limits))
    except RouterError as exc:
        note(Line(subject, error=exc))
        return
    size = f"{result.request.width}x{result.request.height}"
    note(Line(subject, f"{size} in {result.timings.total_s:.2f} s"))


def _tiny(capabilities: Capabilities, limits: Limits) -> GenerateRequest:
    """The smallest work that goes the whole way, of a task that the instance does."""
    if capabilities.tasks == {"upscale"}:
        small = RawImage(_SIDE, _SIDE, bytes(_SIDE * _SIDE * 3))
        prompt = _PROMPT if capabilities.prompts else ""
        return GenerateRequest.of(prompt=prompt, image=small, scale=capabilities.scales[0], seed=0)
    height, width = nearest_size(capabilities, limits, _SIDE, _SIDE)
    fields: dict[str, Any] = {
        "height": height,
        "width": width,
        "num_inference_steps": min(_STEPS, limits.max_steps),
    }
    if "text-to-image" not in capabilities.tasks:
        fields["image"] = RawImage(height, width, bytes(height * width * 3))
        fields["strength"] = 1.0
    if fields.get("image") and "image-to-image" not in capabilities.tasks:
        fields["mask_image"] = RawImage(height, width, b"\xff" * (height * width * 3))
    return GenerateRequest.of(prompt=_PROMPT, enhance=False, seed=0, **fields)


def _facts(capabilities: Capabilities) -> str:
    weights = f"{capabilities.footprint.weights_bytes / 1e6:,.1f} MB of weights"
    return f"{capabilities.pipeline}, {weights}, {capabilities.dtype} on {capabilities.device}"


def _print(line: Line) -> None:
    verdict = Text("wrong ", style="bold red") if line.error else Text("ok    ", style="green")
    said = sentence_of(line.error) if line.error else line.found
    STDOUT.print(verdict + Text(f"{line.subject}: {said}"), soft_wrap=True)
    if line.error and (cause := cause_of(line.error)):
        print_note(f"underneath it was {cause}")


def _described(line: Line) -> dict[str, Any]:
    described = {"subject": line.subject, "ok": line.error is None, "found": line.found}
    return described | ({"error": describe(line.error)} if line.error else {})
