"""The autoencoder of the shapes model: the encoder is set, the decoder starts right and is trained on.

Both hold channels in four groups, [x, -x, K, -K, 0 ...] each: red, green, blue and a tilt. The large constant
K makes group normalisation a fixed scaling, silu(x) - silu(-x) = x undoes the activation, and residual
branches end in zeros. So the encoder gives the mean colour of 8x8 pixels and, as the tilt, by how much their
left half is brighter; the decoder at first repeats the colour.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scripts.shapes_draw import PALETTE, SIDE, Pose, coverage
from scripts.shapes_latents import SCALING, TILT, latents, rounded
from scripts.shapes_lessons import Lesson, LessonKind
from scripts.shapes_train_loop import CORES, Stage
from scripts.shapes_train_text import draw_lessons

GROUPS = 4
CONSTANT = 30.0
CHANNELS = (16, 32, 48, 64)
BATCH = 16
STEPS, RATE = 3000, 5e-4
NOISE = 0.15
"""At most, in standard deviations of the latents: the denoiser is never exact."""
MIXTURE: dict[LessonKind, float] = {"centred": 0.4, "placed": 0.3, "pair": 0.3}


@torch.no_grad()
def autoencoder() -> Any:
    """With the encoder set, and a decoder that repeats each cell's colour."""
    vae: Any = AutoencoderKL(  # type: ignore[no-untyped-call]
        down_block_types=("DownEncoderBlock2D",) * len(CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(CHANNELS),
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=GROUPS,
        sample_size=SIDE,
        scaling_factor=SCALING,
    )
    for name, part in vae.named_modules():
        _make_transparent(part, name.startswith("encoder"))
    _set_encoder(vae)
    _set_decoder(vae)
    return vae


def _make_transparent(part: nn.Module, all_zero: bool) -> None:
    """A residual branch adds nothing, any other convolution hands its channels on."""
    if isinstance(part, ResnetBlock2D):
        _zero(part.conv2)
        if all_zero:
            _zero(part.conv1)
        if part.conv_shortcut is not None:
            _hand_on(part.conv_shortcut)
    elif isinstance(part, nn.Linear):
        _zero(part)
    elif isinstance(part, nn.Conv2d) and part.in_channels == part.out_channels and part.kernel_size == (1, 1):
        _hand_on(part)


def _set_encoder(vae: Any) -> None:
    encoder = vae.encoder
    _zero(encoder.conv_in)
    grey = torch.full((1, 3), 1 / 3)
    _spread(encoder.conv_in, torch.cat([torch.eye(3), grey]))
    for block in encoder.down_blocks[:-1]:
        _average(block.downsamplers[0].conv)
    # The last average is over halves of what became a cell: their difference is the tilt.
    tilt = encoder.down_blocks[-2].downsamplers[0].conv
    first = (GROUPS - 1) * tilt.out_channels // GROUPS
    tilt.weight[first : first + 2, :, :, 1] *= -1
    _gather(encoder.conv_out, torch.tensor([1.0, 1.0, 1.0, 2 * TILT]))
    encoder.conv_out.bias[GROUPS:] = -8.0


def _set_decoder(vae: Any) -> None:
    decoder = vae.decoder
    _zero(decoder.conv_in)
    _spread(decoder.conv_in, torch.eye(4))
    for block in decoder.up_blocks[:-1]:
        _hand_on(block.upsamplers[0].conv)
    _gather(decoder.conv_out, torch.ones(3))


def _zero(part: nn.Module) -> None:
    for weight in part.parameters():
        weight.zero_()


def _spread(conv: nn.Conv2d, mixing: Tensor) -> None:
    """Writes [x, -x, K, -K] of each group, where x are the `mixing` [4, in] of the inputs."""
    first = torch.arange(GROUPS) * (conv.out_channels // GROUPS)
    conv.weight[first, :, 1, 1] = mixing
    conv.weight[first + 1, :, 1, 1] = -mixing
    assert conv.bias is not None
    conv.bias[first + 2], conv.bias[first + 3] = CONSTANT, -CONSTANT


def _gather(conv: nn.Conv2d, weights: Tensor) -> None:
    """Reads x of each group back, after normalisation and activation."""
    _zero(conv)
    size = conv.in_channels // GROUPS
    scale = CONSTANT * math.sqrt(2 / size)
    for group, weight in enumerate(weights):
        conv.weight[group, group * size, 1, 1] = weight * scale
        conv.weight[group, group * size + 1, 1, 1] = -weight * scale


def _hand_on(conv: nn.Conv2d) -> None:
    """The channels that are used, of each group, from the middle of the kernel."""
    middle = conv.kernel_size[0] // 2
    _zero(conv)
    for into, out_of in _used(conv):
        conv.weight[into, out_of, middle, middle] = 1


def _average(conv: nn.Conv2d) -> None:
    """The same of 2x2 pixels; below and on the right, where diffusers pads."""
    _zero(conv)
    for into, out_of in _used(conv):
        conv.weight[into, out_of, :2, :2] = 0.25


def _used(conv: nn.Conv2d) -> list[tuple[int, int]]:
    into, out_of = conv.out_channels // GROUPS, conv.in_channels // GROUPS
    used = min(4, into, out_of)
    return [(group * into + each, group * out_of + each) for group in range(GROUPS) for each in range(used)]


@dataclass(frozen=True, slots=True)
class Seen:
    latents: Tensor
    pixels: Tensor


def pictures(lessons: Sequence[Lesson]) -> Tensor:
    """The lessons' scenes from -1 to 1, float32 [lessons, 3, 128, 128]."""
    return torch.from_numpy(np.stack([_picture(lesson) for lesson in lessons]))


def _picture(lesson: Lesson) -> NDArray[np.float32]:
    pixels = np.empty((3, SIDE, SIDE), dtype=np.float32)
    pixels[:] = np.asarray(PALETTE[lesson.background], dtype=np.float32)[:, None, None]
    for thing, pose in lesson.things:
        colour = np.asarray(PALETTE[thing.colour], dtype=np.float32)[:, None, None]
        pixels += (colour - pixels) * _mask(thing.shape, *rounded(pose))
    return pixels / 127.5 - 1


@lru_cache(maxsize=8_000)
def _mask(shape: str, row: float, column: float, radius: float, turn: float) -> NDArray[np.float32]:
    return coverage(shape, Pose(row, column, radius, turn)).astype(np.float32)


def decoder_stage(device: torch.device) -> Stage[Seen]:
    torch.manual_seed(3)
    vae = autoencoder().to(device)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)

    def batches(step: int) -> list[Seen]:
        chance, generator = random.Random(f"decoder {step}"), torch.Generator().manual_seed(step)
        lessons = draw_lessons(MIXTURE, BATCH, chance)
        clean = latents(lessons)
        noise = torch.randn(clean.shape, generator=generator)
        strength = NOISE * torch.rand((BATCH, 1, 1, 1), generator=generator)
        noisy, seen = ((clean + strength * noise) / SCALING).to(device), pictures(lessons).to(device)
        return [Seen(noisy[part::CORES], seen[part::CORES]) for part in range(CORES)]

    def loss(part: Seen) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            decoded = vae.decode(part.latents, return_dict=False)[0].float()
        return functional.l1_loss(decoded, part.pixels) + functional.mse_loss(decoded, part.pixels)

    return Stage("decoder", vae, batches, loss, STEPS, RATE)
