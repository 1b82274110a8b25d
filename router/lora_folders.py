"""Where LoRAs lie: `lora_folders` of the file, a model or an instance, or TRIPTYCH_LORAS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from router.config import InstanceConfig, ModelConfig
from router.errors import ConfigError


class HasFolders(Protocol):
    """A model's table in the file."""

    @property
    def lora_folders(self) -> tuple[str, ...]: ...


def with_lora_folders(
    models: Sequence[ModelConfig],
    tables: Mapping[str, HasFolders],
    common: Sequence[str],
    place: Path,
    named: Sequence[str] | None,
    directory: Path,
) -> tuple[ModelConfig, ...]:
    """Models whose instances know their folders. Raises `ConfigError` for a folder that is not there.

    An instance's are the first of: `named` (TRIPTYCH_LORAS, relative to `directory`), its own, its
    model's in `tables`, `common`; those of the file `place` are relative to it.
    """
    given = None if named is None else _resolved(named, directory, "TRIPTYCH_LORAS")

    def of(model: ModelConfig, instance: InstanceConfig) -> tuple[str, ...]:
        if given is not None:
            return given
        own = tables[model.name].lora_folders if model.name in tables else ()
        return _resolved(instance.lora_folders or own or common, place.parent, f"{place}: `lora_folders`")

    return tuple(
        model.model_copy(
            update={
                "instances": tuple(
                    instance.model_copy(update={"lora_folders": of(model, instance)})
                    for instance in model.instances
                )
            }
        )
        for model in models
    )


def _resolved(folders: Sequence[str], start: Path, key: str) -> tuple[str, ...]:
    resolved = [(start / Path(folder).expanduser()).resolve() for folder in folders]
    for folder, path in zip(folders, resolved, strict=True):
        if not path.is_dir():
            raise ConfigError(f"{key} names {folder!r}, which is no folder; correct the path.")
    return tuple(dict.fromkeys(map(str, resolved)))
