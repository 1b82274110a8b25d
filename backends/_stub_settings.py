"""PipelineSettings: the parameters of a pipeline model's config.pbtxt, and the router that they make."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from router.config import InstanceConfig, Limits, ModelConfig, RouterConfig
from router.errors import ConfigError
from router.findings import first_finding

CONTRACT: Final = "1"
"""What the inputs, outputs and parameters of a pipeline model mean; a client refuses another."""


def _from_json(text: str) -> Any:
    return json.loads(text or "{}")


class PipelineSettings(BaseModel):
    """Every parameter is a string in Triton; these are what the strings say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    triptych: Literal["1"]
    capabilities: str = ""
    """For clients; here it is found out again."""
    site_packages: str = ""
    """For model.py, which has done with it."""
    source: str = "export"
    """Folder of the export; a relative one is inside the version folder."""
    device: str = "auto"
    row_limit: Annotated[int, Field(ge=1)] | None = None
    options: Annotated[dict[str, Any], BeforeValidator(_from_json)] = Field(default_factory=dict)
    """JSON: the options of the backend."""
    components: Literal["own", "triton"] = "own"
    """Whether the graphs run in this process, or as models of this server."""
    concurrency: Annotated[int, Field(ge=1)] = 16
    """Requests in progress at once."""
    queue: Annotated[int, Field(ge=0)] = 64
    """Requests that may wait; one more is refused. Triton's own queue no longer counts."""
    max_height: Annotated[int, Field(ge=8)] = 2048
    max_width: Annotated[int, Field(ge=8)] = 2048
    max_steps: Annotated[int, Field(ge=1)] = 150
    max_images: Annotated[int, Field(ge=1)] = 8

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> PipelineSettings:
        """From a model's configuration. Raises `ConfigError` that names the parameter."""
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        try:
            return cls.model_validate(parameters)
        except ValidationError as exc:
            where = f"config.pbtxt of {config['name']!r}, parameters"
            raise ConfigError(f"{where}: {first_finding(exc, cls)}") from exc

    def router_config(self, name: str, version: Path) -> RouterConfig:
        """One model with one instance; `version` is the folder that `source` is relative to."""
        backend = "onnxruntime" if self.components == "own" else "backends._stub_backend:ComponentsBackend"
        instance = InstanceConfig(
            backend=backend,
            name=name,
            source=str(version / self.source),
            device=self.device,
            row_limit=self.row_limit,
            options=self.options,
        )
        limits = Limits.model_validate({key: value for key, value in self if key in Limits.model_fields})
        return RouterConfig(
            models=(ModelConfig(name=name, instances=(instance,)),), default_model=name, limits=limits
        )
