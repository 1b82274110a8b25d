"""Where a Diffusers instance's model lies: a folder, a checkpoint, the shipped one, or what the hub gave."""

from __future__ import annotations

from pathlib import Path

import diffusers

from backends import _shipped
from router.checkpoint import SUFFIXES
from router.config import InstanceConfig
from router.errors import ConfigError, LoadError


def find_source(instance: InstanceConfig, revision: str | None, *, local_files_only: bool) -> Path:
    """The folder or file of the source; a hub id is fetched, its weights only as safetensors.

    Raises `ConfigError`, `LoadError`.
    """
    if not instance.source:
        raise ConfigError(
            f"{instance.name}: `source` is missing; name a model folder, a checkpoint, a hub id or"
            " `shipped:shapes`."
        )
    source = _shipped.resolve(instance.source)
    if Path(source).exists():
        return Path(source)
    is_file = source.endswith(SUFFIXES)
    if is_file or source.count("/") != 1 or source.startswith((".", "/", "~")):
        kind = "checkpoint" if is_file else "model folder"
        raise LoadError(
            f"{instance.name}: there is no {kind} {Path(source).name!r}; correct `source`.",
            instance=instance.name,
        )
    try:
        return Path(
            diffusers.DiffusionPipeline.download(
                source, revision=revision, local_files_only=local_files_only, use_safetensors=True
            )
        )
    except (OSError, ValueError) as exc:
        raise LoadError(
            f"{instance.name}: the hub gave no model {source!r} ({type(exc).__name__});"
            " check the id and the connection, or name a local folder.",
            instance=instance.name,
        ) from exc
