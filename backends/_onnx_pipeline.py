"""An export's folder as a Diffusers pipeline, its modules over sessions."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from backends._allocator import give_back_freed_memory
from backends._export_checks import check_graph
from backends._export_folder import TEXT_ENCODERS, ExportFolder, Graph
from backends._onnx_modules import SessionTextEncoder, SessionTransformer, SessionUNet, SessionVae
from backends._quiet import quiet
from backends._session import Runtime, Session
from backends._sessions import Sessions

_MODULES: dict[str, Any] = {"unet": SessionUNet, "transformer": SessionTransformer} | dict.fromkeys(
    TEXT_ENCODERS, SessionTextEncoder
)


def read_pipeline(folder: ExportFolder, runtime: Runtime, device: torch.device) -> Any:
    """Load every graph, and put the pipeline's own class around them. Blocking, for seconds.

    Raises `LoadError` for a graph that is not what its manifest says.
    """
    sessions = {
        name: Sessions([_open(folder, graph, runtime) for graph in graphs])
        for name, graphs in folder.graphs.items()
    }
    give_back_freed_memory()  # while a graph is opened its weights are there twice
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
    settings = {name: value for name, value in bare.config.items() if isinstance(value, bool | int | float)}
    return type(bare)(**{**bare.components, **modules, **settings})


def _open(folder: ExportFolder, graph: Graph, runtime: Runtime) -> Session:
    session = runtime.open(graph.file, graph.inputs)
    check_graph(folder, graph, session)
    return session
