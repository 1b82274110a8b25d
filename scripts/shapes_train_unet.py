"""The denoiser of the shapes model: lessons from easy to hard, and its loss."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel

from scripts.shapes_latents import CELLS, latents
from scripts.shapes_lessons import LessonKind
from scripts.shapes_train_loop import CORES, Stage
from scripts.shapes_train_text import WIDTH, draw_lessons, tokens

CHANNELS = (64, 128)
BATCH = 32
RATE = 8e-4
UNTOLD = 0.1
"""Of the captions that are dropped, for guidance."""
FIRST_STEPS = 600
FIRST: dict[LessonKind, float] = {"centred": 1.0}
MIXTURE: dict[LessonKind, float] = {"centred": 0.32, "placed": 0.3, "pair": 0.38}


def unet() -> Any:
    """With new weights."""
    return UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=CELLS,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def scheduler() -> Any:
    """Almost no signal is left at the end: flat backgrounds in any colour."""
    return DDIMScheduler(  # type: ignore[no-untyped-call]
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


@dataclass(frozen=True, slots=True)
class Noisy:
    latents: Tensor
    times: Tensor
    ids: Tensor
    target: Tensor

    def part(self, index: int, parts: int) -> Noisy:
        """Every so many of the rows."""
        return Noisy(*(tensor[index::parts] for tensor in self._tensors()))

    def to(self, device: torch.device) -> Noisy:
        return Noisy(*(tensor.to(device) for tensor in self._tensors()))

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.latents, self.times, self.ids, self.target


def noisy_lessons(tokenizer: Any, step: int, count: int) -> Noisy:
    chance, generator = random.Random(f"denoiser {step}"), torch.Generator().manual_seed(step)
    lessons = draw_lessons(FIRST if step < FIRST_STEPS else MIXTURE, count, chance)
    captions = ["" if chance.random() < UNTOLD else each.caption for each in lessons]
    clean, schedule = latents(lessons), scheduler()
    noise, times = torch.randn(clean.shape, generator=generator), _spread_times(count, generator)
    noised, target = schedule.add_noise(clean, noise, times), schedule.get_velocity(clean, noise, times)
    return Noisy(noised, times, tokens(tokenizer, captions), target)


def _spread_times(count: int, generator: torch.Generator) -> Tensor:
    """One of each `count`-th of the thousand: the losses of two batches differ less by chance."""
    parts = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return (parts * 1000).long().clamp(max=999)


def denoising_stage(
    encoder: CLIPTextModel, tokenizer: Any, device: torch.device, *, steps: int, batch: int = BATCH
) -> Stage[Noisy]:
    torch.manual_seed(2)
    denoiser = unet().to(device)
    if device.type == "cpu":
        # The gradient of the fused attention costs more than twice as much there.
        denoiser.set_attn_processor(AttnProcessor())

    def batches(step: int) -> list[Noisy]:
        whole = noisy_lessons(tokenizer, step, batch)
        return [whole.part(index, CORES).to(device) for index in range(CORES)]

    def loss(part: Noisy) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                states = encoder(part.ids).last_hidden_state
            guess = denoiser(part.latents, part.times, states, return_dict=False)[0]
        return functional.mse_loss(guess.float(), part.target)

    return Stage("denoiser", denoiser, batches, loss, steps, RATE)
