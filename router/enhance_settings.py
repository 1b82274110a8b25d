"""Enhance settings: the `[enhance]` table of triptych.toml and the TRIPTYCH_ENHANCE_ environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from router.enhancer import EnhanceConfig
from router.errors import ConfigError
from router.findings import did_you_mean, first_finding
from router.registry import check_enhancer
from router.variables import ENHANCE_PREFIX


def read_enhance(
    table: Mapping[str, Any], environ: Mapping[str, str], place: Path | None, directory: Path
) -> EnhanceConfig | None:
    """The settings of both, a variable before the file; `None` where neither has any. Raises `ConfigError`.

    A relative `source` of the file is relative to the file, one of the environment to `directory`.
    """
    variables = _variables(environ)
    if not table and not variables:
        return None
    where = f"{place}: enhance" if table else "Environment"
    config = _validated({**table, **variables}, where, str if table else _variable)
    folder = directory if "source" in variables or place is None else place.parent
    try:
        check_enhancer(config.kind)
    except ConfigError as exc:
        raise ConfigError(f"`enhance.kind`: {exc}") from exc
    return config.model_copy(update={"source": _resolved(config.source, folder)})


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Setting -> what the environment says; empty is not set."""
    given = {}
    for name, value in environ.items():
        if not name.upper().startswith(ENHANCE_PREFIX):
            continue
        key = name.upper().removeprefix(ENHANCE_PREFIX).lower()
        if key not in EnhanceConfig.model_fields or key == "options":
            known = did_you_mean(key, EnhanceConfig.model_fields, _variable)
            raise ConfigError(f"There is no variable {name.upper()}; {known}")
        if value:
            given[key] = value
    return given


def _validated(values: Mapping[str, Any], where: str, spell: Any) -> EnhanceConfig:
    try:
        return EnhanceConfig.model_validate(values)
    except ValidationError as exc:
        raise ConfigError(f"{where}: {first_finding(exc, EnhanceConfig, spell)}") from None


def _resolved(source: str, folder: Path) -> str:
    """A path as an absolute one; addresses, and what only a third party's enhancer knows, as they are."""
    is_path = source.startswith(("./", "../", "/", "~")) or (source and (folder / source).exists())
    return str((folder / Path(source).expanduser()).resolve()) if is_path else source


def _variable(name: str) -> str:
    return ENHANCE_PREFIX + name.upper()
