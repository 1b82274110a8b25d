"""Models: which models serve, from the file's tables, TRIPTYCH_MODEL, a local folder or the shipped one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router.checkpoint import SUFFIX, SUFFIXES
from router.config import SHIPPED_MODEL, InstanceConfig, ModelConfig, ModelDefaults
from router.devices import SPREAD_POLICY, split, spread
from router.errors import ConfigError
from router.fallback import with_stand_in
from router.findings import did_you_mean
from router.registry import check_name
from router.sizes import with_sides
from router.variables import Variables

SHIPPED_SOURCE = f"shipped:{SHIPPED_MODEL}"
SHIPPED_DEFAULTS = ModelDefaults(num_inference_steps=20, guidance_scale=3.0)
DEFAULT_BACKEND = "diffusers"
SERVER_BACKEND = "triton"
LOCAL_FOLDERS = ("model", ".")
"""Where a model is looked for when none is named, in this order."""

_PATH_OPTIONS = ("config", "vae", "refiner")
"""The options of an instance that are paths, and relative to the file as its `source` is."""

_SERVERS = ("grpc://", "grpcs://")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class ModelTable(BaseModel):
    """`[models.NAME]` of triptych.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instances: Annotated[tuple[InstanceConfig, ...], Field(min_length=1)]
    source: str = ""
    """Of the instances that name none; alone it makes one instance, of the backend `diffusers`."""
    type: str = ""
    """The family it must be of, such as `sdxl`."""
    description: str = ""
    licence: str = ""
    defaults: ModelDefaults = ModelDefaults()
    policy: Literal["order", "fastest"] = "order"
    lora_folders: tuple[str, ...] = ()
    """Relative to the file; empty is the file's own `lora_folders`."""
    resident: bool = False
    """Whether all its instances are."""

    _spread = model_validator(mode="before")(spread)

    @model_validator(mode="before")
    @classmethod
    def _by_source(cls, table: Any) -> Any:
        if isinstance(table, Mapping) and isinstance(table.get("source"), str) and "instances" not in table:
            return {**table, "instances": [{"backend": DEFAULT_BACKEND}]}
        return table


def choose_models(
    tables: Mapping[str, ModelTable],
    place: Path,
    default: str | None,
    variables: Variables,
    directory: Path,
    *,
    fallback: bool = False,
) -> tuple[tuple[ModelConfig, ...], str]:
    """The models that will serve, and the name of the default one. Raises `ConfigError`.

    `tables` and `default` are those of the file `place`; without tables it need not exist. With
    `fallback` another model serves where the default one is not there.
    """
    _check_backends(tables, place, variables)
    models = [_of_table(name, table, place) for name, table in tables.items()]
    if variables.model is not None:
        default = variables.model
        if default not in tables:
            made = _of_variable(default, tables, variables, directory)
            models, default = [*models, made], made.name
    if not models:
        models = [_found(variables, directory)]
    _check_names(models, default, place)
    selected = [_overridden(_selected(model, variables), variables) for model in models]
    return with_stand_in(selected, default or models[0].name, place.parent, allowed=fallback)


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


def _of_table(name: str, table: ModelTable, place: Path) -> ModelConfig:
    sourced = [
        each if each.source else each.model_copy(update={"source": table.source}) for each in table.instances
    ]
    instances = tuple(_with_paths(instance, place.parent) for instance in sourced)
    if table.resident:
        instances = tuple(each.model_copy(update={"resident": True}) for each in instances)
    return ModelConfig(
        name=name,
        instances=_named(name, instances),
        type=table.type,
        description=table.description,
        licence=table.licence,
        defaults=table.defaults,
        policy=table.policy,
        origin=f"`[models.{name}]` of {place}",
    )


