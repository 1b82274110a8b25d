"""Models: which models serve, from the file's tables, TRIPTYCH_MODEL, a local folder or the shipped one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from router.config import SHIPPED_MODEL, InstanceConfig, ModelConfig, ModelDefaults
from router.errors import ConfigError
from router.findings import did_you_mean
from router.registry import check_name
from router.variables import Variables

SHIPPED_SOURCE = f"shipped:{SHIPPED_MODEL}"
SHIPPED_DEFAULTS = ModelDefaults(num_inference_steps=20, guidance_scale=5.0)
DEFAULT_BACKEND = "diffusers"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class ModelTable(BaseModel):
    """`[models.NAME]` of triptych.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instances: Annotated[tuple[InstanceConfig, ...], Field(min_length=1)]
    description: str = ""
    licence: str = ""
    defaults: ModelDefaults = ModelDefaults()
    policy: Literal["order", "fastest"] = "order"


def choose_models(
    tables: Mapping[str, ModelTable], place: Path, default: str | None, variables: Variables, directory: Path
) -> tuple[tuple[ModelConfig, ...], str]:
    """The models that will serve, and the name of the default one. Raises `ConfigError`.

    `tables` and `default` are those of the file `place`; without tables it need not exist.
    """
    _check_backends(tables, place, variables)
    models = [_of_table(name, table, place.parent) for name, table in tables.items()]
    if variables.model is not None:
        default = variables.model
        if default not in tables:
            made = _of_variable(default, tables, variables, directory)
            models, default = [*models, made], made.name
    if not models:
        models = [_found(variables, directory)]
    _check_names(models, default, place)
    selected = [_overridden(_selected(model, variables), variables) for model in models]
    return tuple(selected), default or models[0].name


def _check_backends(tables: Mapping[str, ModelTable], place: Path, variables: Variables) -> None:
    where = {
        f"{place}: `models.{name}.instances[{index}].backend`": instance.backend
        for name, table in tables.items()
        for index, instance in enumerate(table.instances)
    }
    where |= {
        f"TRIPTYCH_BACKENDS, entry {index + 1}": backend
        for index, backend in enumerate(variables.backends or ())
    }
    for key, backend in where.items():
        try:
            check_name(backend)
        except ConfigError as exc:
            raise ConfigError(f"{key}: {exc}") from exc


def _of_table(name: str, table: ModelTable, folder: Path) -> ModelConfig:
    instances = tuple(
        instance.model_copy(update={"source": _resolved(instance.source, folder)})
        for instance in table.instances
    )
    return ModelConfig(
        name=name,
        instances=_named(name, instances),
        description=table.description,
        licence=table.licence,
        defaults=table.defaults,
        policy=table.policy,
    )


def _of_variable(
    source: str, tables: Mapping[str, ModelTable], variables: Variables, directory: Path
) -> ModelConfig:
    """The model that `TRIPTYCH_MODEL` stands for where it is no name of the file's."""
    if source == SHIPPED_MODEL:
        return _shipped(variables)
    folder = directory / Path(source).expanduser()
    if folder.is_dir():
        if not _is_model(folder):
            raise ConfigError(
                f"TRIPTYCH_MODEL is {source!r}, a folder without model_index.json; name a Diffusers folder."
            )
        folder = folder.resolve()
        if folder.name in tables:
            raise ConfigError(
                f"TRIPTYCH_MODEL is {source!r}, but the file has another model {folder.name!r};"
                " rename the folder or the model."
            )
        return _made(folder.name, str(folder), variables)
    if _HUB_ID.fullmatch(source):
        return _made(source, source, variables)
    known = did_you_mean(source, [*tables, SHIPPED_MODEL])
    raise ConfigError(f"TRIPTYCH_MODEL is {source!r}, which is no model, folder or hub id; {known}")


def _found(variables: Variables, directory: Path) -> ModelConfig:
    """The model that serves where none is named."""
    for folder in (directory / "model", directory):
        if _is_model(folder):
            return _made(folder.resolve().name, str(folder.resolve()), variables)
    return _shipped(variables)


def _shipped(variables: Variables) -> ModelConfig:
    facts = {
        "description": "Coloured shapes on coloured backgrounds, 128x128.",
        "licence": "Apache-2.0",
        "defaults": SHIPPED_DEFAULTS,
    }
    return _made(SHIPPED_MODEL, SHIPPED_SOURCE, variables).model_copy(update=facts)


def _made(name: str, source: str, variables: Variables) -> ModelConfig:
    """A model that stands in no file: one instance for each backend that is asked for."""
    backends = variables.backends or (DEFAULT_BACKEND,)
    instances = tuple(InstanceConfig(backend=backend, source=source) for backend in backends)
    return ModelConfig(name=name, instances=_named(name, instances))


def _is_model(folder: Path) -> bool:
    return (folder / "model_index.json").is_file()


def _resolved(source: str, folder: Path) -> str:
    """A path relative to the file as an absolute one; hub ids and URLs as they are."""
    is_path = source.startswith(("./", "../", "/", "~")) or (source and (folder / source).exists())
    return str((folder / Path(source).expanduser()).resolve()) if is_path else source


def _named(model: str, instances: tuple[InstanceConfig, ...]) -> tuple[InstanceConfig, ...]:
    """Gives `model/backend`, `model/backend-2`, ... to the instances that have no name."""
    counts: dict[str, int] = {}
    named = []
    for instance in instances:
        count = counts[instance.backend] = counts.get(instance.backend, 0) + 1
        number = f"-{count}" if count > 1 else ""
        name = instance.name or f"{model}/{instance.backend}{number}"
        named.append(instance.model_copy(update={"name": name}))
    return tuple(named)


def _check_names(models: list[ModelConfig], default: str | None, place: Path) -> None:
    names = [model.name for model in models]
    if default is not None and default not in names:
        known = did_you_mean(default, names)
        raise ConfigError(f"{place}: `default_model` is {default!r}, which is no configured model; {known}")
    seen: set[str] = set()
    for instance in (instance for model in models for instance in model.instances):
        if instance.name in seen:
            raise ConfigError(f"{place}: two instances are called {instance.name!r}; give each its `name`.")
        seen.add(instance.name)


def _selected(model: ModelConfig, variables: Variables) -> ModelConfig:
    """Keeps the instances of the backends in `TRIPTYCH_BACKENDS`, in that order."""
    if variables.backends is None:
        return model
    kept = tuple(
        instance
        for backend in variables.backends
        for instance in model.instances
        if instance.backend == backend
    )
    if not kept:
        has = dict.fromkeys(instance.backend for instance in model.instances)
        raise ConfigError(
            f"TRIPTYCH_BACKENDS is {','.join(variables.backends)!r}, which leaves model {model.name!r}"
            f" no instance; add one of {', '.join(has)}."
        )
    return model.model_copy(update={"instances": kept})


def _overridden(model: ModelConfig, variables: Variables) -> ModelConfig:
    """The model with what the environment sets for every model and instance."""
    instances = tuple(
        instance.model_copy(update=variables.given("instances")) for instance in model.instances
    )
    defaults = model.defaults.model_copy(update=variables.given("defaults"))
    return model.model_copy(update={"instances": instances, "defaults": defaults})
