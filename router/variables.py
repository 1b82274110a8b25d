"""Variables: the TRIPTYCH_ environment, checked; which setting each variable sets stands in one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from router.errors import ConfigError
from router.findings import did_you_mean, first_finding
from router.sizes import with_sides

PREFIX = "TRIPTYCH_"
ENHANCE_PREFIX = f"{PREFIX}ENHANCE_"
"""Those of the enhancer of prompts; `router.enhance_settings` checks them."""
SERVER_PREFIX = f"{PREFIX}SERVER_"
"""Those of the HTTP service; `router.server.settings` checks them when it is started."""

SETS: dict[str, str] = {
    "config": "file",
    "model": "default_model",
    "fallback_model": "fallback_model",
    "backends": "instances",
    "device": "instances.device",
    "dtype": "instances.dtype",
    "loras": "lora_folders",
    "default_height": "defaults.height",
    "default_width": "defaults.width",
    "default_size": "defaults.size",
    "default_steps": "defaults.num_inference_steps",
    "default_guidance": "defaults.guidance_scale",
    "max_height": "limits.max_height",
    "max_width": "limits.max_width",
    "max_steps": "limits.max_steps",
    "max_guidance": "limits.max_guidance",
    "max_images": "limits.max_images",
    "concurrency": "limits.concurrency",
    "queue": "limits.queue",
    "deadline_s": "deadline_s",
    "legacy_env": "environment",
    "idle_unload_s": "memory.idle_unload_s",
    "cache": "memory.cache",
    "records": "watch.records",
    "slow_s": "watch.slow_s",
    "min_similarity": "watch.min_similarity",
    "trace": "watch.trace",
}
"""Field of `Variables` -> the setting it sets. `instances.` and `defaults.` are those of every model."""

_Count: TypeAlias = Annotated[int, Field(ge=1)]
_Scale: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def _size(value: str | None) -> str | None:
    with_sides({"size": value})  # raises what is told of the variable
    return value


class Variables(BaseSettings):
    """`TRIPTYCH_MAX_HEIGHT` is `max_height`, and so on; `None` or empty is not set."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    config: Path | None = None
    model: str | None = None
    fallback_model: bool | None = None
    backends: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_split)] = None
    device: str | None = None
    dtype: str | None = None
    loras: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_split)] = None
    """Folders, relative to the working directory."""
    default_height: _Count | None = None
    default_width: _Count | None = None
    default_size: Annotated[str | None, AfterValidator(_size)] = None
    default_steps: _Count | None = None
    default_guidance: _Scale | None = None
    max_height: _Count | None = None
    max_width: _Count | None = None
    max_steps: _Count | None = None
    max_guidance: _Scale | None = None
    max_images: _Count | None = None
    concurrency: _Count | None = None
    queue: Annotated[int, Field(ge=0)] | None = None
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    legacy_env: bool = False
    """Whether names without the prefix are taken too; see `router.legacy`."""
    idle_unload_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    cache: Path | None = None
    records: Annotated[int, Field(ge=0)] | None = None
    slow_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    trace: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,
        **named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `read_variables` hands over: the caller may bring another environment."""
        return (init_settings,)

    def given(self, section: str) -> dict[str, Any]:
        """What the environment sets in a section: `limits` -> `{"max_height": 512}`."""
        start = f"{section}."
        return {
            setting.removeprefix(start): getattr(self, name)
            for name, setting in SETS.items()
            if setting.startswith(start) and getattr(self, name) is not None
        }


def read_variables(environ: Mapping[str, str]) -> Variables:
    """Check and read. Raises `ConfigError` that names the variable."""
    ours = {name.upper(): value for name, value in environ.items() if _is_ours(name.upper())}
    for name in ours:
        if (field := name.removeprefix(PREFIX).lower()) not in SETS:
            raise ConfigError(f"There is no variable {name}; {did_you_mean(field, SETS, variable)}")
    source = EnvSettingsSource(Variables)
    source.env_vars = {name.lower(): value for name, value in ours.items() if value}
    try:
        variables = Variables(**source())
    except ValidationError as exc:
        raise ConfigError(f"Environment: {first_finding(exc, Variables, variable)}") from exc
    for side in ("default_height", "default_width"):
        if variables.default_size is not None and getattr(variables, side) is not None:
            raise ConfigError(
                f"{variable('default_size')} and {variable(side)} are both set; unset one of them."
            )
    return variables


def variable(name: str) -> str:
    """`max_height` -> `TRIPTYCH_MAX_HEIGHT`."""
    return PREFIX + name.upper()


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX) and not name.startswith((ENHANCE_PREFIX, SERVER_PREFIX))
