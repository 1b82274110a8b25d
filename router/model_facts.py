"""ModelFacts: what a model's own files say of it, read without loading it or any model library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.errors import LoadError
from router.geometry import Geometry
from router.layouts import LAYOUTS
from router.lora import LoraFacts
from router.lora_fit import loras_of
from router.manifest import FILE_NAME, Manifest
from router.model_card import licence_of
from router.model_folder import ModelFolder
from router.single_file import SingleFile, open_model
from router.types import TASKS, Task

_GRAPHS = (".onnx", ".onnx_data", ".onnx.data")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model as it lies on disk."""

    family: str
    """Diffusers' name of it, or the pipeline's class where the family is none of ours."""
    pipeline: str
    tasks: tuple[Task, ...]
    """Empty: known only to Diffusers, at the first probe."""
    height: int
    width: int
    size_multiple: int | None
    """`None`: it makes only `sizes`."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of each fixed size; empty: any multiple."""
    weights_bytes: int
    """Of the files, not of memory."""
    licence: str
    notes: tuple[str, ...] = ()
    loras: tuple[LoraFacts, ...] = ()
    """Those that are configured for it, whether they fit or not."""


def facts_of_model(
    place: Path,
    instance: str,
    config: str | None = None,
    other_vae: str | None = None,
    lora_folders: Sequence[str] = (),
) -> ModelFacts:
    """Of a folder in Diffusers' layout, or a checkpoint. Raises `ConfigError`, `LoadError`."""
    model = open_model(place, instance, config, other_vae)
    model.check()
    denoiser, vae = model.config("unet") or model.config("transformer"), model.config("vae")
    geometry = Geometry.of(denoiser, vae, patched="transformer" in model.components())
    family, pipeline = _names(model)
    return ModelFacts(
        family=family,
        pipeline=pipeline,
        tasks=_tasks(family, denoiser, vae),
        height=geometry.height,
        width=geometry.width,
        size_multiple=geometry.size_multiple,
        sizes=(),
        weights_bytes=model.weights_bytes(),
        licence=_own_licence(model) or licence_of(model.folder),
        notes=model.notes(),
        loras=loras_of(model, family, lora_folders),
    )


def facts_of_export(folder: Path, instance: str) -> ModelFacts:
    """Of a folder that `triptych export` wrote, or Optimum. Hashes are not looked at. Raises `LoadError`."""
    model = _Export(folder, instance)
    manifest = Manifest.read(folder) if (folder / FILE_NAME).is_file() else None
    for sentence in manifest.check_sizes(folder) if manifest else ():
        raise LoadError(f"{instance}: {sentence}", instance=instance)
    denoiser, vae = model.config("unet") or model.config("transformer"), model.config("vae")
    geometry = Geometry.of(denoiser, vae, patched="transformer" in model.components())
    sizes = tuple((each.height, each.width) for each in manifest.profiles) if manifest else ()
    own = (geometry.height, geometry.width)
    height, width = own if not sizes or own in sizes else sizes[0]
    family, pipeline = _names(model)
    tasks = _tasks(family, denoiser, vae)
    encodes = (folder / "vae_encoder" / "model.onnx").is_file()
    return ModelFacts(
        family=family,
        pipeline=pipeline,
        tasks=tasks if encodes else tuple(task for task in tasks if task == "text-to-image"),
        height=height,
        width=width,
        size_multiple=None if sizes else geometry.size_multiple,
        sizes=sizes,
        weights_bytes=_graphs_bytes(folder, instance),
        licence=licence_of(folder),
        notes=_notes(manifest),
    )


class _Export(ModelFolder):
    """The VAE's configuration lies with its decoder."""

    def config(self, component: str) -> dict[str, Any]:
        if component == "vae":
            return self._read_json(self.folder / "vae_decoder" / "config.json")
        return super().config(component)


def _names(model: ModelFolder) -> tuple[str, str]:
    """Family and pipeline class."""
    pipeline = str(model.index.get("_class_name"))
    families = (family for family, layout in LAYOUTS.items() if pipeline in layout.pipelines)
    return next(families, pipeline), pipeline


def _tasks(family: str, denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[Task, ...]:
    """A UNet that takes the mask and the masked picture beside the latents can only inpaint."""
    if family not in LAYOUTS:
        return ()
    inpaints = denoiser.get("in_channels") == 2 * vae.get("latent_channels", 0) + 1
    return ("inpainting",) if inpaints else TASKS


def _own_licence(model: ModelFolder) -> str:
    """What a checkpoint says of itself, in the words of the ModelSpec standard."""
    said = model.checkpoint.header.metadata if isinstance(model, SingleFile) else {}
    return said.get("modelspec.license", "")


def _graphs_bytes(folder: Path, instance: str) -> int:
    sizes = [file.stat().st_size for file in folder.glob("*/*") if file.name.endswith(_GRAPHS)]
    if not sizes:
        raise LoadError(
            f"{instance}: the folder {folder.name!r} is no export; make one with `triptych export onnx`.",
            instance=instance,
        )
    return sum(sizes)


def _notes(manifest: Manifest | None) -> tuple[str, ...]:
    if manifest is None:
        return (f"no {FILE_NAME}: nothing has checked this export",)
    return () if manifest.parity else ("unverified: no parity gate has passed it",)
