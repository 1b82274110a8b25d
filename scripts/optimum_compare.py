"""Our half of check_optimum: makes the sources, then pictures from Optimum's exports, and compares all.

python optimum_compare.py sources WORK
python optimum_compare.py compare WORK     # exit code 1 where a picture is below 60 dB
"""

from __future__ import annotations

import asyncio
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from router import BackendRouter, GenerateRequest
from router.config import InstanceConfig, ModelConfig, RouterConfig
from tests.miniatures import FAMILIES, SIDE, miniature

LIBRARIES = ("onnxruntime", "diffusers", "transformers", "torch", "numpy")
TOLERANCE_DB = 60.0
TASKS = ("text-to-image", "image-to-image")


def sources(work: Path) -> None:
    for family in FAMILIES:
        miniature(family, work / "source")
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(work / "image.png")


def compare(work: Path) -> bool:
    print("Ours:", ", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    asyncio.run(serve_theirs(work))
    worst = math.inf
    for family in FAMILIES:
        for task in TASKS:
            worst = min(worst, *row(work / "pictures", family, task))
    return worst >= TOLERANCE_DB


async def serve_theirs(work: Path) -> None:
    """Pictures of our backend over the folders that Optimum exported."""
    models = tuple(
        ModelConfig(
            name=family,
            instances=(
                InstanceConfig(
                    name=family, backend="onnxruntime", source=str(work / "theirs" / family), device="cpu"
                ),
            ),
        )
        for family in FAMILIES
    )
    image = (work / "image.png").read_bytes()
    async with BackendRouter(RouterConfig(models=models, default_model=FAMILIES[0])) as router:
        for family in FAMILIES:
            for task in TASKS:
                given: dict[str, Any] = {"image": image, "strength": 0.75}
                if task == "text-to-image":
                    given = {"height": SIDE, "width": SIDE}
                request = GenerateRequest.of(
                    model=family,
                    prompt="a red circle",
                    num_inference_steps=4,
                    guidance_scale=5.0,
                    seed=7,
                    **given,
                )
                made = (await router.generate(request)).images[0]
                picture = Image.frombytes("RGB", (made.width, made.height), made.pixels)
                picture.save(work / "pictures" / f"{family} {task} theirs in our backend.png")


def row(pictures: Path, family: str, task: str) -> list[float]:
    """One line of the table; the likeness of each to the plain pipeline's, in dB."""
    reference = read(pictures / f"{family} {task} diffusers.png")
    found = []
    columns = []
    for name in ("ours", "theirs", "theirs in our backend"):
        file = pictures / f"{family} {task} {name}.png"
        if not file.exists():
            columns.append(f"{name}: Optimum has no class")
            continue
        difference = np.abs(read(file) - reference)
        mean = float(np.square(difference).mean())
        found.append(10 * math.log10(255**2 / mean) if mean else math.inf)
        columns.append(f"{name}: {'equal' if not mean else f'{found[-1]:.1f} dB'}")
    print(f"  {family:5} {task:15}", "   ".join(columns))
    return found


def read(file: Path) -> Any:
    return np.asarray(Image.open(file)).astype(np.float64)


if __name__ == "__main__":
    command, work = sys.argv[1], Path(sys.argv[2])
    if command == "sources":
        sources(work)
    elif not compare(work):
        sys.exit(f"A picture is below {TOLERANCE_DB} dB.")
