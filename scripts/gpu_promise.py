"""What the ledger promises for requests to a pipeline that is on the device already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch

from backends._footprint import MemorySettings, cell_pixels, footprint
from router.footprint import Demand, Footprint, Workspace
from router.header import Tensor
from router.model_folder import ModelFolder
from scripts.gpu_models import Asked


class BuiltFolder:
    """Tells of the modules of a pipeline what a model folder tells of its files."""

    def __init__(self, pipeline: Any) -> None:
        self._modules = {
            name: each for name, each in pipeline.components.items() if isinstance(each, torch.nn.Module)
        }
        self.index = {"_class_name": type(pipeline).__name__}

    def components(self) -> dict[str, tuple[str, str]]:
        return {name: ("", type(module).__name__) for name, module in self._modules.items()}

    def config(self, component: str) -> dict[str, Any]:
        module = self._modules.get(component)
        return {} if module is None else {**dict(module.config), "_class_name": type(module).__name__}

    def tensors(self, component: str) -> Mapping[str, Tensor]:
        return {
            name: Tensor(str(each.dtype), tuple(each.shape), each.nbytes)
            for name, each in self._modules[component].state_dict().items()
        }


class Promise:
    """Of one model: by formula, and once runs were measured, by what they have shown."""

    def __init__(self, pipeline: Any, asked: Asked, dtype: torch.dtype, rows_per_picture: int) -> None:
        self._folder = cast("ModelFolder", BuiltFolder(pipeline))
        self._dtype = dtype
        self._rows = rows_per_picture
        self._pixels = asked.height * asked.width

    @property
    def cell_pixels(self) -> int:
        return cell_pixels(self._folder)

    def bytes(
        self, count: int, row_limit: int, decode_limit: int, measured: Workspace, *, overlapped: bool = False
    ) -> int:
        """For so many requests in progress, weights included."""
        settings = MemorySettings(decode_limit=decode_limit, overlapped=overlapped)
        found: Footprint = replace(footprint(self._folder, self._dtype, settings), row_limit=row_limit)
        demand = Demand(self._rows * count, count, self._pixels)
        return found.weights_bytes + found.with_measured(measured).workspace_alone(demand)
