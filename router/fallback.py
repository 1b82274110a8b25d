"""Fallback: which model serves those who name none, where the default one is not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from router.checkpoint import SUFFIXES
from router.config import ModelConfig


def with_stand_in(
    models: Sequence[ModelConfig], default: str, folder: Path, *, allowed: bool
) -> tuple[tuple[ModelConfig, ...], str]:
    """The models and the default one's name, or with leave the first other one's that is there.

    What stands in says so in `stands_in`. Without leave, and where no other one is there, the default
    stays: its own error is then told to who asks for a picture.
    """
    there = [model for model in models if not _missing(model, folder)]
    asked = next(model for model in models if model.name == default)
    if not allowed or not there or asked in there:
        return tuple(models), default
    other = there[0]
    said = (
        f"The default model {default!r} is not there ({_missing(asked, folder)}); {other.name!r} serves in"
        " its place, as `fallback_model` allows."
    )
    told = [model.model_copy(update={"stands_in": said}) if model is other else model for model in models]
    return tuple(told), other.name


def _missing(model: ModelConfig, folder: Path) -> str:
    """The first source of a model all of whose sources are local and not there; empty if one is there."""
    sources = [instance.source for instance in model.instances]
    return sources[0] if all(_is_missing(source, folder) for source in sources) else ""


def _is_missing(source: str, folder: Path) -> bool:
    """Of hub ids and addresses nothing is known here. `models/photo` is a path where there is a `models`."""
    path = Path(source)
    is_local = path.is_absolute() or source.endswith(SUFFIXES)
    if "/" in source and "://" not in source:
        is_local = is_local or (folder / path.parts[0]).is_dir()
    return is_local and not (folder / path).exists()
