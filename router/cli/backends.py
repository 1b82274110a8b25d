"""`triptych backends`: which libraries are installed, which instances are configured, and how they are."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import typer
from rich.text import Text

from router import registry
from router.capabilities import Capabilities
from router.cli.configuration import load_config
from router.cli.failures import reported
from router.cli.loras import print_loras
from router.cli.options import AsJson
from router.cli.output import print_json, print_table
from router.config import RouterConfig
from router.footprint import told
from router.router import BackendRouter
from router.statistics import InstanceStatus


def backends(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the backends with what they lack, and each configured instance with its state.

    Every instance is probed; no weights are loaded.
    """
    with reported(as_json):
        known = {name: registry.missing(name) for name in registry.BACKENDS}
        instances = asyncio.run(_probe(load_config(ctx.obj)))
    if as_json:
        print_json(
            {
                "backends": {
                    name: {"installed": not lacks, "missing": lacks} for name, lacks in known.items()
                },
                "instances": [_described(status) for status in instances],
            }
        )
    else:
        _print(known, instances)


async def _probe(config: RouterConfig) -> Sequence[InstanceStatus]:
    async with BackendRouter(config) as router:
        return await router.probe()


def _described(status: InstanceStatus) -> dict[str, Any]:
    described = {field.name: getattr(status, field.name) for field in dataclasses.fields(status)}
    return described | {"capabilities": _capabilities(status.capabilities)}


def _capabilities(capabilities: Capabilities | None) -> dict[str, Any] | None:
    if capabilities is None:
        return None
    described = dataclasses.asdict(capabilities)
    return described | {"tasks": sorted(capabilities.tasks)}


def _print(known: dict[str, str | None], instances: Sequence[InstanceStatus]) -> None:
    libraries = [(name, _verdict(lacks, "installed")) for name, lacks in known.items()]
    print_table("Backends", ("Backend", "Libraries"), libraries)
    rows = [(each.name, each.state, _health(each), _facts(each.capabilities)) for each in instances]
    print_loras((each.name, each.capabilities.loras) for each in instances if each.capabilities)
    print_table("Instances", ("Instance", "State", "Health", "What it is"), rows)


def _health(status: InstanceStatus) -> Text:
    return _verdict(status.error, "healthy" if status.breaker == "closed" else f"breaker {status.breaker}")


def _verdict(fault: str | None, good: str) -> Text:
    return Text(fault, style="red") if fault else Text(good, style="green")


def _facts(capabilities: Capabilities | None) -> str:
    if capabilities is None:
        return "unknown until a probe goes well"
    facts = [capabilities.pipeline, f"{capabilities.dtype} on {capabilities.device}"]
    facts += [
        ", ".join(sorted(capabilities.tasks)),
        f"{told(capabilities.footprint.weights_bytes)} of weights",
    ]
    return "; ".join([*facts, *capabilities.notes])
