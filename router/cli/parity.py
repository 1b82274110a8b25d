"""`triptych check --parity`: the same requests on every instance, as a table and a picture."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from router import images
from router.cli.failures import describe, sentence_of
from router.cli.files import write
from router.cli.output import print_json, print_line, print_table
from router.config import RouterConfig
from router.parity import Comparison, Side, compare, sheet, sides_of

COLUMNS = ("instance", "dtype", "pictures", "seconds", "worst PSNR", "at least", "largest difference", "")


def check_parity(config: RouterConfig, output: Path, count: int, as_json: bool) -> None:
    """Prints, writes the picture, and exits with 1 where an instance fails or is too far from the first."""
    reports: dict[str, Any] = {}
    holds = True
    for model in config.models:
        sides = asyncio.run(sides_of(config, model, count))
        comparisons = compare(sides)
        holds &= all(each.holds for each in comparisons) and not any(side.error for side in sides)
        place = output if len(config.models) == 1 else output.with_stem(f"{output.stem}-{model.name}")
        if comparisons:
            write(place, images.encode(sheet(sides, comparisons), "png"))
        reports[model.name] = _report(sides, comparisons, place)
        if not as_json:
            _print(model.name, sides, comparisons, place)
    if as_json:
        print_json({"ok": holds, "models": reports})
    if not holds:
        raise typer.Exit(1)


def _print(model: str, sides: list[Side], comparisons: list[Comparison], place: Path) -> None:
    beside = {each.side.instance: each for each in comparisons}
    print_table(f"{model}: the same requests", COLUMNS, [_row(side, beside) for side in sides])
    if comparisons:
        print_line(f"{place}: a row of pictures for each instance, and below each what differs, amplified")
    elif len(sides) == 1:
        print_line("One instance alone has nothing to be compared with; configure another one.")


def _row(side: Side, beside: dict[str, Comparison]) -> list[str | Text]:
    if side.error:
        return [side.instance, side.dtype, "", "", "", "", "", Text(sentence_of(side.error), style="red")]
    made = [side.instance, side.dtype, f"{len(side.pictures)}", f"{side.seconds:.2f}"]
    found = beside.get(side.instance)
    if found is None:
        return [*made, "", "", "", "what the others are compared with"]
    verdict = Text("same", style="green") if found.holds else Text("differs", style="bold red")
    level = f"{found.largest} of 255"
    return [*made, _decibels(found.psnr_db), _decibels(found.min_psnr_db), level, verdict]


def _decibels(value: float) -> str:
    return "equal" if math.isinf(value) else f"{value:.1f} dB"


def _report(sides: list[Side], comparisons: list[Comparison], place: Path) -> dict[str, Any]:
    beside = {each.side.instance: _numbers(each) for each in comparisons}
    return {
        "sheet": str(place) if comparisons else None,
        "instances": [
            {
                "instance": side.instance,
                "dtype": side.dtype,
                "pictures": len(side.pictures),
                "seconds": side.seconds,
                **({"error": describe(side.error)} if side.error else {}),
                **beside.get(side.instance, {}),
            }
            for side in sides
        ],
    }


def _numbers(found: Comparison) -> dict[str, Any]:
    """`psnr_db` is null where every picture is equal."""
    return {
        "psnr_db": None if math.isinf(found.psnr_db) else round(found.psnr_db, 2),
        "min_psnr_db": found.min_psnr_db,
        "largest_difference": found.largest,
        "same": found.holds,
    }
