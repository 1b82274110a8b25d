"""Legacy: the unprefixed variables of earlier systems, and what each one is now."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath

from router.errors import ConfigError

SWITCH = "TRIPTYCH_LEGACY_ENV"

RENAMED: Mapping[str, str] = {
    "MODEL_ID": "TRIPTYCH_MODEL",
    "MODEL": "TRIPTYCH_MODEL",
    "MODEL_ROOT": "TRIPTYCH_MODEL",
    "SDXL_MODEL": "TRIPTYCH_MODEL",
    "SDXL_MODEL_ROOT": "TRIPTYCH_MODEL",
    "DEVICE": "TRIPTYCH_DEVICE",
    "DTYPE": "TRIPTYCH_DTYPE",
    "CUDA_DTYPE": "TRIPTYCH_DTYPE",
    "DEFAULT_WIDTH": "TRIPTYCH_DEFAULT_WIDTH",
    "DEFAULT_HEIGHT": "TRIPTYCH_DEFAULT_HEIGHT",
    "DEFAULT_STEPS": "TRIPTYCH_DEFAULT_STEPS",
    "DEFAULT_GUIDANCE": "TRIPTYCH_DEFAULT_GUIDANCE",
    "DEFAULT_SIZE": "TRIPTYCH_DEFAULT_SIZE",
    "MAX_WIDTH": "TRIPTYCH_MAX_WIDTH",
    "MAX_HEIGHT": "TRIPTYCH_MAX_HEIGHT",
    "MAX_STEPS": "TRIPTYCH_MAX_STEPS",
    "MAX_CONCURRENCY": "TRIPTYCH_CONCURRENCY",
    "TRITON_TIMEOUT": "TRIPTYCH_DEADLINE_S",
}
"""Old name -> ours."""

_ATTENTION = (
    "attention is chosen by itself, xformers where it is installed; an instance's option `attention`"
    " chooses otherwise, and `triptych backends` shows it"
)
_SERVER = (
    "TRIPTYCH_MODEL=grpc://HOST:8001/NAME names a server and its model, and so does the `source` of an"
    " instance in triptych.toml"
)
REPLACED: Mapping[str, str] = {
    "USE_SDXL": "a model's family is found in its own files",
    "NUM_WORKERS": "one process owns the devices; TRIPTYCH_CONCURRENCY is how many requests run at once on an"
    " instance, and more instances in triptych.toml bring more throughput",
    "CUDA_ENABLE_XFORMERS": _ATTENTION,
    "CUDA_ATTENTION_SLICING": _ATTENTION,
    "DIFFUSERS_ENABLED": "TRIPTYCH_BACKENDS lists the backends that serve",
    "TRITON_SERVER_URL": f"Triton is asked by gRPC; {_SERVER}",
    "TRITON_GRPC_URL": _SERVER,
}
"""Old name without one of ours -> what there is instead."""

_MODELS = (("SDXL_MODEL", "SDXL_MODEL_ROOT"), ("MODEL", "MODEL_ROOT"), ("MODEL_ID", ""))
"""A model's old names, each with that of the folder which it lay in."""
_ABOUT_MODELS = frozenset(name for names in _MODELS for name in names) | {"USE_SDXL"}

_DTYPES = {
    "auto": "auto",
    **dict.fromkeys(("float16", "fp16", "half"), "float16"),
    **dict.fromkeys(("bfloat16", "bf16"), "bfloat16"),
    **dict.fromkeys(("float32", "fp32", "float", "full"), "float32"),
}
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]+)?")
_FLAGS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


@dataclass(slots=True)
class Legacy:
    """The environment in our names, and what is to be told of the old ones."""

    environ: dict[str, str]
    notes: list[str] = field(default_factory=list)
    """One sentence for each old name that is set."""
    names: dict[str, str] = field(default_factory=dict)
    """Ours -> the old name whose value it has."""
    is_on: bool = True

    @property
    def told(self) -> tuple[str, ...]:
        """The notes, where the old names are taken; else they are for who asks."""
        return tuple(self.notes) if self.is_on else ()

    @contextmanager
    def in_old_words(self) -> Iterator[None]:
        """A wrong value is told under the name that it was set by."""
        try:
            yield
        except ConfigError as exc:
            raise ConfigError(self.said(str(exc))) from exc

    def said(self, sentence: str) -> str:
        """The sentence with the old names before ours."""
        for ours, old in self.names.items():
            sentence = re.sub(rf"\b{ours}\b", f"{old} (now {ours})", sentence)
        return sentence

    def take(self, old: str, value: str) -> None:
        """Put it in the place of ours, unless that is set."""
        ours = RENAMED[old]
        if self.environ.get(ours):
            self.leave(old, f"{self.names.get(ours, ours)} goes before it")
            return
        self.environ[ours], self.names[ours] = value, old
        self.notes.append(f"{old} is taken as {ours}={value}; set that instead.")

    def leave(self, old: str, why: str) -> None:
        self.notes.append(f"{old} is not taken: {why}.")


