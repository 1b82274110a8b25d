"""Reading an instance's `options` into a backend's own settings."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from router.config import InstanceConfig
from router.errors import ConfigError

Options = TypeVar("Options", bound=BaseModel)


def read_options(kind: type[Options], instance: InstanceConfig) -> Options:
    """Check `options` of the instance. Raises `ConfigError` naming instance, key, value and cure."""
    try:
        return kind.model_validate(instance.options)
    except ValidationError as exc:
        raise ConfigError(_sentence(kind, instance, exc)) from exc


def _sentence(kind: type[BaseModel], instance: InstanceConfig, exc: ValidationError) -> str:
    first = exc.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    where = f"Instance {instance.name!r} ({instance.backend}): option `{key}`"
    if first["type"] != "extra_forbidden":
        return f"{where} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}."
    known = ", ".join(kind.model_fields)
    near = get_close_matches(key, kind.model_fields, 1)
    meant = f" Did you mean `{near[0]}`?" if near else ""
    return f"{where} is not known; the options are: {known}.{meant}"
