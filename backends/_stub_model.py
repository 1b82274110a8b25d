"""The door for `model.py` of a Triton repository: the model that its configuration describes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Model(Protocol):
    """What Triton's Python backend calls, all on one thread."""

    def execute(self, requests: Sequence[Any]) -> Sequence[Any] | None:
        """The responses, or `None` where each request is answered through its own sender."""
        ...

    def finalize(self) -> None: ...


def make_model(arguments: Mapping[str, str], triton: Any) -> Model:
    """`arguments` are those of `initialize`, `triton` is Triton's own module. Raises `RouterError`.

    A component has the parameter `graphs`; it comes without torch, which a pipeline needs.
    """
    if "graphs" in json.loads(arguments["model_config"])["parameters"]:
        from backends._stub_component import ComponentModel

        return ComponentModel(arguments, triton)
    from backends._stub_pipeline import PipelineModel

    return PipelineModel(arguments, triton)
