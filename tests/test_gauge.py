"""Measuring what runs take, with an allocator that counts what the test says."""

from __future__ import annotations

from collections.abc import Callable

import torch

from backends._gauge import Gauge, gauge_of
from router.footprint import Peak, Workspace


class Allocator:
    """`weights` lie there for good; a run takes more, and gives it back."""

    def __init__(self, weights: int = 1_000) -> None:
        self._now = self._most = weights
        self.asked = 0

    def now(self) -> int:
        self.asked += 1
        return self._now

    def most(self) -> int:
        return self._most

    def forget(self) -> None:
        self._most = self._now

    def take(self, count: int) -> None:
        self._most = max(self._most, self._now + count)


def latents(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def unet(allocator: Allocator, bytes_per_row: int = 100) -> Callable[..., str]:
    def run(sample: torch.Tensor, timestep: int = 0) -> str:
        allocator.take(sample.shape[0] * bytes_per_row)
        return "noise"

    return run


def test_a_run_is_measured_beyond_what_lies_there() -> None:
    allocator = Allocator()
    gauge = Gauge(allocator, cell_pixels=64)
    assert gauge.around(unet(allocator), "denoise")(sample=latents(2, 4, 8, 8)) == "noise"
    assert gauge.workspace == Workspace(denoise=Peak(rows=2, pixels=8 * 8 * 64, bytes=200))
    assert gauge.peak_bytes == 1_200


def test_packed_latents_are_four_to_a_token() -> None:
    allocator = Allocator()
    gauge = Gauge(allocator, cell_pixels=64)
    gauge.around(unet(allocator), "denoise")(latents(1, 16, 64))
    assert gauge.workspace.denoise == Peak(rows=1, pixels=16 * 4 * 64, bytes=100)


def test_decoding_is_measured_apart_and_in_tiles_for_a_tile() -> None:
    allocator = Allocator()
    gauge = Gauge(allocator, cell_pixels=64, tile_pixels=1_024)
    gauge.around(unet(allocator, 300), "decode")(latents(1, 4, 8, 8))
    assert gauge.workspace == Workspace(decode=Peak(rows=1, pixels=1_024, bytes=300))


def test_only_the_first_runs_of_a_shape_are_measured() -> None:
    allocator = Allocator()
    run = Gauge(allocator, cell_pixels=64).around(unet(allocator), "denoise")
    for _ in range(20):
        run(latents(2, 4, 8, 8))
    assert allocator.asked == 3
    run(latents(4, 4, 8, 8))
    assert allocator.asked == 4


def test_the_first_runs_of_a_compiled_shape_count_for_nothing() -> None:
    """A compiler tries kernels and records graphs in them."""
    allocator = Allocator()
    gauge = Gauge(allocator, cell_pixels=64)
    costs = iter([9_000, 9_000, 100])

    def compiled(sample: torch.Tensor) -> None:
        allocator.take(next(costs))

    run = gauge.around(compiled, "denoise", unsettled=2)
    run(latents(1, 4, 8, 8))
    run(latents(1, 4, 8, 8))
    assert gauge.workspace == Workspace()
    run(latents(1, 4, 8, 8))
    assert gauge.workspace.denoise == Peak(1, 4_096, 100)
    assert gauge.peak_bytes == 10_000


def test_nothing_is_measured_on_a_cpu_nor_where_weights_come_and_go() -> None:
    assert gauge_of("cpu", 64, None, offloaded=False) is None
    assert gauge_of("cuda:0", 64, None, offloaded=True) is None
