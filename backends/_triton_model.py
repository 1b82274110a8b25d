"""ServedModel: what the configuration of a Triton server's model says, checked against our contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from tritonclient.grpc import model_config_pb2

from router.capabilities import Capabilities
from router.errors import LoadError
from router.footprint import Footprint
from router.lora import LoraAbility

CONTRACT = "1"
"""Value of the parameter `triptych` of the models that `export.to_triton` writes."""

_CAPABILITIES = TypeAdapter(Capabilities)
_LORAS = LoraAbility(none="it applies no LoRA: a Triton server runs its models as they were exported.")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What it can do, and which inputs it takes in which of Triton's dtypes."""

    capabilities: Capabilities
    inputs: Mapping[str, str]

    @classmethod
    def of(cls, config: Any, instance: str) -> ServedModel:
        """From a `ModelConfig` message. Raises `LoadError` for a model that is none of ours."""
        parameters = {name: value.string_value for name, value in config.parameters.items()}
        contract = parameters.get("triptych")
        if contract is None:
            raise LoadError(
                f"The Triton model {config.name!r} is none of Triptych's, its parameter `triptych` is"
                " missing; write it with `python -m export.to_triton`.",
                instance=instance,
            )
        if contract != CONTRACT:
            raise LoadError(
                f"The Triton model {config.name!r} was written for version {contract[:20]!r} of the contract,"
                f" and this is {CONTRACT!r}; write it again with `python -m export.to_triton`.",
                instance=instance,
            )
        inputs = {each.name: _dtype(each.data_type) for each in config.input}
        return cls(_capabilities(parameters.get("capabilities", ""), config.name, instance), inputs)

    def is_like(self, other: ServedModel) -> bool:
        """Whether both would make the same pictures; devices, memory and notes may differ."""
        return self.inputs == other.inputs and _essence(self) == _essence(other)


def _essence(served: ServedModel) -> Capabilities:
    return dataclasses.replace(
        served.capabilities, device="", footprint=Footprint(0, 0, 0), conditions=(), notes=()
    )


def _capabilities(text: str, model: str, instance: str) -> Capabilities:
    try:
        found = _CAPABILITIES.validate_json(text)
    except ValidationError as exc:
        raise LoadError(
            f"The parameter `capabilities` of the Triton model {model!r} cannot be read;"
            " write the model again with `python -m export.to_triton`.",
            instance=instance,
        ) from exc
    return dataclasses.replace(found, loras=_LORAS, latents=False, device_memory_bytes=None, conditions=())


def _dtype(value: int) -> str:
    """`TYPE_UINT8` is `UINT8` in a request, and `TYPE_STRING` is `BYTES`."""
    name = str(model_config_pb2.DataType.Name(value)).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name
