"""ModuleAdapters: the LoRAs that lie in one shared module, and which of them its next run applies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.utils.peft_utils import delete_adapter_layers

from backends._gather import Digests, Gathering
from router.call import Call
from router.lora_request import LoraSet


class AdaptedCalls:
    """The calls of one task to a module with LoRAs. A `Gather`, too: it applies them right before the run."""

    def __init__(self, gathering: Gathering, adapters: ModuleAdapters, loras: LoraSet) -> None:
        self._gathering = gathering
        self._adapters = adapters
        self._loras = loras
        self.row_limit = gathering.row_limit
        self.stage = gathering.stage

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any], digests: Digests, *, share: bool) -> Call:
        made = self._gathering.call(args, kwargs, digests, share=share)
        key = (self._loras, *made.key) if isinstance(made.key, tuple) else made.key
        return replace(made, key=key, gather=self)

    def __call__(self, calls: Sequence[Call]) -> Sequence[Any]:
        self._adapters.apply(self._loras)
        return self._gathering(calls)


class ModuleAdapters:
    """Lives on the lane's thread. Requests see only what was applied for their own call."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.switches = 0
        self._adapters: dict[str, str] = {}
        self._layers: list[Any] = []
        self._applied: LoraSet | None = ()

    def calls(self, gathering: Gathering, loras: LoraSet) -> AdaptedCalls:
        """What makes the calls of one task. Those that differ in LoRAs of other modules share a run."""
        own = tuple(lora for lora in loras if lora[0] in self._adapters)
        return AdaptedCalls(gathering, self, own)

    def apply(self, loras: LoraSet) -> None:
        """What the next run of the module adds to its layers."""
        if loras == self._applied:
            return
        chosen = [(self._adapters[name], weight) for name, weight in loras]
        names = [adapter for adapter, _ in chosen]
        others = self._applied is None or [name for name, _ in loras] != [name for name, _ in self._applied]
        for layer in self._layers:
            if others:  # takes a multiple of the time of another weight
                layer.set_adapter(names, inference_mode=True)
            for adapter, weight in chosen:
                layer.set_scale(adapter, weight)
        self._applied = loras
        self.switches += 1

    def added(self, lora: str, adapter: str) -> None:
        """peft has put it in, and made it active."""
        self._adapters[lora] = adapter
        self._changed()

    def remove(self, adapter: str) -> None:
        """Take it out again, also one that was put in halfway."""
        self._changed()
        self.apply(())  # else peft would choose another one to be active, and warn of it
        delete_adapter_layers(self.module, adapter)  # type: ignore[no-untyped-call]
        self._adapters = {lora: name for lora, name in self._adapters.items() if name != adapter}

    def holds(self, adapter: str) -> bool:
        return adapter in getattr(self.module, "peft_config", {})

    def size_bytes(self, adapter: str) -> int:
        return sum(weight.nbytes for _, weight in self.weights(adapter))

    def weights(self, adapter: str) -> list[tuple[str, torch.nn.Parameter]]:
        """Its matrices as they lie in the module, by their names."""
        return [pair for pair in self.module.named_parameters() if f".{adapter}." in pair[0]]

    def _changed(self) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer  # there is no LoRA where peft is not installed

        self._layers = [layer for layer in self.module.modules() if isinstance(layer, BaseTunerLayer)]
        self._applied = None
