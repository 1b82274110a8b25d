"""Reading a pipeline from a checkpoint and its configuration folder, without a hub."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

from backends._quiet import quiet
from router.single_file import SingleFile

CONVERSIONS: dict[str, Any] = SINGLE_FILE_LOADABLE_CLASSES
"""Diffusers' own: class of a component -> how its tensors are renamed, split and turned."""

_CURE = "name a configuration of this model, or a whole checkpoint"


def read_pipeline(model: SingleFile, dtype: torch.dtype, given: Mapping[str, Any]) -> Any:
    """Diffusers converts what the checkpoint holds, and reads the rest from the folder as ever.

    `given` are the components that come from elsewhere.
    Raises `LoadError` where checkpoint and configuration do not fit, before any weight is read.
    """
    for fault in faults(model):
        model.checkpoint.refuse(f"{fault}; {_CURE}")
    absent = dict.fromkeys([*model.inside(), *model.left_out()])
    kind = getattr(diffusers, model.index["_class_name"])
    with quiet():
        rest = kind.from_pretrained(
            model.folder, dtype=dtype, use_safetensors=True, local_files_only=True, **absent, **given
        )
        pipeline = kind.from_single_file(
            str(model.checkpoint.file),
            config=str(model.folder),
            torch_dtype=dtype,
            local_files_only=True,
            **{name: part for name, part in rest.components.items() if name not in model.inside()},
        )
    for name in model.inside():
        _finish(model, name, getattr(pipeline, name))
    return pipeline


def faults(model: SingleFile) -> Iterator[str]:
    """The conversion is rehearsed with tensors that have shapes and no values.

    Diffusers itself would leave out what is too much, with a warning, and make other pictures.
    """
    for name in model.inside():
        kind = model.components()[name][1]
        if kind not in CONVERSIONS:  # a text encoder: a class of transformers
            continue
        convert = CONVERSIONS[kind]["checkpoint_mapping_fn"]
        shapes = {key: tensor.shape for key, tensor in model.checkpoint.tensors.items()}
        found = yield from misfits(model.config(name), shapes, convert, kind=kind, name=name)
        if found is None:
            return
        held = sum(tensor.elements for tensor in model.tensors(name).values())
        if held != found:
            yield f"has more tensors in its {name!r} than {name}/config.json makes"


def misfits(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    convert: Any,
    *,
    kind: str = "",
    name: str = "vae",
) -> Generator[str, None, int | None]:
    """What is wrong with tensors of these shapes for this component, in the words of `faults`.

    `convert` turns names; `None` is for names that are Diffusers' own. Returns the number of elements after
    that, or `None` where it is impossible.
    """
    try:
        wanted, found = _rehearsed(kind or config["_class_name"], config, shapes, convert)
    except (LookupError, RuntimeError, ValueError) as exc:
        yield f"has a {name!r} that Diffusers {diffusers.__version__} cannot convert ({exc})"
        return None
    yield from (f"lacks {key!r} of {name!r}" for key in sorted(wanted.keys() - found.keys()))
    yield from (f"has {key!r} of another {name!r}" for key in sorted(found.keys() - wanted.keys()))
    for key, value in wanted.items():
        if key in found and found[key].shape != value.shape:
            shapes_said = f"{list(found[key].shape)}, and {name}/config.json makes {list(value.shape)}"
            yield f"has {key!r} of {name!r} in shape {shapes_said}"
    return sum(value.numel() for value in found.values())


def _rehearsed(
    kind: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], convert: Any
) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
    """The tensors that a component of this class wants, and those that it would be given."""
    with torch.device("meta"):
        wanted = getattr(diffusers, kind).from_config(config).state_dict()
        given = {key: torch.empty(shape) for key, shape in shapes.items()}
        return wanted, given if convert is None else convert(checkpoint=given, config=config)


def _finish(model: SingleFile, name: str, module: Any) -> None:
    """What Diffusers leaves undone: T5 in training mode, its two names of one weight, weights not found."""
    module.eval()
    if _lacking(module) and hasattr(module, "tie_weights"):
        module.tie_weights()
    for key in _lacking(module):
        model.checkpoint.refuse(f"lacks {key!r} of {name!r}; {_CURE}")


def _lacking(module: torch.nn.Module) -> list[str]:
    return [key for key, value in module.state_dict().items() if value.is_meta]