def _of_variable(
    source: str, tables: Mapping[str, ModelTable], variables: Variables, directory: Path
) -> ModelConfig:
    """The model that `TRIPTYCH_MODEL` stands for where it is no name of the file's."""
    origin = "named by TRIPTYCH_MODEL"
    if source == SHIPPED_MODEL:
        return _shipped(variables, origin)
    folder = directory / Path(source).expanduser()
    if folder.is_file() or source.endswith(SUFFIXES):
        return _of_file(source, folder, tables, variables)
    if folder.is_dir():
        if not is_model(folder):
            raise ConfigError(
                f"TRIPTYCH_MODEL is {source!r}, a folder without model_index.json; name a Diffusers folder."
            )
        folder = folder.resolve()
        _check_free(folder.name, "folder", source, tables)
        return _made(folder.name, str(folder), variables, origin)
    if source.startswith(_SERVERS):
        name = source.rstrip("/").rpartition("/")[2]
        _check_free(name, "model", source, tables)
        return _made(name, source, variables, origin, SERVER_BACKEND)
    if _HUB_ID.fullmatch(source):
        return _made(source, source, variables, origin)
    known = did_you_mean(source, [*tables, SHIPPED_MODEL])
    raise ConfigError(f"TRIPTYCH_MODEL is {source!r}, which is no model, folder, file or hub id; {known}")


def _of_file(source: str, file: Path, tables: Mapping[str, ModelTable], variables: Variables) -> ModelConfig:
    said = f"TRIPTYCH_MODEL is {source!r}"
    if not file.is_file():
        raise ConfigError(f"{said}, a file that is not there; correct the path.")
    if file.suffix != SUFFIX:
        raise ConfigError(f"{said}, and only {SUFFIX} files are read; convert it, or name a folder.")
    _check_free(file.stem, "file", source, tables)
    return _made(file.stem, str(file.resolve()), variables, "named by TRIPTYCH_MODEL")


def _check_free(name: str, kind: str, source: str, tables: Mapping[str, ModelTable]) -> None:
    if name in tables:
        raise ConfigError(
            f"TRIPTYCH_MODEL is {source!r}, but the file has another model {name!r};"
            f" rename the {kind} or the model."
        )


def _found(variables: Variables, directory: Path) -> ModelConfig:
    """The model that serves where none is named."""
    for name in LOCAL_FOLDERS:
        folder = (directory / name).resolve()
        if is_model(folder):
            where = "the working directory" if name == "." else f"`{name}` in the working directory"
            return _made(folder.name, str(folder), variables, f"{where}, as no model is named")
    return _shipped(variables, "the shipped model, as none is named and no folder of one is here")


def _shipped(variables: Variables, origin: str) -> ModelConfig:
    facts = {
        "description": "Coloured shapes on coloured backgrounds, 128x128.",
        "licence": "Apache-2.0",
        "defaults": SHIPPED_DEFAULTS,
    }
    return _made(SHIPPED_MODEL, SHIPPED_SOURCE, variables, origin).model_copy(update=facts)


def _made(
    name: str, source: str, variables: Variables, origin: str, backend: str = DEFAULT_BACKEND
) -> ModelConfig:
    """A model that stands in no file: one instance for each backend that is asked for."""
    backends = variables.backends or (backend,)
    instances = tuple(InstanceConfig(backend=backend, source=source) for backend in backends)
    return ModelConfig(name=name, instances=_named(name, instances), origin=origin)


def is_model(folder: Path) -> bool:
    return (folder / "model_index.json").is_file()


def _with_paths(instance: InstanceConfig, folder: Path) -> InstanceConfig:
    options = {
        key: _resolved(value, folder) if key in _PATH_OPTIONS and isinstance(value, str) else value
        for key, value in instance.options.items()
    }
    return instance.model_copy(update={"source": _resolved(instance.source, folder), "options": options})


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
    given = with_sides(variables.given("defaults"))
    sides = dict.fromkeys(("size", "height", "width")) if given.keys() & {"size", "height", "width"} else {}
    if "size" not in given and "size" in sides and model.defaults.size is None:
        sides = {}  # one side of the environment's, the other of the file's
    defaults = model.defaults.model_copy(update=sides | given)
    changed = model.model_copy(update={"instances": instances, "defaults": defaults})
    devices = split(variables.device or "")
    return _on_devices(changed, devices) if len(devices) > 1 else changed


def _on_devices(model: ModelConfig, devices: list[str]) -> ModelConfig:
    """Each instance on each of the devices; the least predicted completion chooses."""
    tables = [{**instance.model_dump(), "device": devices} for instance in model.instances]
    return ModelConfig.model_validate({**model.model_dump(), "policy": SPREAD_POLICY, "instances": tables})
