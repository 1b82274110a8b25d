"""How well the shipped model follows its prompts, judged by pixels: `scripts/measure_default_model`."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from router.errors import RouterError
from scripts.shapes_check import judge
from scripts.shapes_draw import Pixels, draw
from scripts.shapes_paint import GUIDANCE, SIDE, SOURCE, paint
from scripts.shapes_prompts import Kind, Scene, scenes

CONFIDENCE = 1.959964
"""Standard deviations on either side that hold 95 %."""
TRUTH = "drawn truth"
KIND_NAMES: dict[Kind, str] = {"one": "one thing", "place": "one thing in a place", "two": "two things"}


@dataclass(frozen=True, slots=True)
class Score:
    """`hits` of `total`, and the Wilson interval that holds the true share with 95 %."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        return self.hits / self.total

    @property
    def interval(self) -> tuple[float, float]:
        z = CONFIDENCE
        scale = 1 + z**2 / self.total
        middle = (self.share + z**2 / (2 * self.total)) / scale
        spread = math.sqrt(self.share * (1 - self.share) / self.total + (z / (2 * self.total)) ** 2)
        return max(0.0, middle - z * spread / scale), min(1.0, middle + z * spread / scale)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.share:.1f} ({100 * low:.1f} to {100 * high:.1f})"


Scores: TypeAlias = dict[tuple[Kind, str], Score]
"""By kind of scene and by what was judged."""


def score(asked: Iterable[Scene], pictures: Iterable[Pixels]) -> Scores:
    """Judges every picture against its scene."""
    verdicts: dict[tuple[Kind, str], list[bool]] = {}
    for scene, pixels in zip(asked, pictures, strict=True):
        for measure, right in judge(scene, pixels).items():
            verdicts.setdefault((scene.kind, measure), []).append(right)
    return {key: Score(sum(rights), len(rights)) for key, rights in verdicts.items()}


def main() -> None:
    """Measures and prints a table, or JSON; an error of the router is one sentence."""
    try:
        measure(_options())
    except RouterError as exc:
        raise SystemExit(str(exc)) from exc


def measure(options: argparse.Namespace) -> None:
    asked = list(enumerate(scenes()))[:: options.every]
    columns = {TRUTH: score([scene for _, scene in asked], (draw(scene, seed) for seed, scene in asked))}
    seconds: dict[str, float] = {}
    for steps in options.steps:
        began = time.monotonic()
        pictures = paint(
            asked,
            steps=steps,
            backend=options.backend,
            source=options.source,
            side=options.side,
            guidance=options.guidance,
            scheduler=options.scheduler,
        )
        seconds[f"{steps} steps"] = round(time.monotonic() - began, 1)
        columns[f"{steps} steps"] = score([scene for _, scene in asked], pictures)
    if options.json:
        print(json.dumps(_report(options, columns, seconds), indent=2))
    else:
        print(_table(columns))
        print("\nPer cent, in brackets the Wilson interval (95 %).", *_speeds(seconds, len(asked)), sep="\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/measure_default_model", description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 8], help="step counts, one run each")
    parser.add_argument("--every", type=_count, default=1, help="only every N-th of the 500 prompts")
    parser.add_argument("--backend", default="diffusers", help="the backend that makes the pictures")
    parser.add_argument(
        "--source", default=SOURCE, help="the model: folder, hub id or server, as in the config"
    )
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help=f"default: {GUIDANCE:g}")
    parser.add_argument("--scheduler", help="default: the model's own")
    parser.add_argument("--side", type=int, default=SIDE, help="height and width of the pictures in pixels")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args()


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"it is {number}, but must be at least 1")
    return number


def _report(
    options: argparse.Namespace, columns: dict[str, Scores], seconds: dict[str, float]
) -> dict[str, Any]:
    return {
        "backend": options.backend,
        "source": options.source,
        "seconds": seconds,
        "scores": {column: [_entry(*item) for item in scores.items()] for column, scores in columns.items()},
    }


def _entry(key: tuple[Kind, str], found: Score) -> dict[str, Any]:
    kind, measure = key
    low, high = found.interval
    return {
        "kind": kind,
        "measure": measure,
        "hits": found.hits,
        "total": found.total,
        "share": round(found.share, 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def _table(columns: dict[str, Scores]) -> str:
    """The scores as a Markdown table."""
    rows = [["asked for", "pictures", "right", *columns], ["---"] * (3 + len(columns))]
    for (kind, measure), truth in columns[TRUTH].items():
        found = [str(scores[kind, measure]) for scores in columns.values()]
        rows.append([KIND_NAMES[kind], str(truth.total), measure, *found])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _speeds(seconds: dict[str, float], pictures: int) -> Sequence[str]:
    return [f"{column}: {pictures} pictures in {taken:.0f} s" for column, taken in seconds.items()]


if __name__ == "__main__":
    main()
