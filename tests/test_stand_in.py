"""The stand-in: passes for the module in every way but one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from backends._gather import Gathering
from backends._stand_in import StandIn
from router.lane import Lane


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=2)


class KeepingGathering(Gathering):
    """Remembers the calls that it made."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        self.made = [*getattr(self, "made", []), super().call(*args, **kwargs)]
        return self.made[-1]


async def test_it_passes_for_the_module(lanes: Callable[[str], Lane]) -> None:
    unet = UNet2DConditionModel(
        block_out_channels=(4,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=2,
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    stand_in: Any = StandIn(unet, Gathering(unet, row_limit=4), lanes("cpu"), share=True)
    assert isinstance(stand_in, torch.nn.Module)
    assert isinstance(stand_in, UNet2DConditionModel)
    assert stand_in.config is unet.config
    assert stand_in.dtype == torch.float32
    stand_in.marked = "kept"
    assert unet.marked == "kept"
    del stand_in.marked
    assert not hasattr(unet, "marked")


async def test_only_the_named_method_is_handed_over(lanes: Callable[[str], Lane]) -> None:
    vae = tiny_vae()
    gathering = KeepingGathering(vae, row_limit=4, method="decode")
    stand_in: Any = StandIn(vae, gathering, lanes("cpu"), share=True, method="decode")
    latents = stand_in.encode(torch.zeros(1, 3, 8, 8)).latent_dist.mode()
    assert not hasattr(gathering, "made")
    torch.testing.assert_close(stand_in.decode(latents).sample, vae.decode(latents).sample)
    assert len(gathering.made) == 1


async def test_decoding_is_shared_whatever_the_generators(lanes: Callable[[str], Lane]) -> None:
    vae = tiny_vae()
    gathering = KeepingGathering(vae, row_limit=4, method="decode")
    for seed in (1, 2):
        stand_in: Any = StandIn(vae, gathering, lanes("cpu"), share=True, method="decode")
        stand_in.decode(
            torch.zeros(1, 2, 8, 8), return_dict=False, generator=torch.Generator().manual_seed(seed)
        )
    first, second = gathering.made
    assert first.key == second.key


async def test_only_shared_decoding_changes_the_layout(lanes: Callable[[str], Lane]) -> None:
    """Channels last is faster, and other in the last bits: what is to be bit-equal runs as given."""
    vae = tiny_vae()
    gathering = KeepingGathering(vae, row_limit=4, method="decode")
    for share in (True, False):
        stand_in: Any = StandIn(vae, gathering, lanes("cpu"), share=share, method="decode")
        stand_in.decode(torch.zeros(1, 2, 8, 8))
    shared, alone = (call.arguments.values["z"] for call in gathering.made)
    assert shared.is_contiguous(memory_format=torch.channels_last)
    assert alone.stride() == torch.zeros(1, 2, 8, 8).stride()
