"""An export's folder as a Diffusers pipeline, its modules over sessions."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from backends._export_folder import TEXT_ENCODERS, ExportFolder
from backends._onnx_modules import SessionTextEncoder, SessionTransformer, SessionUNet, SessionVae
from backends._quiet import quiet
from backends._session import Runtime
from backends._sessions import Sessions

_MODULES: dict[str, Any] = {"unet": SessionUNet, "transformer": SessionTransformer} | dict.fromkeys(
    TEXT_ENCODERS, SessionTextEncoder
)


def read_pipeline(folder: ExportFolder, runtime: Runtime, device: torch.device) -> Any:
    """Load every graph, and put the pipeline's own class around them. Blocking, for seconds."""
    sessions = {
        name: Sessions(runtime.open(graph.file) for graph in folder.graphs(name))
        for name in folder.graph_components()
    }
    folder.check_shapes(sessions[folder.denoiser].is_dynamic)
    modules = {
        name: _MODULES[name](folder.config(name), sessions[name], device)
        for name in sessions
        if name in _MODULES
    }
    modules["vae"] = SessionVae(
        folder.config("vae"), sessions["vae_decoder"], sessions.get("vae_encoder"), device
    )
    with quiet():
        bare = diffusers.DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            folder.folder, local_files_only=True, **dict.fromkeys([*modules, *folder.left_out()])
        )
    settings = {
        name: value for name, value in bare.config.items() if isinstance(value, str | bool | int | float)
    }
    settings = {name: value for name, value in settings.items() if not name.startswith("_")}
    return type(bare)(**{**bare.components, **modules, **settings})
