"""Registry: name of a backend or enhancer -> import string -> factory; a missing library becomes the cure."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

from router.backend import BackendFactory
from router.enhancer import EnhancerFactory
from router.errors import BackendUnavailableError, ConfigError


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """Where a backend, or an enhancer of prompts, lives and what must be installed for it."""

    import_string: str
    """`package.module:Class`."""
    requires: tuple[str, ...] = ()
    """Top-level modules that it imports."""
    install: str = ""
    """The command that installs them."""


BACKENDS: dict[str, BackendEntry] = {
    "diffusers": BackendEntry(
        "backends.diffusers:DiffusersBackend",
        requires=("torch", "diffusers", "transformers"),
        install="pip install 'triptych[diffusers]'",
    ),
    "onnxruntime": BackendEntry(
        "backends.onnxruntime:OnnxRuntimeBackend",
        requires=("torch", "diffusers", "transformers", "onnxruntime"),
        install="pip install 'triptych[onnx]'",
    ),
    "triton": BackendEntry(
        "backends.triton:TritonBackend",
        requires=("tritonclient", "grpc", "numpy"),
        install="pip install 'triptych[triton]'",
    ),
    "spandrel": BackendEntry(
        "backends.spandrel:SpandrelBackend",
        requires=("torch", "spandrel", "safetensors", "numpy"),
        install="pip install 'triptych[upscale]'",
    ),
    "lanczos": BackendEntry("backends.lanczos:LanczosBackend"),
    "fake": BackendEntry("backends.fake:FakeBackend"),
}

ENHANCERS: dict[str, BackendEntry] = {
    "transformers": BackendEntry(
        "backends.enhance_transformers:TransformersEnhancer",
        requires=("torch", "diffusers", "transformers"),
        install="pip install 'triptych[diffusers]'",
    ),
    "chat": BackendEntry(
        "backends.enhance_chat:ChatEnhancer",
        requires=("httpx2",),
        install="pip install 'triptych[enhance]'",
    ),
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """One table, and what its entries are called in a sentence."""

    noun: str
    entries: Mapping[str, BackendEntry]

    def said(self, name: str) -> str:
        return f"{self.noun.capitalize()} {name!r}"


_BACKEND, _ENHANCER = _Kind("backend", BACKENDS), _Kind("enhancer", ENHANCERS)


def resolve(name: str) -> BackendFactory:
    """The factory behind a name of `BACKENDS` or an import string `package.module:Class`.

    Imports the backend's libraries, which takes seconds: not for the event loop.
    Raises `ConfigError` where the name leads nowhere, `BackendUnavailableError` where a library
    is missing or broken; its sentence is the cure.
    """
    return cast(BackendFactory, _resolve(name, _BACKEND))


def resolve_enhancer(name: str) -> EnhancerFactory:
    """The same for a name of `ENHANCERS`."""
    return cast(EnhancerFactory, _resolve(name, _ENHANCER))


def missing(name: str) -> str | None:
    """One sentence that names the libraries this backend lacks and the cure; `None` when it has all.

    Imports nothing. Raises `ConfigError` for an unknown name.
    """
    return _missing(name, _BACKEND)


def check_name(name: str) -> None:
    """Raises `ConfigError`, listing the known names, unless `resolve` knows where to look."""
    _entry(name, _BACKEND)


def check_enhancer(name: str) -> None:
    """The same for `resolve_enhancer`."""
    _entry(name, _ENHANCER)


def _resolve(name: str, kind: _Kind) -> Any:
    if sentence := _missing(name, kind):
        raise BackendUnavailableError(sentence)
    module_name, _, attribute = _entry(name, kind).import_string.partition(":")
    module = _import(module_name, name, kind)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigError(
            f"{kind.said(name)}: module {module_name} has no class {attribute!r}; correct the import string."
        )
    return factory


def _missing(name: str, kind: _Kind) -> str | None:
    entry = _entry(name, kind)
    lacking = [module for module in entry.requires if not _is_installed(module)]
    if not lacking:
        return None
    return f"{kind.said(name)} needs {', '.join(lacking)}; {entry.install}."


def _entry(name: str, kind: _Kind) -> BackendEntry:
    if entry := kind.entries.get(name):
        return entry
    module_name, _, attribute = name.partition(":")
    if attribute.isidentifier() and all(part.isidentifier() for part in module_name.split(".")):
        return BackendEntry(name)
    nearest = difflib.get_close_matches(name, kind.entries, n=1)
    hint = f"did you mean {nearest[0]!r}? The" if nearest else "the"
    raise ConfigError(
        f"There is no {kind.noun} {name!r}; {hint} {kind.noun}s are: {', '.join(kind.entries)},"
        " and your own by its import string `package.module:Class`."
    )


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _import(module_name: str, name: str, kind: _Kind) -> ModuleType:
    """Tells a module that is not there from one that is, but lacks what it imports itself."""
    said = kind.said(name)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        absent = exc.name or ""
        if module_name == absent or module_name.startswith(f"{absent}."):
            raise ConfigError(
                f"{said}: there is no module {absent!r}; install it or correct the import string."
            ) from exc
        cure = _entry(name, kind).install or "install the package that holds it"
        raise BackendUnavailableError(f"{said} needs {absent}, which is not installed; {cure}.") from exc
    except Exception as exc:
        raise BackendUnavailableError(
            f"{said} cannot be imported, its libraries are broken; install them again."
        ) from exc