def read_legacy(environ: Mapping[str, str]) -> Legacy:
    """Put the old names in the place of ours, or say that they have no effect. Raises `ConfigError`.

    A variable of ours that is set goes before the old one. An empty one is not set.
    """
    found = {name: environ[name].strip() for name in (*RENAMED, *REPLACED) if environ.get(name, "").strip()}
    legacy = Legacy(dict(environ), is_on=_flag(SWITCH, environ.get(SWITCH) or "0"))
    if not legacy.is_on:
        legacy.notes += [f"{name} has no effect: {_instead(name)}." for name in found]
        return legacy
    _take_models(legacy, found)
    for name, value in found.items():
        if name in RENAMED and name not in _ABOUT_MODELS:
            _take_plain(legacy, name, value)
        elif name in REPLACED and name not in _ABOUT_MODELS:
            legacy.leave(name, REPLACED[name])
    return legacy


def _instead(name: str) -> str:
    return REPLACED.get(name) or f"its name is {RENAMED[name]} now, and {SWITCH}=1 takes the old ones"


def _take_plain(legacy: Legacy, name: str, value: str) -> None:
    """Values that were spelled in another way are spelled in ours."""
    if name == "DEVICE" and not _DEVICE.fullmatch(value):
        raise ConfigError(f"DEVICE is {value!r}; use auto, cpu, cuda:0 or mps (now {RENAMED[name]}).")
    if name == "CUDA_DTYPE" and not legacy.environ.get("TRIPTYCH_DEVICE", "").startswith("cuda"):
        legacy.leave(name, "no CUDA device is named, and `auto` is right for each; TRIPTYCH_DTYPE is for all")
        return
    if name.endswith("DTYPE"):
        value = _dtype(name, value)
    if name == "DEFAULT_SIZE" and value.isdecimal():  # it was one side of a square
        value = f"{value}x{value}"
    legacy.take(name, value)


def _take_models(legacy: Legacy, found: Mapping[str, str]) -> None:
    """The model that the old names agree on; USE_SDXL chose among them."""
    named = {model if model in found else root: path for model, root, path in _models(found)}
    if "USE_SDXL" in found:
        is_sdxl = _flag("USE_SDXL", found["USE_SDXL"])
        chosen = {name: path for name, path in named.items() if name.startswith("SDXL") == is_sdxl}
        for name in named.keys() - chosen.keys():
            legacy.leave(name, f"USE_SDXL is {found['USE_SDXL']}, and TRIPTYCH_MODEL names one model")
        legacy.leave("USE_SDXL", f"{REPLACED['USE_SDXL']}, and it only chose among the old names")
        named = chosen
    if len(set(named.values())) > 1 and not legacy.environ.get("TRIPTYCH_MODEL"):
        raise ConfigError(f"{' and '.join(named)} name different models; set TRIPTYCH_MODEL to one of them.")
    for name, path in named.items():
        legacy.take(name, path)
        root = dict(_MODELS).get(name)
        if root in found:
            legacy.notes.append(f"{root} is taken as the folder of {name}; TRIPTYCH_MODEL names both.")


def _models(found: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Old name of a model, that of its folder, and where it is by both."""
    for model, root in _MODELS:
        if model in found or root in found:
            path = found.get(model, "")
            yield model, root, str(PurePath(found[root], path)) if root in found else path


def _dtype(name: str, value: str) -> str:
    known = _DTYPES.get(value.lower().removeprefix("torch."))
    if known is None:
        raise ConfigError(
            f"{name} is {value!r}; use auto, float16, bfloat16 or float32 (now {RENAMED[name]})."
        )
    return known


def _flag(name: str, value: str) -> bool:
    known = _FLAGS.get(value.strip().lower())
    if known is None:
        raise ConfigError(f"{name} is {value[:40]!r}; use 1 or 0.")
    return known
