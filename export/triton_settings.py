"""TritonSettings: what a Triton model repository is made of beside its export. Made once, refused at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from export.errors import UnsupportedExportError

TritonRuntime: TypeAlias = Literal["python", "onnxruntime", "tensorrt"]
RUNTIMES: Final[tuple[TritonRuntime, ...]] = get_args(TritonRuntime)
Components: TypeAlias = Literal["own", "triton"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class TritonSettings:
    """Raises `UnsupportedExportError` when made of what does not go together."""

    name: str
    """Of the pipeline model; those of the components begin with it."""
    runtime: TritonRuntime = "python"
    """What runs the component models in the server."""
    profiles: tuple[str, ...] = ()
    """Only these of the export; empty is all."""
    components: Components = "own"
    """Whether the pipeline runs the graphs in its own process, or calls the component models."""
    engines: Path | None = None
    """TensorRT: the folder of `unet/model.plan` and so on, named as the graphs that they are built from."""
    device: str = "auto"
    threads: int | None = None
    """CPU threads of one run of one model; `None` leaves it to ONNX Runtime."""
    concurrency: int = 16
    queue: int = 64
    site_packages: str = ""
    """Where the server's Python finds Triptych; empty where it is installed for that Python."""
    unverified: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UnsupportedExportError(
                f"`name` is {self.name!r}; use letters, digits, `_`, `-` and `.`, as in a folder's name."
            )
        if self.runtime not in RUNTIMES:
            raise UnsupportedExportError(f"`runtime` is {self.runtime!r}; use one of {', '.join(RUNTIMES)}.")
        if self.components not in get_args(Components):
            raise UnsupportedExportError(f"`components` is {self.components!r}; use own or triton.")
        if (self.runtime == "tensorrt") != (self.engines is not None):
            raise UnsupportedExportError(
                "`engines` names the folder of TensorRT's plans and goes with `runtime` tensorrt alone;"
                " give both or neither."
            )
        for name, least in (("concurrency", 1), ("queue", 0), ("threads", 1)):
            number = getattr(self, name)
            if number is not None and number < least:
                raise UnsupportedExportError(f"`{name}` is {number}; it must be at least {least}.")

    @property
    def on_gpu(self) -> bool:
        return self.runtime == "tensorrt" or self.device.startswith("cuda")
