"""`triptych explain`: who would serve a request, who would not, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import typer
from rich.text import Text

from router.cli.configuration import load_config
from router.cli.failures import describe, reported
from router.cli.options import AsJson, Asked, asking, in_options, parameters_of
from router.cli.output import print_json, print_note, print_table
from router.config import RouterConfig
from router.footprint import Estimate, Stage, facts_of, told
from router.request import GenerateRequest
from router.router import BackendRouter
from router.routing import Route


@asking
def explain(ctx: typer.Context, asked: Asked, as_json: AsJson = False) -> None:
    """Say which instances would serve the request, in which order, and why the others would not.

    Nothing is generated and no weights are loaded.
    """
    with reported(as_json):
        routes = asyncio.run(_explain(load_config(ctx.obj), asked.requests()))
        refusals = [route.refusal() for route in routes if not route.candidates]
        if as_json:
            print_json({"routes": [_described(route) for route in routes]})
        else:
            for route in routes:
                _print(route)
    if refusals:
        raise typer.Exit(refusals[0].exit_code)


async def _explain(config: RouterConfig, requests: Sequence[GenerateRequest]) -> list[Route]:
    async with BackendRouter(config) as router:
        return [await router.explain(request) for request in requests]


def _described(route: Route) -> dict[str, Any]:
    return {
        "model": route.model,
        "task": route.request.task,
        "parameters": parameters_of(route.request),
        "candidates": list(route.candidates),
        "rejections": dict(route.rejections),
        "adjustments": list(route.adjustments),
        "estimates": {name: facts_of(each) for name, each in route.estimates.items()},
        "error": None if route.candidates else describe(route.refusal()),
    }


def _print(route: Route) -> None:
    for sentence in route.adjustments:
        print_note(sentence)
    serving = [(f"{place}", name, _serves(place)) for place, name in enumerate(route.candidates, start=1)]
    refusing = [("", name, Text(in_options(why), style="red")) for name, why in route.rejections.items()]
    title = f"{route.model}: {_facts(route.request)}"
    print_table(title, ("", "Instance", "Verdict"), [*serving, *refusing])
    memory = [(name, *_memory(estimate)) for name, estimate in route.estimates.items()]
    if memory:
        print_table("Memory", ("Instance", "Needed", "Of", "Weights", "Denoising", "Decoding"), memory)


def _memory(estimate: Estimate) -> tuple[str, ...]:
    """The weights, and of the two stages the larger, or both where they overlap, are what is needed."""
    stages: tuple[tuple[Stage, int], ...] = (
        ("denoise", estimate.denoise_bytes),
        ("decode", estimate.decode_bytes),
    )
    known = {stage: "measured" if stage in estimate.measured else "by formula" for stage, _ in stages}
    return (
        told(estimate.needed_bytes),
        "unlimited" if estimate.budget_bytes is None else told(estimate.budget_bytes),
        told(estimate.weights_bytes),
        *(f"{told(count)} {known[stage]}" for stage, count in stages),
    )


def _serves(place: int) -> Text:
    return Text("serves it" if place == 1 else "serves it if those above fail", style="green")


def _facts(request: GenerateRequest) -> str:
    facts: list[str] = [request.task]
    if request.width is not None and request.height is not None:  # open while no instance is known
        facts.append(f"{request.width}x{request.height}")
    if request.num_inference_steps is not None:
        facts.append(f"{request.num_inference_steps} steps")
    if request.guidance_scale is not None:
        facts.append(f"guidance {request.guidance_scale:g}")
    if request.scheduler is not None:
        facts.append(request.scheduler)
    return ", ".join([*facts, f"seed {request.seed}"])
