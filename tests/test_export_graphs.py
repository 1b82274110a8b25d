"""Graphs: what an export's components are called, take and give, and that weights stand on the disk once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch

from export.families import family_of
from export.profiles import profiles_of
from export.source import read_part
from export.weights import SharedWeights
from router.manifest import Manifest
from tests.exports import Exports
from tests.miniatures import FAMILIES, Family, miniature

IDS = ("input_ids", (1, 77))
HIDDEN = ("hidden_states.0", "hidden_states.1", "hidden_states.2")
CLIP = ([IDS], ("last_hidden_state", "pooler_output"))
CLIP_WITH_ALL = ([IDS], ("last_hidden_state", "pooler_output", *HIDDEN))
PROJECTED = ([IDS], ("text_embeds", "last_hidden_state", *HIDDEN))


def t5(length: int) -> tuple[list[tuple[str, tuple[int, ...]]], tuple[str, ...]]:
    return [("input_ids", (1, length))], ("last_hidden_state",)


def vae(channels: int) -> dict[str, tuple[list[tuple[str, tuple[int, ...]]], tuple[str, ...]]]:
    return {
        "vae_decoder": ([("latent_sample", (1, channels, 8, 8))], ("sample",)),
        "vae_encoder": ([("sample", (1, 3, 64, 64))], ("latent_parameters",)),
    }


CONTRACT = {
    "sd15": {
        "text_encoder": CLIP,
        "unet": (
            [("sample", (2, 4, 8, 8)), ("timestep", (2,)), ("encoder_hidden_states", (2, 77, 32))],
            ("out_sample",),
        ),
        **vae(4),
    },
    "sdxl": {
        "text_encoder": CLIP_WITH_ALL,
        "text_encoder_2": PROJECTED,
        "unet": (
            [
                ("sample", (2, 4, 8, 8)),
                ("timestep", (2,)),
                ("encoder_hidden_states", (2, 77, 64)),
                ("text_embeds", (2, 32)),
                ("time_ids", (2, 6)),
            ],
            ("out_sample",),
        ),
        **vae(4),
    },
    "sd3": {
        "text_encoder": PROJECTED,
        "text_encoder_2": PROJECTED,
        "text_encoder_3": t5(256),
        "transformer": (
            [
                ("hidden_states", (2, 16, 8, 8)),
                ("encoder_hidden_states", (2, 77 + 256, 64)),
                ("pooled_projections", (2, 64)),
                ("timestep", (2,)),
            ],
            ("out_hidden_states",),
        ),
        **vae(16),
    },
    "flux": {
        "text_encoder": CLIP,
        "text_encoder_2": t5(512),
        "transformer": (
            [
                ("hidden_states", (1, 16, 64)),
                ("encoder_hidden_states", (1, 512, 32)),
                ("pooled_projections", (1, 32)),
                ("timestep", (1,)),
                ("img_ids", (16, 3)),
                ("txt_ids", (512, 3)),
                ("guidance", (1,)),
            ],
            ("out_hidden_states",),
        ),
        **vae(16),
    },
}
"""Of the first profile's first bucket, as Optimum names and orders them."""


@pytest.mark.parametrize("family", FAMILIES)
def test_names_order_and_shapes_are_optimums(family: Family, exports: Exports) -> None:
    components = Manifest.read(exports(family)).components
    found = {
        name: (
            [(tensor.name, tensor.shape) for tensor in graphs[0].inputs],
            tuple(tensor.name for tensor in graphs[0].outputs),
        )
        for name, graphs in components.items()
    }
    assert found == CONTRACT[family]
    assert all(graphs[0].file == f"{name}/model.onnx" for name, graphs in components.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_optimum_finds_what_it_reads_beside_the_graphs(family: Family, exports: Exports) -> None:
    folder = exports(family)
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*")}
    assert {f"{component}/config.json" for component in CONTRACT[family]} <= names
    assert {"model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"} <= names
    assert not [name for name in names if name.endswith(".safetensors")]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_manifest_tells_the_graphs_truth(family: Family, exports: Exports) -> None:
    folder = exports(family)
    manifest = Manifest.read(folder)
    assert manifest.check_files(folder) == []
    assert manifest.profiles[0].row_buckets == ((1, 4) if family == "flux" else (2, 8))
    for graph in (graph for graphs in manifest.components.values() for graph in graphs):
        model = onnx.load(folder / graph.file, load_external_data=False)
        for told, found in ((graph.inputs, model.graph.input), (graph.outputs, model.graph.output)):
            assert [tensor.name for tensor in told] == [value.name for value in found]
            shapes = [tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim) for value in found]
            assert [tensor.shape for tensor in told] == shapes


def test_an_export_may_be_served_by_every_runtime_that_knows_its_operators(exports: Exports) -> None:
    assert {"onnxruntime", "openvino"} <= set(Manifest.read(exports("sd15")).runtimes)


def test_two_graphs_of_a_component_share_one_data_file(exports: Exports) -> None:
    folder = exports("sd15")
    first, second = (
        onnx.load(folder / name, load_external_data=False)
        for name in ("unet/model.onnx", "unet/64x64-r8.onnx")
    )

    def places(model: onnx.ModelProto) -> dict[str, dict[str, str]]:
        return {
            each.name: {entry.key: entry.value for entry in each.external_data}
            for each in model.graph.initializer
            if each.external_data
        }

    assert len(places(first)) > 50
    assert places(first) == places(second)
    weights = sum(int(place["length"]) for place in places(first).values())
    assert weights < (folder / "unet/model.onnx_data").stat().st_size < 1.5 * weights


def test_weights_that_differ_are_told_of_and_written(tmp_path: Path) -> None:
    def graph(value: float) -> onnx_ir.Model:
        tensor = onnx_ir.tensor(np.full(2000, value, np.float32), name="weight")
        weight = onnx_ir.Value(name="weight", const_value=tensor)
        return onnx_ir.Model(onnx_ir.Graph([], [], nodes=[], initializers=[weight]), ir_version=10)

    with SharedWeights(tmp_path) as weights:
        assert weights.take(graph(1.0)) == 8000
        assert weights.take(graph(1.0)) == 0
        assert weights.take(graph(2.0)) >= 8000


def test_no_path_of_this_machine_is_in_a_graph(exports: Exports) -> None:
    graph = (exports("sd15") / "unet/model.onnx").read_bytes()
    assert b".py" not in graph
    assert str(Path.home()).encode() not in graph


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_exported_computes_what_diffusers_does(family: Family, miniatures: Path) -> None:
    """Bit for bit: the shells, and the frequencies that are kept."""
    source = miniature(family, miniatures)
    known = family_of(source)
    (denoiser,) = (each for each in known.components if each.rows_kind == "bucket")
    profile = profiles_of(known, ["64x64"])[0]
    example = denoiser.example(profile, 2, torch.Generator().manual_seed(3))
    with torch.no_grad():
        plain = getattr(read_part(source, denoiser.part, "float32"), denoiser.part)
        added = {name: example[name] for name in ("text_embeds", "time_ids") if name in example}
        arguments = {name: value for name, value in example.items() if name not in added}
        arguments |= {"added_cond_kwargs": added} if added else {}
        expected = plain(**arguments, return_dict=False)[0]
        (found,) = denoiser.wrap(read_part(source, denoiser.part, "float32"))(**example)
    assert torch.equal(found, expected)


def test_sd3_has_no_einsum_left(exports: Exports) -> None:
    """It knows no bfloat16."""
    model = onnx.load(exports("sd3") / "transformer/model.onnx", load_external_data=False)
    assert "Einsum" not in {node.op_type for node in model.graph.node}
