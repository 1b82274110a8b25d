"""Optimum's half of check_optimum: exports the sources, and makes pictures from its exports and ours.

    python optimum_side.py WORK     # reads WORK/source, WORK/ours, WORK/image.png

Writes WORK/theirs (its exports), WORK/pictures/*.png, and says which versions took part.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import onnxruntime
import torch
from optimum import onnxruntime as optimum_runtime
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from optimum_export import export

LIBRARIES = ("optimum", "optimum-onnx", "onnxruntime", "diffusers", "transformers", "torch", "numpy")

OURS: dict[str, Any] = {
    "text-to-image": optimum_runtime.ORTPipelineForText2Image,
    "image-to-image": optimum_runtime.ORTPipelineForImage2Image,
}
PLAIN: dict[str, Any] = {
    "text-to-image": diffusers.AutoPipelineForText2Image,
    "image-to-image": diffusers.AutoPipelineForImage2Image,
}
WITHOUT_CLASS = {("flux", "image-to-image")}
"""optimum-onnx 0.1.0 has no such class."""


def main(work: Path) -> None:
    print(", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    (work / "pictures").mkdir(exist_ok=True)
    image = Image.open(work / "image.png")
    for source in sorted((work / "source").iterdir()):
        family = source.name
        export(source, work / "theirs" / family)
        for task in PLAIN:
            name = f"{family} {task}"
            save(work, f"{name} diffusers", PLAIN[task].from_pretrained(source), image)
            if (family, task) not in WITHOUT_CLASS:
                for exporter in ("ours", "theirs"):
                    save(work, f"{name} {exporter}", optimum(OURS[task], work / exporter / family), image)


def optimum(kind: Any, folder: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return kind.from_pretrained(folder, export=False, session_options=options)


def save(work: Path, name: str, pipeline: Any, image: Image.Image) -> None:
    pipeline.set_progress_bar_config(disable=True)
    size = {"height": image.height, "width": image.width}
    given: dict[str, Any] = size
    if "image-to-image" in name:
        # SD and SDXL take the size from the picture, and know no such argument.
        given = {"image": image, "strength": 0.75} | (size if name.startswith(("sd3", "flux")) else {})
    pictures = pipeline(
        prompt="a red circle",
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7),
        **given,
    ).images
    pictures[0].save(work / "pictures" / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
