"""Real inputs: what the source's own pipeline hands to its parts while it makes a picture."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import diffusers
import torch
from PIL import Image
from torch import Tensor, nn

from export.components import Component, Input
from export.families import Family
from export.quiet import quiet
from router.types import ShapeProfile

Call: TypeAlias = Mapping[str, Tensor]
"""Inputs of a component by name, with the rows of the pipeline's own call."""

PROMPT: Final = "a photograph of a lighthouse on a cliff above the sea, evening light"
NEGATIVE_PROMPT: Final = "blurry, dark"
_STEPS: Final = 3
_SEED: Final = 7


def capture(source: Path, family: Family, profile: ShapeProfile) -> dict[str, list[Call]]:
    """Make one picture with the source in float32 and keep what each component was called with."""
    calls: dict[str, list[Call]] = defaultdict(list)
    with quiet(), torch.no_grad():
        pipeline = diffusers.DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            source, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        pipeline.set_progress_bar_config(disable=True)
        with ExitStack() as stack:
            for component in family.components:
                stack.enter_context(_listening(pipeline, component, calls[component.name]))
            picture = pipeline(**_arguments(pipeline, family, profile)).images
            pipeline.vae.encode(picture * 2 - 1)  # as image-to-image would
    return dict(calls)


def fill(component: Component, calls: Sequence[Call], rows: int) -> dict[str, Tensor]:
    """Inputs of exactly so many rows, put together from several calls as a gathered run is.

    Where all rows share one timestep, they are those of one call.
    """
    used = calls if all(each.batched for each in component.inputs if each.name == "timestep") else calls[:1]
    return {each.name: _fill_input(each, used, rows) for each in component.inputs}


def _fill_input(wanted: Input, calls: Sequence[Call], rows: int) -> Tensor:
    if not wanted.batched:
        return calls[0][wanted.name].reshape(-1)[0] if not wanted.axes else calls[0][wanted.name]
    every = torch.cat([_per_row(call, wanted.name) for call in calls])
    return every.repeat(-(-rows // len(every)), *[1] * (every.ndim - 1))[:rows]


def _per_row(call: Call, name: str) -> Tensor:
    """A UNet's pipeline gives one timestep for all rows."""
    rows = next(iter(call.values())).shape[0]
    return call[name].expand(rows) if call[name].ndim == 0 else call[name]


def _arguments(pipeline: Any, family: Family, profile: ShapeProfile) -> dict[str, Any]:
    wanted = {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE_PROMPT,
        "height": profile.height,
        "width": profile.width,
        "image": Image.new("RGB", (profile.width, profile.height), "seagreen"),  # for inpainting models
        "mask_image": Image.new("L", (profile.width, profile.height), "white"),
        "strength": 1.0,
        "num_inference_steps": _STEPS,
        "max_sequence_length": None if family.t5_index is None else profile.text_lengths[family.t5_index],
        "generator": torch.Generator().manual_seed(_SEED),
        "output_type": "pt",
    }
    accepted = inspect.signature(pipeline.__call__).parameters
    return {name: value for name, value in wanted.items() if name in accepted and value is not None}


@contextmanager
def _listening(pipeline: Any, component: Component, calls: list[Call]) -> Iterator[None]:
    part: nn.Module = getattr(pipeline, component.part)
    method = _METHODS.get(component.name, "forward")
    own = getattr(part, method)
    signature = inspect.signature(own)

    def listening(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        calls.append(_inputs_of(component, given))
        return own(*args, **kwargs)

    setattr(part, method, listening)
    try:
        yield
    finally:
        delattr(part, method)


_METHODS: Final = {"vae_decoder": "decode", "vae_encoder": "encode"}


def _inputs_of(component: Component, given: Mapping[str, Any]) -> Call:
    """By the graph's names; a VAE's only input is its method's first argument."""
    if component.name in _METHODS:
        return {component.inputs[0].name: next(iter(given.values())).clone()}
    given = {**given, **(given.get("added_cond_kwargs") or {})}
    return {name: torch.as_tensor(given[name]).clone() for name in component.input_names}
