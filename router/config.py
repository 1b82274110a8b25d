"""RouterConfig: the frozen values that a router is made of. `settings.py` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router.devices import spread
from router.enhancer import EnhanceConfig
from router.preset import BUILT_IN, RequestPreset
from router.sizes import with_sides

SHIPPED_MODEL = "shapes"
"""The name of the model that serves when nothing is configured."""

_Count: TypeAlias = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelDefaults(_Frozen):
    """Overrides what the model itself has as defaults. `None` keeps the model's."""

    height: _Count | None = None
    width: _Count | None = None
    size: str | None = None
    """`s`, `m` or `l`, or `WIDTHxHEIGHT`, read as `height` and `width`; instead of them."""
    num_inference_steps: _Count | None = None
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    scheduler: str | None = None
    refiner_start: Annotated[float, Field(gt=0, le=1)] | None = None
    negative_prompt: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_size(cls, given: Any) -> Any:
        return with_sides(given) if isinstance(given, dict) else given


class Limits(_Frozen):
    """The most that a request may ask, and that may run and wait at once."""

    max_height: _Count = 2048
    max_width: _Count = 2048
    max_steps: _Count = 150
    max_guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    max_images: _Count = 8
    concurrency: _Count = 8
    """Requests in progress at once on one instance; the others wait."""
    queue: Annotated[int, Field(ge=0)] = 64
    """Requests that may wait for one instance; one more gets `QueueFullError`."""


class InstanceConfig(_Frozen):
    """One way to serve a model."""

    name: str = ""
    """Unique over all models; made as `model/backend` (and a number) where left out."""
    backend: str
    """A name of the registry, or an import string `package.module:Class`."""
    source: str = ""
    """Folder, checkpoint, hub id or server URL; what it means is the backend's affair."""
    device: str = "auto"
    """`cpu`, `cuda:0`, ...; `auto` is the fastest there is. In a model's table a list makes one of each."""
    dtype: str = "auto"
    """`float32`, `float16`, `bfloat16`; `auto` is right for device and model family."""
    row_limit: _Count | None = None
    """Most rows in one run; `None` is 16, or what the device's memory holds."""
    resident: bool = False
    """Loaded when the service starts, and never unloaded to make room or for being idle."""
    lora_folders: tuple[str, ...] = ()
    """Folders of LoRAs; empty is the model's, or the file's own."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The backend's own settings; each backend checks them and names an unknown one."""


class ModelConfig(_Frozen):
    """A public name and the instances that make the same picture under it."""

    name: str
    instances: Annotated[tuple[InstanceConfig, ...], Field(min_length=1)]
    type: str = ""
    """The family it must be of, such as `sdxl`; empty takes what is found."""
    description: str = ""
    licence: str = ""
    defaults: ModelDefaults = ModelDefaults()
    policy: Literal["order", "fastest"] = "order"
    origin: str = ""
    """Where it was found and why it serves, for `triptych models`."""
    stands_in: str = ""
    """Why it serves in place of the default model, if it does: told to all who name none."""

    _spread = model_validator(mode="before")(spread)


class BreakerConfig(_Frozen):
    """When an instance is left alone, and for how long. On by default."""

    failures: _Count = 3
    """Failures of distinct requests in a row that open the breaker."""
    reset_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds until an open breaker tries one cheap probe."""


class WatchConfig(_Frozen):
    """What is kept of requests that have ended, and what is warned of."""

    records: Annotated[int, Field(ge=0)] = 256
    """The newest that `records()` returns."""
    slow_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds in the router above which a request is warned of as slow."""
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Below it a picture is warned of as unlike the one it was made from; see `router.similarity`."""
    trace: Path | None = None
    """File for the timeline of the lanes, written at the end; see `router.trace`."""


class MemoryConfig(_Frozen):
    """How long models stay loaded, and where measured bytes are kept."""

    idle_unload_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds without a request after which an instance is unloaded; `None` is never."""
    cache: Path | None = None
    """Folder for what was measured of models on this machine; `None` keeps nothing."""


class RouterConfig(_Frozen):
    """Everything a `BackendRouter` is made of."""

    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1)]
    default_model: str
    limits: Limits = Limits()
    breaker: BreakerConfig = BreakerConfig()
    watch: WatchConfig = WatchConfig()
    memory: MemoryConfig = MemoryConfig()
    enhance: EnhanceConfig | None = None
    """Who makes fuller prompts; `None` is nobody."""
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    """For requests that name none; `None` waits as long as it takes."""
    device_memory: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Device -> bytes that may be promised on it; else all that the device has."""
    max_failovers: Annotated[int, Field(ge=0)] = 2
    """Most further instances that one request may fail over to."""
    presets: dict[str, RequestPreset] = Field(default_factory=lambda: dict(BUILT_IN))
    """Name -> what a request with that `preset` has in the fields that it leaves out."""
    sources: tuple[str, ...] = ()
    """Where each setting came from, for `triptych check`: one line each."""
    legacy: tuple[str, ...] = ()
    """What became of each variable of earlier systems, where they are taken: one sentence each."""

    def model(self, name: str) -> ModelConfig | None:
        return next((model for model in self.models if model.name == name), None)
