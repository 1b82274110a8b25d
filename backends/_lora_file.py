"""Reading a LoRA's file as Diffusers does, and putting it into the modules of a pipeline."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from safetensors import safe_open

from backends._module_adapters import ModuleAdapters
from backends._quiet import quiet
from router.header import Header
from router.lora import Lora, LoraError
from router.lora_names import DENOISERS, has_prefix, place_of

# Several LoRAs in one module are what is wanted here.
warnings.filterwarnings("ignore", message="Already found a `peft_config`", module="peft")


@dataclass(frozen=True, slots=True)
class LoraTensors:
    """What `lora_state_dict` of a pipeline makes of a file: its tensors by Diffusers' names."""

    tensors: Mapping[str, Any]
    alphas: Mapping[str, float] | None
    metadata: Mapping[str, Any] | None

    def of(self, component: str) -> dict[str, Any]:
        start = f"{component}."
        return {name: tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def read_lora(lora: Lora, pipeline: Any) -> LoraTensors:
    """Blocking; touches none of the pipeline's modules."""
    tensors = Header.read(lora.file).tensors
    if not any(map(has_prefix, tensors)):
        return _read_bare(lora)
    kind = type(pipeline)
    given: dict[str, Any] = {"return_lora_metadata": True, "use_safetensors": True, "local_files_only": True}
    if "return_alphas" in inspect.signature(kind.lora_state_dict).parameters:
        given["return_alphas"] = True
    if hasattr(pipeline, "unet"):
        given["unet_config"] = pipeline.unet.config  # published UNets count their blocks otherwise
    with quiet():
        found, *alphas, metadata = kind.lora_state_dict(
            str(lora.file.parent), weight_name=lora.file.name, **given
        )
    return LoraTensors(found, alphas[0] if alphas else None, metadata)


def _read_bare(lora: Lora) -> LoraTensors:
    """`save_lora_adapter` of a denoiser writes its layers without the denoiser's name."""
    with safe_open(lora.file, framework="pt") as file:
        tensors = {f"{lora.denoiser}.{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = json.loads((file.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY, "{}"))
    return LoraTensors(
        tensors, None, {f"{lora.denoiser}.{key}": value for key, value in said.items()} or None
    )


def inject(read: LoraTensors, adapter: str, kind: Any, modules: Mapping[str, ModuleAdapters]) -> None:
    """Put it into the modules. Raises `LoraError` where not every tensor found its place."""
    homeless = [name for name in read.tensors if name.split(".")[0] not in modules]
    if homeless:
        raise LoraError(f"has {len(homeless)} of {len(read.tensors)} tensors for no module of this pipeline")
    for component, adapters in modules.items():
        wanted = read.of(component)
        if wanted:
            with quiet(), _without_reports():
                _inject_into(component, read, adapter, kind, adapters.module)
            held = (name.replace(f".{adapter}.", ".") for name, _ in adapters.weights(adapter))
            _check_all_taken(component, wanted, held)


@contextlib.contextmanager
def _without_reports() -> Iterator[None]:
    """transformers calls the matrices of every other LoRA missing, and leaves them as they are."""
    reports = logging.getLogger("transformers.integrations.peft")
    level = reports.level
    reports.setLevel(logging.ERROR)
    try:
        yield
    finally:
        reports.setLevel(level)


def _inject_into(component: str, read: LoraTensors, adapter: str, kind: Any, module: Any) -> None:
    given = {
        "network_alphas": read.alphas,
        "metadata": read.metadata,
        "prefix": component,
        "adapter_name": adapter,
        "low_cpu_mem_usage": True,
    }
    if component in DENOISERS:
        module.load_lora_adapter(dict(read.tensors), **given)
    else:
        kind.load_lora_into_text_encoder(dict(read.tensors), text_encoder=module, **given)


def _check_all_taken(component: str, wanted: Iterable[str], held: Iterable[str]) -> None:
    """The libraries only log what they did not expect, and leave what they missed as it was drawn."""
    asked, taken = _places(wanted), _places(f"{component}.{name}" for name in held)
    if asked != taken:
        off = len(asked ^ taken)
        raise LoraError(f"has {len(asked)} matrices for the {component}, {off} of which found no layer")


def _places(names: Iterable[str]) -> set[tuple[str, bool, bool]]:
    found = (place_of(name) for name in names)
    return {(each.module.removeprefix("text_model_"), each.up, each.weight) for each in found if each}
