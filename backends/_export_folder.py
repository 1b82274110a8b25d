"""An export's folder, read without loading a graph: its manifest, its graphs, is it whole, is it for us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from router.capabilities import Defaults
from router.manifest import FILE_NAME, Manifest
from router.model_folder import ModelFolder
from router.types import ShapeProfile

DENOISERS = ("unet", "transformer")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that no export holds and a pipeline does without; a note says so."""

_DATA_SUFFIXES = (".onnx_data", ".onnx.data")


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph of one component."""

    file: Path
    profile: str = ""
    rows: int = 1
    weights_bytes: int = 0


class ExportFolder(ModelFolder):
    """A folder that `export` wrote, or Optimum: then it has no manifest, and axes that vary.

    `profiles` and `row_limit` leave graphs out; empty and `None` leave out nothing.
    Every method raises `LoadError` with one sentence and its cure.
    """

    def __init__(
        self, folder: Path, instance: str, profiles: Sequence[str] = (), row_limit: int | None = None
    ) -> None:
        super().__init__(folder, instance)
        self.manifest = Manifest.read(folder) if (folder / FILE_NAME).is_file() else None
        self.denoiser = next((name for name in DENOISERS if name in self.components()), "")
        if not self.manifest:
            self._check_optimum()
        self.profiles = tuple(self._profiles(profiles, row_limit))

    def config(self, component: str) -> dict[str, Any]:
        """Its own, empty where the model has none; that of `vae` lies with the decoder."""
        if component == "vae" and "vae" in self.components():
            return self._read_json(self.folder / "vae_decoder" / "config.json")
        return super().config(component)

    def graph_components(self) -> list[str]:
        """Folders of graphs that a pipeline of this model needs; `vae_encoder` where there is one."""
        there = [name for name in (self.denoiser, *TEXT_ENCODERS) if name in self.components()]
        encoder = ["vae_encoder"] if self.has_encoder else []
        return [*there, "vae_decoder", *encoder]

    @property
    def has_encoder(self) -> bool:
        return bool(self._all_graphs("vae_encoder"))

    @property
    def is_dynamic(self) -> bool:
        """Whether the denoiser takes any number of rows; as far as that is known without loading it."""
        if self.manifest is None:
            return True
        graph = self.manifest.components[self.denoiser][0]
        return any(isinstance(tensor.shape[0], str) for tensor in graph.inputs if tensor.shape)

    def check_shapes(self, is_dynamic: bool) -> None:
        """A graph that turns out to be static has its profile from the manifest, and from nowhere else."""
        if self.manifest is None and not is_dynamic:
            raise self._error(f"has graphs of fixed shapes and no {FILE_NAME}; copy the whole export")

    def notes(self) -> tuple[str, ...]:
        """What an operator should know of this export."""
        notes = [f"without {name}, which the export has not" for name in self.left_out()]
        if self.manifest is None:
            notes.append(f"no {FILE_NAME}: nothing has checked this export")
        elif self.manifest.parity is None:
            notes.append("unverified: no parity gate has passed it")
        return tuple(notes)

    def with_size(self, defaults: Defaults) -> Defaults:
        """The defaults, their size one of the profiles: the model's own, or the first."""
        sizes = [(profile.height, profile.width) for profile in self.profiles]
        if not sizes or (defaults.height, defaults.width) in sizes:
            return defaults
        return replace(defaults, height=sizes[0][0], width=sizes[0][1])

    def left_out(self) -> list[str]:
        """Optional components that the source had and the export has not."""
        return [name for name in OPTIONAL if name in self.components() and not (self.folder / name).is_dir()]

    def graphs(self, component: str) -> list[Graph]:
        """Its graphs for the chosen profiles, each file once."""
        chosen = {profile.name: profile for profile in self.profiles}
        found: dict[Path, Graph] = {}
        for graph in self._all_graphs(component):
            profile = chosen.get(graph.profile)
            needless = component == self.denoiser and profile and graph.rows not in profile.row_buckets
            if component in TEXT_ENCODERS or not chosen or (profile and not needless):
                found.setdefault(graph.file, graph)
        if not found:
            raise self._error(f"has no graph of {component!r}; export the model again")
        return list(found.values())

    def weights_bytes(self) -> int:
        """Of all chosen graphs: a graph in memory has its weights for itself, whatever they share on disk."""
        return sum(graph.weights_bytes for name in self.graph_components() for graph in self.graphs(name))

    def text_length(self, height: int | None, width: int | None) -> int | None:
        """Tokens that the longest text encoder reads at this size; `None` leaves it to the pipeline."""
        lengths = [
            max(each.text_lengths) for each in self.profiles if (each.height, each.width) == (height, width)
        ]
        return max(lengths, default=None)

    def check(self) -> None:
        """Every component has its configuration and graphs; with a manifest, each file its hash. Slow."""
        for name in self.graph_components():
            if not self._read_json(self.folder / name / "config.json"):
                raise self._error(f"has an empty {name}/config.json; copy it again")
            for graph in self.graphs(name):
                if not graph.file.is_file():
                    raise self._error(f"lacks {name}/{graph.file.name}; copy the whole export")
        for sentence in self.manifest.check_files(self.folder) if self.manifest else ():
            raise self._error(f"is not as it was exported: {sentence.removesuffix('.')}")

    def check_verified(self) -> None:
        """Its parity gate was passed."""
        if self.manifest and self.manifest.parity is None:
            raise self._error(
                "was never verified; run `python -m export.verify` on it, or set option `unverified`"
            )

    def check_runtime(self, runtime: str, version: str) -> None:
        """The runtime is one that the graphs were checked for, and not older than at the gate."""
        if self.manifest is None:
            return
        passed = self.manifest.runtimes
        if passed and runtime not in passed:
            raise self._error(
                f"was checked for {', '.join(passed)} and not for {runtime}; export it for that"
            )
        needed = self._version_at_gate(runtime)
        if needed and _version(version) < _version(needed):
            raise self._error(
                f"was checked with {runtime} {needed}, not {version}; pip install '{runtime}>={needed}'"
            )

    def _version_at_gate(self, runtime: str) -> str | None:
        """Version of the runtime that made the pictures which were compared; else the one that took part."""
        assert self.manifest is not None
        name, _, version = (
            self.manifest.parity.runtime.partition(" ") if self.manifest.parity else ("", "", "")
        )
        return version if name == runtime else self.manifest.tools.get(runtime)

    def _profiles(self, names: Sequence[str], row_limit: int | None) -> list[ShapeProfile]:
        if self.manifest is None:
            return []
        there = [record.shape_profile() for record in self.manifest.profiles]
        for name in names:
            if name not in [profile.name for profile in there]:
                known = ", ".join(profile.name for profile in there)
                raise self._error(f"has no profile {name!r}, it has {known}; correct option `profiles`")
        return [
            replace(profile, row_buckets=_within(profile.row_buckets, row_limit))
            for profile in there
            if not names or profile.name in names
        ]

    def _all_graphs(self, component: str) -> list[Graph]:
        if self.manifest is None:
            file = self.folder / component / "model.onnx"
            return [Graph(file, weights_bytes=_weights_bytes(file))] if file.is_file() else []
        return [
            Graph(file, record.profile, record.rows, _weights_bytes(file))
            for record in self.manifest.components.get(component, ())
            for file in [self.folder / record.file]
        ]

    def _check_optimum(self) -> None:
        graphs = list((self.folder / self.denoiser).glob("*.onnx")) if self.denoiser else []
        if not graphs:
            raise self._error(
                f"is no export: it has neither {FILE_NAME} nor {self.denoiser or 'unet'}/model.onnx;"
                " make one with `python -m export.to_onnx`, or serve it with backend 'diffusers'"
            )
        if len(graphs) > 1:
            raise self._error(
                f"has several graphs of {self.denoiser!r} and no {FILE_NAME}; copy the whole export"
            )


def _within(buckets: tuple[int, ...], row_limit: int | None) -> tuple[int, ...]:
    """The buckets up to the limit, or the smallest: one call may have more rows than the limit."""
    fitting = tuple(bucket for bucket in buckets if row_limit is None or bucket <= row_limit)
    return fitting or (min(buckets),)


def _weights_bytes(graph: Path) -> int:
    """Bytes of the graph's own file, and of the data file that has its name, or else serves them all."""
    if not graph.is_file():
        return 0
    data = [graph.with_suffix(suffix) for suffix in _DATA_SUFFIXES]
    own = [file for file in data if file.is_file()]
    shared = [file for suffix in _DATA_SUFFIXES for file in graph.parent.glob(f"*{suffix}")]
    return graph.stat().st_size + sum(file.stat().st_size for file in (own or shared)[:1])


def _version(said: str) -> Version:
    try:
        return Version(said)
    except InvalidVersion:
        return Version("0")
