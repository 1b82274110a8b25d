"""Settings: triptych.toml and the TRIPTYCH_ environment, read into a RouterConfig."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError

from router.config import BreakerConfig, Limits, MemoryConfig, ModelConfig, RouterConfig, WatchConfig
from router.enhance_settings import read_enhance
from router.errors import ConfigError
from router.findings import first_finding
from router.legacy import read_legacy
from router.lora_folders import with_lora_folders
from router.measured import default_cache
from router.models import ModelTable, choose_models
from router.preset import BUILT_IN, RequestPreset
from router.variables import SETS, Variables, read_variables, variable

log = logging.getLogger("router")

FILE_NAME = "triptych.toml"
_LIMITED = {
    "height": "max_height",
    "width": "max_width",
    "num_inference_steps": "max_steps",
    "guidance_scale": "max_guidance",
}


class _File(BaseModel):
    """The form of triptych.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default_model: str | None = None
    fallback_model: bool = False
    """Whether the first model that is there serves where the default one is not."""
    lora_folders: tuple[str, ...] = ()
    """Of every model that names none; relative to the file."""
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_failovers: Annotated[int, Field(ge=0)] = 2
    limits: Limits = Limits()
    breaker: BreakerConfig = BreakerConfig()
    watch: WatchConfig = WatchConfig()
    memory: MemoryConfig = MemoryConfig()
    device_memory: dict[str, Annotated[ByteSize, Field(ge=1)]] = Field(default_factory=dict)
    models: dict[str, ModelTable] = Field(default_factory=dict)
    presets: dict[str, RequestPreset] = Field(default_factory=dict)
    """Beside the built-in ones, and before those of the same name."""
    enhance: dict[str, Any] = Field(default_factory=dict)
    """Checked by `router.enhance_settings`."""
    server: dict[str, Any] = Field(default_factory=dict)
    """Checked by `router.server.settings`, when the service is started."""


def load_config(
    path: Path | None = None, environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> RouterConfig:
    """Read file and environment. Blocks for as long as that takes; raises `ConfigError`.

    A setting is taken from the first of: the environment, the file, the model's own configuration.
    The file is the first of: `path`, `TRIPTYCH_CONFIG`, `triptych.toml` in `directory`, none.
    The models are the first of: those of the file, together with the folder, checkpoint or hub id in
    `TRIPTYCH_MODEL`; `directory/model` or `directory` itself where it holds a `model_index.json`;
    the shipped model. `environ` and `directory` stand for the process's own.
    Variables of earlier systems are taken with `TRIPTYCH_LEGACY_ENV=1`, each with a warning in the log.
    """
    legacy = read_legacy(os.environ if environ is None else environ)
    with legacy.in_old_words():
        config = _load(path, legacy.environ, Path.cwd() if directory is None else directory)
    for note in legacy.told:
        log.warning(note)
    sources = (*map(legacy.said, config.sources), *(f"environment: {note}" for note in legacy.notes))
    return config.model_copy(update={"sources": sources, "legacy": legacy.told})


def _load(path: Path | None, environ: Mapping[str, str], directory: Path) -> RouterConfig:
    variables = read_variables(environ)
    place = _find_file(path or variables.config, directory)
    raw, file = ({}, _File()) if place is None else _read_file(place)
    fallback = file.fallback_model if variables.fallback_model is None else variables.fallback_model
    models, default_model = choose_models(
        file.models,
        place or directory / FILE_NAME,
        file.default_model,
        variables,
        directory,
        fallback=fallback,
    )
    models = with_lora_folders(
        models, file.models, file.lora_folders, place or directory / FILE_NAME, variables.loras, directory
    )
    limits = file.limits.model_copy(update=variables.given("limits"))
    _check_defaults(models, limits)
    return RouterConfig(
        models=models,
        default_model=default_model,
        limits=limits,
        breaker=file.breaker,
        watch=_watch(file.watch, variables, place.parent if place else directory, directory),
        memory=_memory(file.memory, variables, place.parent if place else directory, directory, environ),
        enhance=read_enhance(file.enhance, environ, place, directory),
        deadline_s=variables.deadline_s or file.deadline_s,
        device_memory=dict(file.device_memory),
        max_failovers=file.max_failovers,
        presets={**BUILT_IN, **file.presets},
        sources=tuple(f"{key}: {origin}" for key, origin in _origins(raw, place, models, variables).items()),
    )


def read_server_table(
    path: Path | None, environ: Mapping[str, str], directory: Path
) -> tuple[Path | None, dict[str, Any]]:
    """The `[server]` table as it stands in the file that `load_config` would read, and that file."""
    place = _find_file(path or read_variables(environ).config, directory)
    return place, {} if place is None else _read_file(place)[1].server


def _find_file(named: Path | None, directory: Path) -> Path | None:
    if named is None:
        place = directory / FILE_NAME
        return place if place.is_file() else None
    return directory / named.expanduser()


def _read_file(place: Path) -> tuple[dict[str, Any], _File]:
    try:
        raw = tomllib.loads(place.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{place} cannot be read ({exc.strerror}); correct the path.") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{place} is not UTF-8 text at byte {exc.start}; save it as UTF-8.") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{place} is not TOML: {exc}; correct that place.") from exc
    try:
        return raw, _File.model_validate(raw)
    except ValidationError as exc:
        raise ConfigError(f"{place}: {first_finding(exc, _File)}") from exc


def _memory(
    memory: MemoryConfig, variables: Variables, folder: Path, directory: Path, environ: Mapping[str, str]
) -> MemoryConfig:
    """The cache folder of the file is relative to it, the environment's to `directory`; else the user's."""
    given = variables.given("memory")
    named, place = (given["cache"], directory) if "cache" in given else (memory.cache, folder)
    cache = place / named.expanduser() if named else default_cache(environ)
    return memory.model_copy(update={**given, "cache": cache})


def _watch(watch: WatchConfig, variables: Variables, folder: Path, directory: Path) -> WatchConfig:
    """A relative `trace` of the file is relative to the file, one of the environment to `directory`."""
    given = variables.given("watch")
    place = directory if "trace" in given else folder
    watch = watch.model_copy(update=given)
    return (
        watch if watch.trace is None else watch.model_copy(update={"trace": place / watch.trace.expanduser()})
    )


def _check_defaults(models: tuple[ModelConfig, ...], limits: Limits) -> None:
    for model in models:
        for field, limit in _LIMITED.items():
            value, most = getattr(model.defaults, field), getattr(limits, limit)
            if value is not None and value > most:
                raise ConfigError(
                    f"`models.{model.name}.defaults.{field}` is {value}, above `limits.{limit}` {most};"
                    f" lower the one ({_variable_of(f'defaults.{field}')}) or raise the other"
                    f" ({_variable_of(f'limits.{limit}')})."
                )


def _variable_of(setting: str) -> str:
    return next(variable(name) for name, sets in SETS.items() if sets == setting)


def _origins(
    raw: dict[str, Any], place: Path | None, models: tuple[ModelConfig, ...], variables: Variables
) -> dict[str, str]:
    """Setting -> where it came from; later origins replace earlier ones."""
    origins = {f"models.{model.name}": model.instances[0].source or "no source" for model in models}
    origins |= {key: str(place) for key in _settings_in(raw)}
    return origins | {SETS[name]: variable(name) for name in SETS if name in variables.model_fields_set}


def _settings_in(raw: dict[str, Any]) -> Iterator[str]:
    """`limits.queue`, `models.photo`, `default_model`: two levels are enough to find the line."""
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from (f"{key}.{name}" for name in value)
        else:
            yield key
