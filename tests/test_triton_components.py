"""The component models in a real Triton server: they give what ONNX Runtime gives, and join rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tritonclient.grpc.aio import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from router.manifest import GraphRecord, Manifest
from tests.exports import Exports
from tests.triton_requests import connected
from tests.triton_servers import TritonServer

Arrays = Mapping[str, np.ndarray[Any, Any]]


@pytest.fixture
async def client(triton_server: TritonServer) -> AsyncIterator[InferenceServerClient]:
    async with connected(triton_server) as found:
        yield found


@pytest.fixture
def unet(exports: Exports) -> GraphRecord:
    return Manifest.read(exports("sd15")).components["unet"][0]


@pytest.mark.may_block(reason="ONNX Runtime runs the graphs here for comparison")
@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_decoder", "vae_encoder"])
async def test_a_component_gives_what_its_graph_gives(
    client: InferenceServerClient, exports: Exports, component: str
) -> None:
    folder = exports("sd15")
    for record in Manifest.read(folder).components[component]:
        session = onnxruntime.InferenceSession(folder / record.file)
        feeds = _random(record, record.rows)
        wanted = session.run([output.name for output in record.outputs], feeds)
        found = await _infer(client, component, feeds)
        for output, array in zip(record.outputs, wanted, strict=True):
            assert np.array_equal(found[output.name], array)


async def test_rows_of_several_requests_share_a_run(client: InferenceServerClient, unet: GraphRecord) -> None:
    asked = [_random(unet, rows) for rows in (1, 3, 2, 1, 1, 2, 1, 3)]
    alone = [await _infer(client, "unet", feeds) for feeds in asked]
    before = await _runs(client)
    together = await asyncio.gather(*[_infer(client, "unet", feeds) for feeds in asked])
    assert await _runs(client) - before < len(asked)
    for one, other, feeds in zip(alone, together, asked, strict=True):
        assert one["out_sample"].shape == other["out_sample"].shape == feeds["sample"].shape
        assert np.allclose(one["out_sample"], other["out_sample"], atol=1e-4)


async def test_shapes_of_no_graph_are_refused(client: InferenceServerClient, unet: GraphRecord) -> None:
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        await _infer(client, "unet", _random(unet, 9))
    wide = {**_random(unet, 2), "sample": np.zeros((2, 4, 8, 16), np.float32)}
    with pytest.raises(InferenceServerException, match="unexpected shape for input 'sample'"):
        await _infer(client, "unet", wide)


async def _infer(client: InferenceServerClient, component: str, feeds: Arrays) -> Arrays:
    """One value for each row is [rows, 1] to Triton."""
    inputs = []
    for name, array in feeds.items():
        shaped = array.reshape(-1, 1) if array.ndim == 1 else array
        tensor = InferInput(name, list(shaped.shape), np_to_triton_dtype(shaped.dtype))
        tensor.set_data_from_numpy(shaped)
        inputs.append(tensor)
    answer = await client.infer(f"sd15-bls_{component}", inputs)
    return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


async def _runs(client: InferenceServerClient) -> int:
    found = await client.get_inference_statistics("sd15-bls_unet", as_json=True)
    return int(found["model_stats"][0]["execution_count"])


def _random(record: GraphRecord, rows: int) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(rows)
    arrays = {}
    for tensor in record.inputs:
        shape = (rows, *tensor.shape[1:])
        drawn = random.integers(0, 600, shape) if tensor.dtype == "int64" else random.normal(size=shape)
        arrays[tensor.name] = drawn.astype(tensor.dtype)
    return arrays
