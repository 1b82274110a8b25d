"""Trains the shipped model from nothing, stage by stage, then measures it: `scripts/train_default_model`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from scripts.shapes_train_files import save_model
from scripts.shapes_train_loop import CORES, train
from scripts.shapes_train_text import Reading, reading_stage
from scripts.shapes_train_unet import denoising_stage
from scripts.shapes_train_vae import decoder_stage

SHIPPED = Path("backends/shapes_model")
CPU_STEPS, CPU_BATCH = 10_500, 32  # what two cores do in an hour and a half that have other work, too
GPU_STEPS, GPU_BATCH = 12_000, 256


def main() -> None:
    options = _options()
    try:
        model = train_model(options)
    except KeyboardInterrupt:
        raise SystemExit("Stopped. The same command goes on from the last checkpoint.") from None
    print(f"The model is in {model}")
    if not options.unmeasured:
        measuring = [sys.executable, "-m", "scripts.shapes_measure", "--source", str(model)]
        raise SystemExit(subprocess.run(measuring, check=False).returncode)


def train_model(options: argparse.Namespace) -> Path:
    """Trains what is not trained yet in `options.folder`, and gives back the folder of the pipeline."""
    device = torch.device(options.device)
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    # Its training draws lots that no seed holds, so the vocabulary is kept.
    tokenizer = CLIPTokenizer.from_pretrained(SHIPPED / "tokenizer")
    reading = train(reading_stage(tokenizer, device), options.folder)
    assert isinstance(reading, Reading)
    stage = denoising_stage(reading.encoder, tokenizer, device, steps=options.steps, batch=options.batch)
    denoiser = train(stage, options.folder)
    model: Path = options.folder / "model"
    save_model(model, SHIPPED, vae=_vae(options, device), text_encoder=reading.encoder, unet=denoiser)
    return model


def _vae(options: argparse.Namespace, device: torch.device) -> Any:
    if options.vae:
        return AutoencoderKL.from_pretrained(options.vae, local_files_only=True)  # type: ignore[no-untyped-call]
    return train(decoder_stage(device), options.folder)


def _options() -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="scripts/train_default_model", description=__doc__)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="for checkpoints and the model")
    add("--steps", type=int, default=GPU_STEPS if on_gpu else CPU_STEPS, help="of the denoiser")
    add("--batch", type=_batch, default=GPU_BATCH if on_gpu else CPU_BATCH, help="lessons in each of them")
    add("--device", default="cuda" if on_gpu else "cpu", help="default: a GPU if there is one")
    add("--vae", type=Path, help="a folder with an autoencoder that is trained already")
    add("--unmeasured", action="store_true", help="without the 500 test prompts at the end")
    return parser.parse_args()


def _batch(text: str) -> int:
    if (lessons := int(text)) < CORES:
        raise argparse.ArgumentTypeError(f"it is {lessons}, but must be at least {CORES}")
    return lessons


if __name__ == "__main__":
    main()
