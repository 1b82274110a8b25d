"""A model folder in Diffusers' layout, read without loading it: is it whole, is it safe, how large."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.errors import LoadError
from router.header import Header, HeaderError, Tensor
from router.separate_vae import SeparateVae

PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_NO_WEIGHTS = ("scheduler", "tokenizer", "feature_extractor", "image_processor")


class ModelFolder:
    """The folder of one pipeline. Every method raises `LoadError` with one sentence and its cure."""

    def __init__(self, folder: Path, instance: str, vae: SeparateVae | None = None) -> None:
        self.folder = folder
        self.vae = vae
        """What stands in the place of the model's own."""
        self._instance = instance
        self.index = self._read_json(folder / "model_index.json")

    def components(self) -> dict[str, tuple[str, str]]:
        """Component name -> (library, class), without those that the model leaves out."""
        return {
            name: (value[0], value[1])
            for name, value in self.index.items()
            if isinstance(value, list) and len(value) == 2 and value[0] is not None
        }

    def config(self, component: str) -> dict[str, Any]:
        """The component's own configuration; empty for a component that the model has not."""
        if component not in self.components():
            return {}
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        own = self._read_json(self.folder / component / name)
        return own | self.vae.config if self.vae and component == "vae" else own

    def check(self) -> None:
        """Every component is there, in safetensors, and no file was cut short."""
        for name in self.components():
            folder = self.folder / name
            if self.vae and name == "vae":
                self.vae.check(self.folder.name, self._read_json(folder / "config.json"))
                continue
            if not folder.is_dir():
                raise self._error(f"lacks the folder {name!r} that its model_index.json names; copy it again")
            if not any(folder.iterdir()):
                raise self._error(f"has nothing in the folder {name!r}; copy it again")
            if not name.startswith(_NO_WEIGHTS):
                self._check_config(name)
                self._check_weights(folder)

    def weight_files(self) -> list[Path]:
        """The safetensors files of all components, in the order of `components` and their names."""
        return [file for name in self.components() for file in self._files(name)]

    def tensors(self, component: str) -> Mapping[str, Tensor]:
        """What the headers of the component's files say; empty for one without weights."""
        if self.vae and component == "vae":
            return self.vae.tensors
        files = _weight_files(self.folder / component)
        return {name: tensor for file in files for name, tensor in self._header(file).tensors.items()}

    def parameters(self) -> int:
        """The number of weights of all components."""
        return sum(tensor.elements for name in self.components() for tensor in self.tensors(name).values())

    def weights_bytes(self) -> int:
        """Bytes that the weights of all components take in their files."""
        return sum(tensor.size_bytes for name in self.components() for tensor in self.tensors(name).values())

    def fingerprint(self) -> str:
        """What makes it need memory: names, dtypes and shapes of its tensors, and its configurations.

        A fine-tuned model has that of the model it was made from.
        """
        digest = hashlib.blake2b(digest_size=16)
        for component in sorted(self.components()):
            config = {} if component.startswith(_NO_WEIGHTS) else self.config(component)
            tensors = sorted((name, each.dtype, each.shape) for name, each in self.tensors(component).items())
            digest.update(json.dumps([component, config, tensors], sort_keys=True).encode())
        return digest.hexdigest()

    def notes(self) -> tuple[str, ...]:
        """What an operator should know of it."""
        return self.vae.notes() if self.vae else ()

    def _files(self, component: str) -> list[Path]:
        if self.vae and component == "vae":
            return [self.vae.file]
        return _weight_files(self.folder / component)

    def _check_config(self, component: str) -> None:
        if not self.config(component):
            raise self._error(f"has an empty {component}/config.json; copy it again")

    def _check_weights(self, folder: Path) -> None:
        files = _weight_files(folder)
        if not files and any(file.suffix in PICKLED for file in folder.iterdir()):
            raise self._error(
                f"has pickled weights in {folder.name!r}, which can run code when they are read;"
                " convert them to safetensors"
            )
        if not files:
            raise self._error(f"has no safetensors file in {folder.name!r}; copy it again")
        for index in folder.glob("*.safetensors.index.json"):
            named = set(self._read_json(index).get("weight_map", {}).values())
            missing = sorted(named - {file.name for file in folder.iterdir()})
            if missing:
                raise self._error(f"lacks {missing[0]!r} in {folder.name!r}; copy it again")
        for file in files:
            self._header(file)

    def _header(self, file: Path) -> Header:
        try:
            return Header.read(file)
        except OSError as exc:
            raise self._error(f"has a file {_told(file)} that cannot be read; copy it again") from exc
        except HeaderError as exc:
            raise self._error(f"has a file {_told(file)} that {exc}; {exc.cure}") from exc.__cause__

    def _read_json(self, file: Path) -> dict[str, Any]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as exc:
            raise self._error(f"lacks {file.relative_to(self.folder)}; copy it again") from exc
        except (OSError, ValueError) as exc:
            raise self._error(f"has an unreadable {file.relative_to(self.folder)}; copy it again") from exc
        if not isinstance(content, dict):
            raise self._error(f"has no object in {file.relative_to(self.folder)}; copy it again")
        return content

    def _error(self, what: str) -> LoadError:
        return LoadError(
            f"{self._instance}: the model folder {self.folder.name!r} {what}.", instance=self._instance
        )


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files that Diffusers reads: no variants (`.fp16.`) beside them."""
    if not folder.is_dir():
        return []
    files = sorted(folder.glob("*.safetensors"))
    plain = [file for file in files if file.name.count(".") == 1]
    return plain or files


def _told(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
