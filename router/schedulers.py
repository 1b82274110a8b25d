"""Schedulers by name: Diffusers' classes, and what other programs call them.

Which class a foreign name means, and with which settings, is Diffusers' own table ("Schedulers", k-diffusion
and A1111 names); `sgm uniform` is its `timestep_spacing="trailing"`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SUFFIX = "Scheduler"

_EULER = ("EulerDiscrete", "FlowMatchEulerDiscrete")
_MULTISTEP = ("DPMSolverMultistep",)

_NAMES: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "ddim": (("DDIM",), {}),
    "ddpm": (("DDPM",), {}),
    "deis": (("DEISMultistep",), {}),
    "dpm++ 2m": (_MULTISTEP, {"algorithm_type": "dpmsolver++"}),
    "dpm++ 2m sde": (_MULTISTEP, {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++ sde": (("DPMSolverSinglestep",), {}),
    "dpm2": (("KDPM2Discrete",), {}),
    "dpm2 a": (("KDPM2AncestralDiscrete",), {}),
    "dpm2 ancestral": (("KDPM2AncestralDiscrete",), {}),
    "euler": (_EULER, {}),
    "euler a": (("EulerAncestralDiscrete",), {}),
    "euler ancestral": (("EulerAncestralDiscrete",), {}),
    "heun": (("HeunDiscrete",), {}),
    "lcm": (("LCM",), {}),
    "lms": (("LMSDiscrete",), {}),
    "plms": (("PNDM",), {}),
    "pndm": (("PNDM",), {}),
    "unipc": (("UniPCMultistep",), {}),
}
"""Name -> the classes it may mean, the first that a model has, and their settings."""

_VARIANTS: Mapping[str, tuple[str, Any]] = {
    "karras": ("use_karras_sigmas", True),
    "exponential": ("use_exponential_sigmas", True),
    "trailing": ("timestep_spacing", "trailing"),
    "sgm uniform": ("timestep_spacing", "trailing"),
    "leading": ("timestep_spacing", "leading"),
    "linspace": ("timestep_spacing", "linspace"),
}
"""Word behind a name -> the setting it stands for."""

_SIGMAS = frozenset(
    {
        *("DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "EulerDiscrete", "HeunDiscrete"),
        *("KDPM2AncestralDiscrete", "KDPM2Discrete", "LMSDiscrete", "UniPCMultistep"),
        "FlowMatchEulerDiscrete",
    }
)
TAKES: Mapping[str, frozenset[str]] = {
    "use_karras_sigmas": _SIGMAS,
    "use_exponential_sigmas": _SIGMAS,
    "timestep_spacing": (_SIGMAS - {"DPMSolverSinglestep", "FlowMatchEulerDiscrete"})
    | {"DDIM", "DDPM", "EulerAncestralDiscrete", "LCM", "PNDM"},
}
"""Setting -> the classes that have it."""


@dataclass(frozen=True, slots=True)
class NamedScheduler:
    """What a name means."""

    kind: str
    """Diffusers' class without `Scheduler` at its end."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the model's own configuration."""


def find_scheduler(name: str, offered: Sequence[str]) -> NamedScheduler | None:
    """What `name` means where these classes are offered, or `None`.

    Case, blanks, `_` and `-` do not count: `DPM++ 2M Karras`, `dpmpp_2m_karras`, `k_euler_a` are known.
    """
    return next(_meanings(_plain(name.removesuffix(SUFFIX)), offered), None)


def scheduler_names(offered: Sequence[str]) -> list[str]:
    """The names of other programs that mean one of these classes, Karras's noise levels among them."""
    names = [
        spelled for name in _NAMES for spelled in (name, f"{name} karras") if find_scheduler(spelled, offered)
    ]
    return sorted(names)


def class_name(name: str) -> str:
    """`DDIMScheduler` and `DDIM` are the same class."""
    return name.removesuffix(SUFFIX)


def _meanings(word: str, offered: Sequence[str]) -> Iterator[NamedScheduler]:
    yield from (NamedScheduler(kind) for kind in offered if word == _plain(kind))
    for name, (kinds, settings) in _NAMES.items():
        if word.removeprefix("k") == _plain(name).removeprefix("k"):
            yield from (NamedScheduler(kind, settings) for kind in kinds if kind in offered)
    for variant, (key, value) in _VARIANTS.items():
        base = word.removesuffix(_plain(variant))
        if base and base != word:
            yield from _varied(_meanings(base, offered), key, value)


def _varied(meanings: Iterator[NamedScheduler], key: str, value: Any) -> Iterator[NamedScheduler]:
    """The same with one more setting, of those that have it."""
    for meant in meanings:
        if meant.kind in TAKES[key] and not _excludes(meant.settings, key):
            yield NamedScheduler(meant.kind, {**meant.settings, key: value})


def _excludes(settings: Mapping[str, Any], key: str) -> bool:
    """One spacing, and one rule for the noise levels."""
    return key in settings or (key.startswith("use_") and any(each.startswith("use_") for each in settings))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))
