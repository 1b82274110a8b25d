"""SingleFile: a checkpoint and the folder of its configurations and tokenizers, read as one model folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from router.checkpoint import Checkpoint, axis_of
from router.errors import ConfigError, LoadError
from router.header import Tensor
from router.layouts import Part
from router.model_folder import ModelFolder
from router.separate_vae import SeparateVae

_OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that a pipeline does without where nobody has them."""


class SingleFile(ModelFolder):
    """What the checkpoint holds is read from it; every other component lies whole in the folder.

    `config` is the folder, by default the one beside the checkpoint that has its name without suffix.
    Raises `LoadError` for a checkpoint that is not of a known family, or a folder that does not fit it.
    """

    def __init__(
        self, file: Path, instance: str, config: Path | None = None, vae: SeparateVae | None = None
    ) -> None:
        self.checkpoint = Checkpoint(file, instance)
        super().__init__(self._folder(config), instance, vae)
        self._check_pipeline()

    def components(self) -> dict[str, tuple[str, str]]:
        found = super().components()
        return {name: kind for name, kind in found.items() if name not in self.left_out()}

    def tensors(self, component: str) -> Mapping[str, Tensor]:
        inside = self.checkpoint.part(component) if component in self.inside() else {}
        return inside or super().tensors(component)

    def weight_files(self) -> list[Path]:
        beside = [file for file in super().weight_files() if file.parent.name not in self.inside()]
        return [self.checkpoint.file, *beside]

    def inside(self) -> list[str]:
        """The components that are read from the checkpoint."""
        elsewhere = ("vae",) if self.vae else ()
        return [name for name in super().components() if name not in elsewhere and self.checkpoint.part(name)]

    def left_out(self) -> list[str]:
        """Optional components that the configuration names, and neither checkpoint nor folder has."""
        named = (name for name in _OPTIONAL if name in super(SingleFile, self).components())
        return [name for name in named if not any((self.folder / name).glob("*"))]

    def notes(self) -> tuple[str, ...]:
        """What an operator should know of it."""
        whole = f"{self.checkpoint.layout.title} from one file"
        absent = [f"without {name}, which nobody has" for name in self.left_out()]
        return (whole, *absent, *super().notes())

    def check(self) -> None:
        super().check()
        for component in self.inside():
            part = self.checkpoint.layout.parts[component]
            for key, held, said in _told(part, self.tensors(component), self.config(component)):
                if held != said:
                    raise self._error(
                        f"is of another model: `{key}` in {component}/config.json is {said}, and the"
                        f" checkpoint has {held}; name the configuration of this model"
                    )
        self._check_prediction()

    def _folder(self, config: Path | None) -> Path:
        file = self.checkpoint.file
        folder = config or file.with_suffix("")
        if folder.is_dir():
            return folder
        what = f"has no folder {folder.name!r} with configurations and tokenizers"
        if config:
            self.checkpoint.refuse(f"{what}; correct option `config`")
        title = self.checkpoint.layout.title
        self.checkpoint.refuse(f"{what} beside it; put those of {title} there, or name option `config`")

    def _check_pipeline(self) -> None:
        layout, kind = self.checkpoint.layout, self.index.get("_class_name")
        if kind not in layout.pipelines:
            raise self._error(
                f"is of a {kind}, and the checkpoint is {layout.title}; name a configuration of"
                f" {' or '.join(layout.pipelines[::2])}"
            )

    def _check_weights(self, folder: Path) -> None:
        if self.checkpoint.part(folder.name):
            return
        if not any(folder.glob("*.safetensors")):
            raise self._error(
                f"has no safetensors file in {folder.name!r}, which the checkpoint lacks; put one there, or"
                " name a checkpoint that has it"
            )
        super()._check_weights(folder)

    def _check_prediction(self) -> None:
        """Checkpoints trained for v-prediction carry an empty tensor to say so."""
        said = self.config("scheduler").get("prediction_type", "epsilon")
        if "v_pred" in self.checkpoint.tensors and said != "v_prediction":
            raise self._error(
                f"has a scheduler for `prediction_type` {said!r}, and the checkpoint was trained for"
                " 'v_prediction'; correct scheduler/scheduler_config.json"
            )

    def _error(self, what: str) -> LoadError:
        return LoadError(
            f"{self._instance}: the configuration folder {self.folder.name!r} of"
            f" {self.checkpoint.file.name!r} {what}.",
            instance=self._instance,
        )


def open_model(place: Path, instance: str, config: str | None = None, vae: str | None = None) -> ModelFolder:
    """The model that lies there, a folder or a checkpoint; `config` is the latter's option.

    `vae` is the file or folder of another VAE. Raises `ConfigError` for a `config` without a checkpoint,
    `LoadError`.
    """
    other = SeparateVae(Path(vae).expanduser(), instance) if vae else None
    if place.is_file():
        return SingleFile(place, instance, Path(config).expanduser() if config else None, other)
    if config:
        raise ConfigError(f"{instance}: option `config` is for single files; drop it.")
    return ModelFolder(place, instance, other)


def _told(
    part: Part, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Key of the configuration, what the tensors say of it, what it says itself."""
    for key, (ending, axis) in part.axes.items():
        if isinstance(config.get(key), int):
            yield key, axis_of(tensors, ending, axis), config[key]
    for key, before in part.blocks.items():
        if key in config:
            yield key, _count(tensors, before), config[key]
    for key, start in part.switches.items():
        yield key, any(name.startswith(start) for name in tensors), bool(config.get(key))


def _count(tensors: Mapping[str, Tensor], before: str) -> int:
    """How many blocks are numbered behind this word."""
    pattern = re.compile(rf"(?:^|\.){before}\.(\d+)\.")
    return len({found[1] for name in tensors if (found := pattern.search(name))})
