"""The folder of an export, written in Optimum's layout: graphs, configurations, what is copied, manifest."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import onnx_ir

from export.components import Component
from export.families import family_of
from export.graph import record, trace
from export.operators import runtimes_of
from export.plan import PlannedGraph, bucket_rows, plan
from export.progress import Progress, Silent
from export.settings import ExportSettings
from export.source import read_part, source_sha256
from export.weights import SharedWeights, needs_data_file
from router.manifest import FILE_NAME, FileRecord, GraphRecord, Manifest, ProfileRecord, Runtime
from router.model_folder import PICKLED, ModelFolder
from router.types import ShapeProfile

TOOLS: Final = ("torch", "diffusers", "transformers", "onnx", "onnxscript")


def write_folder(
    source: Path, folder: Path, settings: ExportSettings, progress: Progress | None = None
) -> Manifest:
    """Export every component of `source` into `folder`, which must be there and empty.

    The manifest is written too; its `parity` is `None`, for nothing has been compared yet.
    """
    return _Folder(source, folder, settings, progress or Silent()).write()


def file_records(folder: Path) -> dict[str, FileRecord]:
    """Every file but the manifest, by its path inside the folder. Reads them all."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: FileRecord.of(files[name]) for name in sorted(files) if name != FILE_NAME}


class _Folder:
    def __init__(self, source: Path, folder: Path, settings: ExportSettings, progress: Progress) -> None:
        self.source = source
        self.folder = folder
        self.settings = settings
        self.progress = progress
        self.family = family_of(source, timestep=settings.timestep)
        self.plan = plan(self.family, settings)

    def write(self) -> Manifest:
        files = {each.file for graphs in self.plan.values() for each in graphs}
        self.progress.begin("export", len(files))
        self._copy()
        components = dict(self._components())
        manifest = Manifest(
            family=self.family.name,
            pipeline=self.family.pipeline,
            profiles=tuple(self._profile(profile) for profile in self.settings.profiles),
            components=components,
            timestep=self.settings.timestep,
            opset=self.settings.opset,
            tools={name: version(name) for name in TOOLS},
            source_sha256=source_sha256(self.source),
            files=file_records(self.folder),
            runtimes=self._runtimes(components),
        )
        manifest.write(self.folder)
        return manifest

    def _runtimes(self, components: Mapping[str, tuple[GraphRecord, ...]]) -> tuple[Runtime, ...]:
        """Those asked for, which the gate then checks, and all others that know every operator."""
        files = {self.folder / graph.file for graphs in components.values() for graph in graphs}
        return tuple(dict.fromkeys((*self.settings.runtimes, *runtimes_of(files))))

    def _profile(self, profile: ShapeProfile) -> ProfileRecord:
        return ProfileRecord(
            name=profile.name,
            height=profile.height,
            width=profile.width,
            dtype=profile.dtype,
            row_buckets=bucket_rows(profile, self.settings),
            text_lengths=profile.text_lengths,
        )

    def _copy(self) -> None:
        """What pipelines read beside the graphs: scheduler, tokenizers, parts that no graph replaces."""
        shutil.copyfile(self.source / "model_index.json", self.folder / "model_index.json")
        for licence in self.source.glob("LICENSE*"):
            shutil.copyfile(licence, self.folder / licence.name)
        exported = {component.part for component in self.family.components}
        pickled = shutil.ignore_patterns(*(f"*{suffix}" for suffix in PICKLED))
        for name in ModelFolder(self.source, "source").components().keys() - exported:
            shutil.copytree(self.source / name, self.folder / name, ignore=pickled)

    def _components(self) -> Iterator[tuple[str, tuple[GraphRecord, ...]]]:
        """Component -> its graphs. The weights of a part are read once and let go before the next."""
        for part, components in itertools.groupby(self.family.components, lambda each: each.part):
            pipeline: Any = None
            for component in components:
                pipeline = pipeline or read_part(self.source, part, component.dtype(self.settings.dtype))
                (self.folder / component.name).mkdir()
                self._write_config(component)
                yield component.name, self._write_graphs(component, pipeline)

    def _write_config(self, component: Component) -> None:
        """The part's own; a denoiser's names the first profile's size, if square, as Diffusers' default."""
        file = self.source / component.part / "config.json"
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        height, width = component.inputs[0].shape(self.settings.profiles[0], 1)[-2:]
        if component.rows_kind == "bucket" and "sample_size" in config and height == width:
            config["sample_size"] = height
        text = json.dumps(config, indent=2) + "\n"
        (self.folder / component.name / "config.json").write_text(text, encoding="utf-8")

    def _write_graphs(self, component: Component, pipeline: Any) -> tuple[GraphRecord, ...]:
        module, planned = component.wrap(pipeline), self.plan[component.name]
        written: dict[str, GraphRecord] = {}
        with ExitStack() as stack:
            weights = None
            if needs_data_file(module, len({each.file for each in planned})):
                weights = stack.enter_context(SharedWeights(self.folder / component.name))
            for each in planned:
                if each.file not in written:
                    self.progress.step(each.file)
                    graph = trace(module, each, self.settings)
                    written[each.file] = record(graph, each)
                    self._save(graph, each, weights, first=len(written) == 1)
        return tuple(_standing_for(written[each.file], each) for each in planned)

    def _save(
        self, graph: onnx_ir.Model, planned: PlannedGraph, weights: SharedWeights | None, *, first: bool
    ) -> None:
        added = weights.take(graph) if weights else 0
        if added and not first:
            self.progress.note(f"{planned.file} shares not all weights: {added / 1e6:,.1f} MB are its own.")
        onnx_ir.save(graph, self.folder / planned.file)


def _standing_for(found: GraphRecord, planned: PlannedGraph) -> GraphRecord:
    """A file that serves several profiles has a record for each."""
    return found.model_copy(update={"profile": planned.profile.name, "rows": planned.rows})
