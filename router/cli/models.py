"""`triptych models`: which models there are, where each was found and why, and what its files say of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import typer
from rich.text import Text

from router.cli.configuration import load_config
from router.cli.failures import reported
from router.cli.loras import print_loras
from router.cli.options import AsJson
from router.cli.output import print_json, print_note, print_table
from router.inventory import Entry, Inventory, Listed, take_inventory
from router.lora import LoraAbility
from router.model_facts import ModelFacts

_COLUMNS = ("Model", "Instance", "Where, and why", "What it is", "Licence")


def models(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show which models there are, where each was found and why, and what its files say of it.

    Reads configurations and the headers of weights alone: no library is loaded, nothing is fetched.
    """
    with reported(as_json):
        config = load_config(ctx.obj)
        inventory = take_inventory(config, Path.cwd())
    if as_json:
        print_json({"default_model": config.default_model, **dataclasses.asdict(inventory)})
    else:
        _print(inventory)


def _print(inventory: Inventory) -> None:
    rows = [_row(model, entry) for model in inventory.models for entry in model.entries]
    print_table("Models", _COLUMNS, rows)
    for note in (model.stands_in for model in inventory.models if model.stands_in):
        print_note(note)
    print_loras(
        (entry.name, LoraAbility(entry.facts.loras))
        for model in inventory.models
        for entry in model.entries
        if entry.facts
    )
    if inventory.passed_over:
        left = [(each.source, each.why) for each in inventory.passed_over]
        print_table("Found, and not served", ("Where", "Why"), left)


def _row(model: Listed, entry: Entry) -> list[str | Text]:
    name = f"{model.name} (default)" if model.default else model.name
    name += f"\n{model.description}" if model.description else ""
    where = f"{entry.source or 'no source'}\n{model.origin}"
    return [name, entry.name, where, _what(entry), model.licence or "not named"]


def _what(entry: Entry) -> Text:
    if entry.error:
        return Text(entry.error, style="red")
    return Text("; ".join(_told(entry.facts)) if entry.facts else entry.note)


def _told(facts: ModelFacts) -> list[str]:
    tasks = ", ".join(facts.tasks) or "tasks known at the first probe"
    return [facts.family, tasks, _sizes(facts), f"{facts.weights_bytes / 1e6:,.1f} MB", *facts.notes]


def _sizes(facts: ModelFacts) -> str:
    """Width before height, as the command line has them."""
    if facts.sizes:
        return ", ".join(f"{width}x{height}" for height, width in facts.sizes)
    return f"{facts.width}x{facts.height}, multiples of {facts.size_multiple}"
