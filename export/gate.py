"""The parity gate: everything an export must pass before it exists under its name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from export import parity_sheet
from export.capture import Call, capture
from export.checks import check_folder
from export.components import Component
from export.errors import ExportError, GateError, refuse
from export.families import Family, family_of
from export.parity import Source, compare
from export.pictures import Pair, make_pairs
from export.progress import Progress, Silent
from export.sessions import runtime_for
from export.source import read_part
from export.tolerances import TOLERANCES
from router.errors import RouterError
from router.manifest import GraphRecord, Manifest, ParityRecord
from router.types import ShapeProfile

_OTHER_STEPS = ("files and graphs", "inputs of a real picture", "pictures")


@dataclass(frozen=True)
class Measured:
    """What the gate saw of an export whose graphs and components passed."""

    record: ParityRecord
    pairs: tuple[Pair, ...]
    findings: tuple[str, ...]
    """Of whole pictures."""

    def write_sheet(self, file: Path, manifest: Manifest) -> None:
        parity_sheet.write(file, self.pairs, manifest, self.record)


def check(
    folder: Path, source: Path, manifest: Manifest, *, progress: Progress | None = None
) -> ParityRecord:
    """Everything: graphs as they lie there, components and whole pictures beside the source.

    Writes the parity sheet into the folder. Raises `GateError` with all that is wrong. Blocks for as long
    as it takes, and must not be called where an event loop runs.
    """
    measured = measure(folder, source, manifest, progress=progress)
    measured.write_sheet(folder / parity_sheet.FILE_NAME, manifest)
    refuse(measured.findings)
    return measured.record


def measure(folder: Path, source: Path, manifest: Manifest, *, progress: Progress | None = None) -> Measured:
    """The same without a word on whole pictures, and without writing anything.

    Of a folder whose graphs are not sound nothing is run: that is a `GateError`, as is a component that
    differs.
    """
    progress = progress or Silent()
    files = {graph.file for graphs in manifest.components.values() for graph in graphs}
    progress.begin("gate", len(_OTHER_STEPS) + len(files))
    progress.step(_OTHER_STEPS[0])
    refuse(check_folder(folder, manifest))
    components = _Components(folder, source, manifest, progress)
    components.compare()
    refuse(components.findings)
    progress.step(_OTHER_STEPS[2])
    pairs = _pictures(folder, source, manifest)
    record = _record(manifest, components, pairs)
    return Measured(record, tuple(pairs), tuple(_picture_findings(record, manifest)))


@dataclass
class _Components:
    """All graphs beside their source, one part of it in memory at a time."""

    folder: Path
    source: Path
    manifest: Manifest
    progress: Progress
    errors: dict[str, float] = field(default_factory=dict)
    largest_values: dict[str, float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def compare(self) -> None:
        family = family_of(self.source, timestep=self.manifest.timestep)
        self._check_components(family)
        profiles = {each.name: each.shape_profile() for each in self.manifest.profiles}
        self.progress.step(_OTHER_STEPS[1])
        calls = {name: capture(self.source, family, profile) for name, profile in profiles.items()}
        for part, components in itertools.groupby(family.components, lambda each: each.part):
            pipelines: dict[str, Any] = {}
            for component in components:
                source = self._source(component, part, pipelines)
                for graph in self._graphs(component):
                    self.progress.step(graph.file)
                    self._compare(graph, source, profiles[graph.profile], calls[graph.profile])

    def _check_components(self, family: Family) -> None:
        """Raises `GateError` where export and source are not made of the same."""
        there, exported = {each.name for each in family.components}, self.manifest.components.keys()
        refuse(
            [
                f"`{name}` is no component of the {family.name} source; name the one it was made from."
                for name in sorted(exported - there)
            ]
        )
        refuse([f"`{name}` is missing; export the model again." for name in sorted(there - exported)])

    def _graphs(self, component: Component) -> Iterator[GraphRecord]:
        """Each file once: a text encoder may serve several profiles."""
        yield from {graph.file: graph for graph in self.manifest.components[component.name][::-1]}.values()

    def _source(self, component: Component, part: str, pipelines: dict[str, Any]) -> Source:
        def wrapped(dtype: str) -> Any:
            if dtype not in pipelines:
                pipelines[dtype] = read_part(self.source, part, dtype)
            return component.wrap(pipelines[dtype])

        dtype = component.dtype(self.manifest.profiles[0].dtype)
        return Source(component, wrapped("float32"), None if dtype == "float32" else wrapped(dtype))

    def _compare(
        self, graph: GraphRecord, source: Source, profile: ShapeProfile, calls: Mapping[str, Sequence[Call]]
    ) -> None:
        name = source.component.name
        try:
            found = compare(self.folder, graph, source, profile, calls[name])
        except ExportError as exc:
            self.findings.append(str(exc))
            return
        self.findings += found.findings
        self.errors[name] = max(self.errors.get(name, 0.0), found.error)
        if found.largest_value:
            self.largest_values[name] = max(self.largest_values.get(name, 0.0), found.largest_value)


def _pictures(folder: Path, source: Path, manifest: Manifest) -> list[Pair]:
    try:
        return make_pairs(source, folder, manifest)
    except RouterError as exc:
        said = f"A whole picture could not be made: {exc}"
        raise GateError(said, [said]) from exc


def _record(manifest: Manifest, components: _Components, pairs: Sequence[Pair]) -> ParityRecord:
    dtype = manifest.profiles[0].dtype
    runtime = runtime_for(dtype)
    return ParityRecord(
        components=components.errors,
        pictures=tuple(pair.parity() for pair in pairs),
        max_component_error=TOLERANCES[dtype].component_error,
        min_psnr_db=TOLERANCES[dtype].psnr_db,
        runtime=f"{runtime} {version(runtime)}",
        largest_values=components.largest_values,
    )


def _picture_findings(record: ParityRecord, manifest: Manifest) -> Iterator[str]:
    for picture in record.pictures:
        if picture.psnr_db is not None and picture.psnr_db < record.min_psnr_db:
            yield (
                f"The picture '{picture.name}' at {picture.profile} is at {picture.psnr_db:.1f} dB beside the"
                f" source's and must be at {record.min_psnr_db:g}, though every component passed;"
                f" export again, or in a wider dtype than {manifest.profiles[0].dtype}."
            )
