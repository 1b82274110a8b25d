"""Inventory: every model there is, where it was found and why, and what its files say. Loads no library."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path

from router.config import SHIPPED_MODEL, InstanceConfig, ModelConfig, RouterConfig
from router.errors import ConfigError, LoadError, RouterError
from router.families import why_not_family
from router.model_facts import ModelFacts, facts_of_export, facts_of_model
from router.models import LOCAL_FOLDERS, SHIPPED_SOURCE, is_model

_SHIPPED = "backends._shipped"
"""By import string, as backends are reached; it imports no model library."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One instance of a model. Without facts, `error` says what is wrong, or `note` who knows them."""

    name: str
    backend: str
    source: str
    facts: ModelFacts | None = None
    error: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """One model."""

    name: str
    origin: str
    default: bool
    description: str
    licence: str
    entries: tuple[Entry, ...]
    stands_in: str = ""
    """Why it serves in place of the default model, if it does."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A model that is there and does not serve."""

    source: str
    why: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """What serves, and what was found beside it."""

    models: tuple[Listed, ...]
    passed_over: tuple[PassedOver, ...]


def take_inventory(config: RouterConfig, directory: Path) -> Inventory:
    """Read the files of all models; `directory` is where a model is looked for when none is named. Blocks."""
    models = tuple(_listed(model, model.name == config.default_model) for model in config.models)
    return Inventory(models, _passed_over(config, directory))


def _listed(model: ModelConfig, default: bool) -> Listed:
    entries = tuple(_entry(instance, model) for instance in model.instances)
    own = (entry.facts.licence for entry in entries if entry.facts and entry.facts.licence)
    licence = model.licence or next(own, "")
    return Listed(model.name, model.origin, default, model.description, licence, entries, model.stands_in)


def _entry(instance: InstanceConfig, model: ModelConfig) -> Entry:
    start = Entry(instance.name, instance.backend, instance.source)
    try:
        facts = _facts(instance)
    except RouterError as exc:
        return replace(start, error=str(exc))
    if facts and (why := why_not_family(model.name, model.type, facts.family)):
        return replace(start, facts=facts, error=why)
    return replace(start, facts=facts, note="" if facts else _who_knows(instance))


def _facts(instance: InstanceConfig) -> ModelFacts | None:
    """`None` where no local file tells."""
    if instance.backend not in ("diffusers", "onnxruntime"):
        return None
    if not instance.source:
        raise ConfigError(f"{instance.name}: `source` is missing; name a model.")
    place = Path(_resolved(instance.source))
    if instance.backend == "onnxruntime" and place.is_dir():
        return facts_of_export(place, instance.name)
    if instance.backend == "diffusers" and place.exists():
        config, vae = _path_option(instance, "config"), _path_option(instance, "vae")
        return facts_of_model(place, instance.name, config, vae, instance.lora_folders)
    if _is_hub_id(instance):
        return None
    kind = "export" if instance.backend == "onnxruntime" else "model"
    raise LoadError(f"{instance.name}: there is no {kind} at {instance.source!r}; correct `source`.")


def _path_option(instance: InstanceConfig, key: str) -> str | None:
    path = instance.options.get(key)
    if path is not None and not isinstance(path, str):
        raise ConfigError(f"{instance.name}: option `{key}` is {path!r}; it must be a path.")
    return path


def _is_hub_id(instance: InstanceConfig) -> bool:
    source = instance.source
    return instance.backend == "diffusers" and source.count("/") == 1 and source[0] not in "./~"


def _who_knows(instance: InstanceConfig) -> str:
    if _is_hub_id(instance):
        return "a hub id: fetched, and known, at the first probe"
    return f"known to its backend alone; `triptych backends` asks {instance.backend}"


def _resolved(source: str) -> str:
    shipped: str = importlib.import_module(_SHIPPED).resolve(source)
    return shipped


def _passed_over(config: RouterConfig, directory: Path) -> tuple[PassedOver, ...]:
    """Places of the detection order that hold a model, and were not reached."""
    sources = {instance.source for model in config.models for instance in model.instances}
    first = config.models[0].origin
    found = [(directory / name).resolve() for name in LOCAL_FOLDERS]
    left = [str(folder) for folder in found if is_model(folder) and str(folder) not in sources]
    if SHIPPED_SOURCE not in sources:
        left.append(SHIPPED_SOURCE)
    return tuple(PassedOver(source, f"another comes first: {first}; {_cure(source)}") for source in left)


def _cure(source: str) -> str:
    name = SHIPPED_MODEL if source == SHIPPED_SOURCE else source
    return f"TRIPTYCH_MODEL={name} would serve this one"
