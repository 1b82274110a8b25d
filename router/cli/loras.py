"""The table of LoRAs in `triptych models` and `triptych backends`: which fit which instance, and why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from router.cli.output import print_table
from router.lora import LoraAbility, LoraFacts

_COLUMNS = ("LoRA", "Instance", "Made for", "Size", "Can be asked for")


def print_loras(instances: Iterable[tuple[str, LoraAbility]]) -> None:
    """`instances`: name, and what it does with LoRAs. Prints nothing where none is configured."""
    rows = [_row(name, each, loras.none) for name, loras in instances for each in loras.facts]
    if rows:
        print_table("LoRAs", _COLUMNS, rows)


def _row(instance: str, lora: LoraFacts, none: str) -> Sequence[str | Text]:
    why_not = none or lora.why_not
    verdict = Text(why_not, style="red") if why_not else Text("yes", style="green")
    return lora.name, instance, _made_for(lora), f"{lora.size_bytes / 1e6:,.1f} MB", verdict


def _made_for(lora: LoraFacts) -> str:
    if lora.rank is None:
        return "unknown"
    width = "no attention" if lora.width is None else f"width {lora.width}"
    return f"{lora.family or 'no published family'}, {width}, rank {lora.rank}"
