"""Instances whose models are as they were exported refuse LoRAs with a sentence."""

from __future__ import annotations

from tests import onnx_doubles, triton_instances
from tests.exports import Exports
from tests.onnx_doubles import Lanes

LORAS = [{"name": "ink"}]


async def test_an_export_applies_none(lanes: Lanes, exports: Exports) -> None:
    found = await onnx_doubles.make(lanes, exports("sd15")).probe()
    why = found.why_not(onnx_doubles.request(loras=LORAS))
    assert why == "it applies no LoRA: its graphs are as they were exported."
    assert found.why_not(onnx_doubles.request()) is None


async def test_a_triton_server_applies_none_whatever_it_says(lanes: Lanes) -> None:
    async with triton_instances.serving(lanes, loras=["ink"]) as double:
        found = await triton_instances.remote(double.url).probe()
    why = found.why_not(triton_instances.request(loras=LORAS))
    assert why == "it applies no LoRA: a Triton server runs its models as they were exported."
    assert found.why_not(triton_instances.request()) is None
