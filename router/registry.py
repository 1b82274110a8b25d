"""Registry: backend name -> import string -> factory; a missing library becomes the cure."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import cast

from router.backend import BackendFactory
from router.errors import BackendUnavailableError, ConfigError


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """Where a backend lives and what must be installed for it."""

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
    "fake": BackendEntry("backends.fake:FakeBackend"),
}


def resolve(name: str) -> BackendFactory:
    """The factory behind a name of `BACKENDS` or an import string `package.module:Class`.

    Imports the backend's libraries, which takes seconds: not for the event loop.
    Raises `ConfigError` where the name leads nowhere, `BackendUnavailableError` where a library
    is missing or broken; its sentence is the cure.
    """
    if sentence := missing(name):
        raise BackendUnavailableError(sentence)
    import_string = _entry(name).import_string
    module_name, _, attribute = import_string.partition(":")
    module = _import(module_name, name)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigError(
            f"Backend {name!r}: module {module_name} has no class {attribute!r}; correct the import string."
        )
    return cast(BackendFactory, factory)


def missing(name: str) -> str | None:
    """One sentence that names the libraries this backend lacks and the cure; `None` when it has all.

    Imports nothing. Raises `ConfigError` for an unknown name.
    """
    entry = _entry(name)
    lacking = [module for module in entry.requires if not _is_installed(module)]
    if not lacking:
        return None
    return f"Backend {name!r} needs {', '.join(lacking)}; {entry.install}."


def check_name(name: str) -> None:
    """Raises `ConfigError`, listing the known names, unless `resolve` knows where to look."""
    _entry(name)


def _entry(name: str) -> BackendEntry:
    if entry := BACKENDS.get(name):
        return entry
    module_name, _, attribute = name.partition(":")
    if attribute.isidentifier() and all(part.isidentifier() for part in module_name.split(".")):
        return BackendEntry(name)
    nearest = difflib.get_close_matches(name, BACKENDS, n=1)
    hint = f"did you mean {nearest[0]!r}? The" if nearest else "the"
    raise ConfigError(
        f"There is no backend {name!r}; {hint} backends are: {', '.join(BACKENDS)},"
        " and your own by its import string `package.module:Class`."
    )


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _import(module_name: str, name: str) -> ModuleType:
    """Tells a module that is not there from one that is, but lacks what it imports itself."""
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        absent = exc.name or ""
        if module_name == absent or module_name.startswith(f"{absent}."):
            raise ConfigError(
                f"Backend {name!r}: there is no module {absent!r}; install it or correct the import string."
            ) from exc
        cure = _entry(name).install or "install the package that holds it"
        raise BackendUnavailableError(
            f"Backend {name!r} needs {absent}, which is not installed; {cure}."
        ) from exc
    except Exception as exc:
        raise BackendUnavailableError(
            f"Backend {name!r} cannot be imported, its libraries are broken; install them again."
        ) from exc
