"""SeparateVae: a VAE of its own file or folder in the place of the model's, known by its header alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from router.errors import LoadError
from router.header import Header, HeaderError, Tensor

_PREFIXES = ("", "first_stage_model.", "vae.")
"""Before the names of its tensors, as programs write such files."""

_MARK = "decoder.conv_in.weight"
"""A tensor that every VAE has; its second axis is the latent channels."""

_SCALINGS: Mapping[str, float] = {"scaling_factor": 0.18215, "shift_factor": 0.0}
"""Key of the configuration -> what Diffusers takes it for where it is left out."""


class SeparateVae:
    """Option `vae`. Every method and the constructor raise `LoadError` with one sentence and its cure.

    A folder in Diffusers' layout (or that of a model which has one), or one safetensors file. A file that
    lies alone says nothing of its scaling factor: then the model's own counts.
    """

    def __init__(self, place: Path, instance: str) -> None:
        self._instance = instance
        self.place = place / "vae" if (place / "vae").is_dir() else place
        self.file = self._file()
        self.config = self._config()
        self.prefix = ""
        """Before the names of its tensors."""
        self.tensors = self._tensors()

    @property
    def name(self) -> str:
        return self.place.parent.name if self.place.name == "vae" else self.place.name

    @property
    def latent_channels(self) -> int:
        return self.tensors[_MARK].shape[1]

    def check(self, model: str, own: Mapping[str, Any]) -> None:
        """That it codes the latents of this model; `own` is the configuration of the VAE it replaces."""
        if self.latent_channels != own.get("latent_channels", 4):
            self.refuse(
                f"has {self.latent_channels} latent channels, and the model {model!r} works on"
                f" {own.get('latent_channels', 4)}; name a VAE of the model's family"
            )
        kind, own_kind = self.config.get("_class_name"), own.get("_class_name")
        if kind is not None and kind != own_kind:
            self.refuse(f"is a {kind}, and the model {model!r} has a {own_kind}; name one of that class")
        for key, default in _SCALINGS.items():
            said, wanted = self.config.get(key) or default, own.get(key) or default
            if self.config and not math.isclose(said, wanted, rel_tol=1e-3):
                self.refuse(
                    f"has `{key}` {said}, and the model {model!r} was trained for {wanted}; name a VAE of the"
                    " model's family"
                )

    def notes(self) -> tuple[str, ...]:
        """What an operator should know of it."""
        known = "" if self.config else ", which says nothing of its scaling: the model's own counts"
        return (f"VAE from {self.name}{known}",)

    def _file(self) -> Path:
        if self.place.is_dir():
            found = sorted(self.place.glob("*.safetensors"))
            plain = [file for file in found if file.name.count(".") == 1] or found
            if not plain:
                self.refuse("has no safetensors file; only such files are read")
            return plain[0]
        if not self.place.is_file():
            self.refuse("is not there; correct the path")
        if self.place.suffix != ".safetensors":
            self.refuse("does not end with .safetensors; only such files are read")
        return self.place

    def _config(self) -> dict[str, Any]:
        """Of a folder, or of a file with Diffusers' name beside its configuration."""
        beside = self.file.parent / "config.json"
        if not self.place.is_dir() and not self.file.name.startswith("diffusion_pytorch_model"):
            return {}
        try:
            content = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.refuse("has no readable config.json; copy it again")
        if not isinstance(content, dict):
            self.refuse("has no object in its config.json; copy it again")
        return {key: value for key, value in content.items() if key != "_name_or_path"}

    def _tensors(self) -> Mapping[str, Tensor]:
        """By their names without prefix."""
        try:
            tensors = Header.read(self.file).tensors
        except HeaderError as exc:
            self.refuse(f"{exc}; {exc.cure}")
        except OSError as exc:
            self.refuse(f"cannot be read ({exc.strerror}); correct the path")
        prefix = next((prefix for prefix in _PREFIXES if prefix + _MARK in tensors), None)
        if prefix is None or len(tensors[prefix + _MARK].shape) != 4:
            self.refuse("is no VAE; name the file or folder of one")
        self.prefix = prefix
        return {
            name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
        }

    def refuse(self, what: str) -> NoReturn:
        """The rest of a sentence that begins with the VAE, without its full stop."""
        raise LoadError(f"{self._instance}: option `vae`: {self.name!r} {what}.", instance=self._instance)
