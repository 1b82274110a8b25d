"""Sessions of one component: which graph runs, padding, parts, and what a row depends on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from backends._ort_binding import OrtSession
from backends._ort_session import OrtRuntime
from backends._session import Session, TensorSpec
from backends._sessions import Sessions
from tests.exports import Exports
from tests.miniatures import FAMILIES, miniature
from tests.onnx_doubles import export_like_optimum

CPU = OrtRuntime(torch.device("cpu"), ["CPUExecutionProvider"], threads=2)


class Doubling:
    """A graph of so many rows that doubles them, and remembers what it was fed."""

    def __init__(self, rows: int | None, width: int = 3) -> None:
        self.inputs: Mapping[str, TensorSpec] = {
            "sample": TensorSpec(torch.float16, (rows, width)),
            "img_ids": TensorSpec(torch.float32, (5,)),
        }
        self.fed: list[torch.Tensor] = []

    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert all(self.inputs[name].dtype == tensor.dtype for name, tensor in feeds.items())
        self.fed.append(feeds["sample"])
        return {"out": feeds["sample"] * 2, "ids": feeds["img_ids"].repeat(len(feeds["sample"]), 1)}


def run(sessions: Sessions, rows: int, width: int = 3) -> torch.Tensor:
    sample = torch.arange(rows * width, dtype=torch.float32).reshape(rows, width)
    out = sessions.run({"sample": sample, "img_ids": torch.ones(5), "guidance": None})["out"]
    assert torch.equal(out, sample * 2)
    assert out.dtype == torch.float32
    return out


@pytest.mark.parametrize(("rows", "bucket"), [(1, 2), (2, 2), (3, 8), (8, 8)])
def test_the_smallest_graph_that_holds_the_rows_runs_them(rows: int, bucket: int) -> None:
    graphs = [Doubling(8), Doubling(2)]
    run(Sessions(graphs), rows)
    assert [[len(fed) for fed in graph.fed] for graph in graphs] == [
        [8] if bucket == 8 else [],
        [2] if bucket == 2 else [],
    ]


def test_padding_repeats_the_last_row() -> None:
    run(Sessions([graph := Doubling(4)]), 2)
    assert torch.equal(graph.fed[0][2:], graph.fed[0][1:2].expand(2, -1))


def test_more_rows_than_the_largest_graph_run_in_parts() -> None:
    graphs = [Doubling(2), Doubling(4)]
    run(Sessions(graphs), 9)
    assert [[len(fed) for fed in graph.fed] for graph in graphs] == [[2], [4, 4]]


def test_an_open_axis_takes_any_rows_as_they_are() -> None:
    run(Sessions([graph := Doubling(None)]), 7)
    assert [len(fed) for fed in graph.fed] == [7]


def test_the_graph_of_the_shape_runs() -> None:
    graphs = [Doubling(2, width=3), Doubling(2, width=4)]
    run(Sessions(graphs), 2, width=4)
    assert [len(graph.fed) for graph in graphs] == [0, 1]


@pytest.mark.parametrize(
    "feeds",
    [
        {"sample": torch.ones(1, 9), "img_ids": torch.ones(5)},
        {"sample": torch.ones(1, 3)},
        {"sample": torch.ones(1, 3), "img_ids": torch.ones(5), "more": torch.ones(1)},
    ],
)
def test_what_no_graph_takes_is_an_error(feeds: dict[str, torch.Tensor]) -> None:
    with pytest.raises(RuntimeError, match="no graph takes"):
        Sessions([Doubling(2)]).run(feeds)


@pytest.fixture(params=FAMILIES)
def denoiser(request: pytest.FixtureRequest, exports: Exports) -> Session:
    """The largest graph of a family's denoiser."""
    folder = exports(request.param)
    (file,) = [*folder.glob("unet/*-r*.onnx"), *folder.glob("transformer/*-r*.onnx")]
    return CPU.open(file)


def test_within_a_bucket_a_row_depends_on_no_neighbour_and_no_slot(denoiser: Session) -> None:
    generator = torch.Generator().manual_seed(0)
    rowless = {"img_ids", "txt_ids"}
    shapes = {name: [size or 1 for size in spec.shape] for name, spec in denoiser.inputs.items()}
    fixed = {name: torch.randn(shapes[name], generator=generator) for name in rowless & shapes.keys()}
    batched = [name for name in shapes if name not in rowless]
    bucket = shapes[batched[0]][0]

    def draw(rows: int) -> dict[str, torch.Tensor]:
        return {name: torch.randn([rows, *shapes[name][1:]], generator=generator) for name in batched}

    mine, sessions = draw(1), Sessions([denoiser])
    alone = next(iter(sessions.run({**mine, **fixed}).values()))
    for slot in range(bucket):
        others = draw(bucket - 1)
        joined = {name: torch.cat([others[name][:slot], mine[name], others[name][slot:]]) for name in batched}
        made = next(iter(sessions.run({**joined, **fixed}).values()))
        assert torch.equal(made[slot], alone[0]), f"slot {slot} of {bucket}"


def test_outputs_outlive_later_runs(exports: Exports) -> None:
    session = CPU.open(exports("sd15") / "vae_decoder" / "model.onnx")
    latents = torch.randn(2, 1, 4, 8, 8)
    first = session.run({"latent_sample": latents[0]})["sample"]
    before = first.clone()
    session.run({"latent_sample": latents[1]})
    assert torch.equal(first, before)


def test_inputs_that_are_no_whole_blocks_of_memory(exports: Exports) -> None:
    session = CPU.open(exports("sd15") / "vae_decoder" / "model.onnx")
    latents = torch.randn(1, 8, 8, 4).permute(0, 3, 1, 2)
    made = session.run({"latent_sample": latents})["sample"]
    assert torch.equal(made, session.run({"latent_sample": latents.contiguous()})["sample"])


def test_outputs_of_a_shape_that_only_the_run_knows(miniatures: Path, tmp_path: Path) -> None:
    folder = export_like_optimum(miniature("sd15", miniatures), tmp_path / "sd15")
    session = CPU.open(folder / "vae_decoder" / "model.onnx")
    for height, width in ((8, 8), (8, 12)):
        made = session.run({"latent_sample": torch.randn(1, 4, height, width)})
        assert made["sample"].shape == (1, 3, 8 * height, 8 * width)


def test_what_the_library_raises_in_a_run_is_a_runtime_error(exports: Exports) -> None:
    """Of its exceptions none is, and a lane looks for memory and lost devices among those."""
    session = CPU.open(exports("sd15") / "vae_decoder" / "model.onnx")
    assert isinstance(session, OrtSession)
    with pytest.raises(RuntimeError, match="latent_sample"):
        session.run({"latent_sample": torch.randn(1, 4, 9, 9)})
