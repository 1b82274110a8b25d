"""From an export to a Triton model repository: `python -m export.to_triton DIR --runtime R --output REPO`.

Everything follows from the export's manifest. A repository is whole, and each of its configurations read
again by Triton's own schema, or it does not exist.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import text_format
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from tritonclient.grpc import model_config_pb2 as schema

from export.engine_manifest import FILE_NAME as ENGINES_FILE_NAME
from export.engine_manifest import EngineManifest
from export.errors import ExportError, UnsupportedExportError
from export.triton_components import ComponentModel, component_models, config, plan_of
from export.triton_pipeline import TEMPLATES, pipeline_config
from export.triton_settings import TritonSettings
from export.unfinished import unfinished
from router.cli import main
from router.manifest import Manifest

__all__ = ["TritonSettings", "to_triton"]

EXPORT = "export"
"""Folder of the export inside the pipeline model's version."""


def to_triton(folder: Path, output: Path, settings: TritonSettings) -> tuple[str, ...]:
    """Write a repository of the export `folder`, and say which models it has: the pipeline, its components.

    Raises `UnsupportedExportError` before anything is written, `LoadError` for what is no export,
    `ExportError` for one that has changed since it was made. Blocks.
    """
    if output.exists():
        raise UnsupportedExportError(f"`output` {output.name!r} is there already; name another folder.")
    manifest = Manifest.read(folder)
    models = component_models(manifest, settings)
    _check(folder, manifest, models, settings)
    pipeline = pipeline_config(folder, settings, models)
    with unfinished(output) as repository:
        _write_pipeline(repository / settings.name, folder, pipeline)
        for model in models:
            _write_component(repository / model.name, folder, model, settings)
    return (settings.name, *(model.name for model in models))


def _check(
    folder: Path, manifest: Manifest, models: Sequence[ComponentModel], settings: TritonSettings
) -> None:
    runtime = "onnxruntime" if settings.runtime == "python" else settings.runtime
    if runtime not in manifest.runtimes and not settings.unverified:
        raise UnsupportedExportError(
            f"`runtime` {settings.runtime!r} needs an export that was checked for {runtime}, and this one was"
            f" for {', '.join(manifest.runtimes) or 'none'}; export it with `triptych export onnx --runtime`."
        )
    for sentence in manifest.check_files(folder):
        raise ExportError(f"{folder.name!r} is not as it was exported: {sentence}")
    if settings.engines is not None:
        for graph in (graph for model in models for graph in model.graphs):
            plan_of(graph, settings.engines)
        _check_engines(settings.engines, manifest)


def _check_engines(engines: Path, manifest: Manifest) -> None:
    """Of trtexec's own nothing is known."""
    if (engines / ENGINES_FILE_NAME).is_file():
        built = EngineManifest.read(engines)
        built.check_graphs(engines, manifest)
        built.check_files(engines)


def _write_pipeline(model: Path, folder: Path, pipeline: Any) -> None:
    shutil.copytree(TEMPLATES / "pipeline" / "1", model / "1", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(folder, model / "1" / EXPORT)
    _write_config(model, pipeline)


def _write_component(model: Path, folder: Path, component: ComponentModel, settings: TritonSettings) -> None:
    version = model / "1"
    version.mkdir(parents=True)
    if settings.runtime == "python":
        shutil.copy(TEMPLATES / "pipeline" / "1" / "model.py", version)
    elif settings.engines is not None:
        shutil.copy(plan_of(component.graphs[0], settings.engines), version / "model.plan")
    else:
        _copy_graph(folder / component.graphs[0].file, version)
    _write_config(model, config(component, settings, f"../../{settings.name}/1/{EXPORT}"))


def _copy_graph(file: Path, version: Path) -> None:
    """With the files that hold its weights, which it names relative to itself."""
    shutil.copy(file, version / "model.onnx")
    for name in _data_files(file):
        shutil.copy(file.parent / name, version)


def _data_files(file: Path) -> Iterator[str]:
    graph = onnx.load(file, load_external_data=False).graph
    outside = (tensor for tensor in graph.initializer if uses_external_data(tensor))
    yield from dict.fromkeys(ExternalDataInfo(tensor).location for tensor in outside)


def _write_config(model: Path, written: Any) -> None:
    text = text_format.MessageToString(written)
    if text_format.Parse(text, schema.ModelConfig()) != written:
        raise ExportError(f"The configuration of {model.name!r} is not read as it was written.")
    (model / "config.pbtxt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.argv[1:1] = ["export", "triton"]
    main()
