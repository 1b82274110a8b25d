"""An export's folder, read without loading a graph: its manifest, profiles, graphs and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from router.capabilities import Defaults
from router.errors import LoadError
from router.manifest import FILE_NAME, Manifest, TensorRecord
from router.model_folder import ModelFolder
from router.types import ShapeProfile

DENOISERS = ("unet", "transformer")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that an export may be without: the pipeline does without them too, and a note says so."""

_DATA_SUFFIXES = (".onnx_data", ".onnx.data")


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph of one component. Without a manifest neither `profile` nor `inputs` are known."""

    file: Path
    profile: str = ""
    rows: int = 1
    inputs: tuple[TensorRecord, ...] = ()

    def weights_bytes(self) -> int:
        """Bytes of the graph's own file, and of the data file that has its name, or else serves them all."""
        own = [file for file in map(self.file.with_suffix, _DATA_SUFFIXES) if file.is_file()]
        shared = [file for suffix in _DATA_SUFFIXES for file in self.file.parent.glob(f"*{suffix}")]
        return sum(file.stat().st_size for file in [self.file, *(own or shared)[:1]] if file.is_file())


class ExportFolder(ModelFolder):
    """A folder that `export` wrote, or Optimum: then it has no manifest, no profiles, and axes that vary.

    `profiles` and `row_limit` leave graphs out; empty and `None` leave out nothing.
    Raises `LoadError` where something that serving needs is not there.
    """

    def __init__(
        self, folder: Path, instance: str, profiles: Sequence[str] = (), row_limit: int | None = None
    ) -> None:
        super().__init__(folder, instance)
        self.manifest = Manifest.read(folder) if (folder / FILE_NAME).is_file() else None
        self.denoiser = next((name for name in DENOISERS if name in self.components()), "unet")
        if self.manifest is None:
            self._check_optimum()
        self.profiles = tuple(self._chosen(profiles, row_limit))
        self._graphs = {name: self._graphs_of(name) for name in self._graph_components()}

    def refusal(self, what: str) -> LoadError:
        """The error that this folder `what`: half a sentence, with its cure."""
        return self._error(what)

    def config(self, component: str) -> dict[str, Any]:
        """Its own, empty where the model has none; that of `vae` lies with the decoder."""
        if component == "vae":
            return self._read_json(self.folder / "vae_decoder" / "config.json")
        return super().config(component)

    @property
    def graphs(self) -> dict[str, list[Graph]]:
        """Folder of a component -> its graphs for the chosen profiles, each file once."""
        return self._graphs

    @property
    def has_encoder(self) -> bool:
        """Whether pictures can be given: else there is nothing to encode them with."""
        return "vae_encoder" in self.graphs

    @property
    def is_dynamic(self) -> bool:
        """Whether the denoiser takes any number of rows, as far as the manifest says."""
        inputs = self.graphs[self.denoiser][0].inputs
        return not inputs or any(isinstance(tensor.shape[0], str) for tensor in inputs if tensor.shape)

    def weights_bytes(self) -> int:
        """Of all chosen graphs: each holds its weights for itself in memory, whatever they share on disk."""
        return sum(graph.weights_bytes() for graphs in self.graphs.values() for graph in graphs)

    def text_length(self, height: int | None, width: int | None) -> int | None:
        """Tokens that the last text encoder, T5 where there is one, reads at this size.

        `None` leaves it to the pipeline.
        """
        here = [profile for profile in self.profiles if (profile.height, profile.width) == (height, width)]
        return max((profile.text_lengths[-1] for profile in here), default=None)

    def with_size(self, defaults: Defaults) -> Defaults:
        """The defaults, their size one of the profiles: the model's own, or the first."""
        sizes = [(profile.height, profile.width) for profile in self.profiles]
        if not sizes or (defaults.height, defaults.width) in sizes:
            return defaults
        return replace(defaults, height=sizes[0][0], width=sizes[0][1])

    def left_out(self) -> list[str]:
        """Optional components that the source had and the export has not."""
        return [name for name in OPTIONAL if name in self.components() and not (self.folder / name).is_dir()]

    def notes(self) -> tuple[str, ...]:
        """What an operator should know of this export."""
        notes = [f"without {name}, which the export has not" for name in self.left_out()]
        if self.manifest is None:
            notes.append(f"no {FILE_NAME}: nothing has checked this export")
        elif self.manifest.parity is None:
            notes.append("unverified: no parity gate has passed it")
        return tuple(notes)

    def _graph_components(self) -> list[str]:
        there = [name for name in (self.denoiser, *TEXT_ENCODERS) if name in self.components()]
        encoder = ["vae_encoder"] if self._all_graphs("vae_encoder") else []
        return [*there, "vae_decoder", *encoder]

    def _graphs_of(self, component: str) -> list[Graph]:
        """Text encoders know no size: one may serve profiles that were not chosen, under their name."""
        chosen = {profile.name: profile.row_buckets for profile in self.profiles}
        found = self._all_graphs(component)
        if chosen and component not in TEXT_ENCODERS:
            found = [graph for graph in found if graph.profile in chosen]
            lacking = chosen.keys() - {graph.profile for graph in found}
            if lacking:
                raise self._error(
                    f"has no graph of {component!r} for profile {min(lacking)!r}; export it again"
                )
        if component == self.denoiser:
            found = [graph for graph in found if graph.rows in chosen.get(graph.profile, (graph.rows,))]
        if not found:
            raise self._error(f"has no graph of {component!r}; export the model again")
        return list({graph.file: graph for graph in found}.values())

    def _all_graphs(self, component: str) -> list[Graph]:
        if self.manifest is None:
            file = self.folder / component / "model.onnx"
            return [Graph(file)] if file.is_file() else []
        return [
            Graph(self.folder / record.file, record.profile, record.rows, record.inputs)
            for record in self.manifest.components.get(component, ())
        ]

    def _chosen(self, names: Sequence[str], row_limit: int | None) -> list[ShapeProfile]:
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

    def _check_optimum(self) -> None:
        graphs = list((self.folder / self.denoiser).glob("*.onnx"))
        if not graphs:
            raise self._error(
                f"is no export: it has neither {FILE_NAME} nor {self.denoiser}/model.onnx;"
                " make one with `python -m export.to_onnx`, or serve it with backend 'diffusers'"
            )
        if len(graphs) > 1:
            raise self._error(
                f"has several graphs of {self.denoiser!r} and no {FILE_NAME}; copy it all again"
            )


def _within(buckets: tuple[int, ...], row_limit: int | None) -> tuple[int, ...]:
    """The buckets up to the limit, or the smallest: one call may have more rows than the limit."""
    fitting = tuple(bucket for bucket in buckets if row_limit is None or bucket <= row_limit)
    return fitting or (min(buckets),)
