"""The bytes of a model and its runs: the larger stage, runs that requests share, and what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.footprint import Demand, Estimate, Footprint, Peak, Workspace, told

PLAIN = Footprint(1_000, row_bytes_per_pixel=10, decode_bytes_per_pixel=15)
GUIDED = Demand(rows=2, pictures=1, pixels=100)


def test_of_two_stages_the_larger_counts() -> None:
    assert PLAIN.workspace_bytes([GUIDED]) == 2 * 100 * 10
    assert PLAIN.workspace_bytes([Demand(rows=1, pictures=1, pixels=100)]) == 100 * 15


def test_both_stages_count_where_they_overlap() -> None:
    overlapped = replace(PLAIN, overlapped=True)
    assert overlapped.workspace_alone(GUIDED) == 2 * 100 * 10 + 100 * 15
    small = Demand(rows=2, pictures=1, pixels=10)
    assert overlapped.workspace_bytes([GUIDED, small]) == (2 * 100 + 2 * 10) * 10 + 100 * 15
    estimate = Estimate.of(overlapped, GUIDED, budget_bytes=4_499)
    assert (estimate.workspace_bytes, estimate.fits) == (3_500, False)
    assert estimate.parts().endswith("decoding 1.5 kB by formula, both at once")
    assert overlapped.rows_within(free_bytes=3_500, pixels=100) == 2


def test_requests_share_runs_of_no_more_than_the_row_limit() -> None:
    four = replace(PLAIN, row_limit=4)
    assert four.denoise_bytes([GUIDED] * 2) == 4 * 100 * 10
    assert four.denoise_bytes([GUIDED] * 8) == 4 * 100 * 10
    large = Demand(rows=2, pictures=1, pixels=300)
    assert four.denoise_bytes([GUIDED] * 8 + [large]) == 2 * 300 * 10 + 2 * 100 * 10


def test_pictures_are_decoded_as_many_at_once_as_the_vae_takes() -> None:
    many = Demand(rows=6, pictures=6, pixels=100)
    assert PLAIN.decode_bytes([many]) == 100 * 15
    assert replace(PLAIN, decode_limit=4).decode_bytes([many]) == 4 * 100 * 15


def test_tiles_bound_what_decoding_takes() -> None:
    tiled = replace(PLAIN, decode_tile_pixels=64)
    assert tiled.decode_bytes([GUIDED]) == 64 * 15
    assert tiled.decode_bytes([Demand(1, 1, 10)]) == 10 * 15


@given(
    free=st.integers(0, 10**6),
    rows=st.integers(1, 4),
    decode=st.integers(0, 50),
    tile=st.sampled_from([None, 64, 4_096]),
    overlapped=st.booleans(),
)
def test_the_pixels_for_which_there_is_room_really_fit(
    free: int, rows: int, decode: int, tile: int | None, overlapped: bool
) -> None:
    footprint = replace(PLAIN, decode_bytes_per_pixel=decode, decode_tile_pixels=tile, overlapped=overlapped)
    pixels = footprint.pixels_within(free, rows)
    assert pixels is not None
    assert footprint.workspace_bytes([Demand(rows, 1, pixels)]) <= free
    assert footprint.workspace_bytes([Demand(rows, 1, pixels + 1)]) > free or not pixels


def test_the_rows_of_a_run_follow_from_free_memory() -> None:
    assert PLAIN.rows_within(free_bytes=3_500, pixels=100) == 3
    assert PLAIN.rows_within(free_bytes=10, pixels=100) == 1


def test_what_was_measured_takes_the_place_of_the_formula() -> None:
    measured = PLAIN.with_measured(Workspace(denoise=Peak(rows=2, pixels=100, bytes=1_001)))
    assert measured.row_bytes_per_pixel == 6  # rounded up
    assert measured.decode_bytes_per_pixel == 15
    assert measured.measured == ("denoise",)


def test_the_larger_run_tells_more() -> None:
    """What a run takes whatever its size weighs less in it."""
    small, large = Peak(1, 100, 5_000), Peak(2, 1_000, 20_000)
    assert Workspace(small).joined(Workspace(large)) == Workspace(large)
    assert Workspace(large).joined(Workspace(small)) == Workspace(large)
    again = Peak(2, 1_000, 21_000)
    assert Workspace(again).joined(Workspace(large, decode=small)) == Workspace(again, small)


def test_what_was_never_measured_is_no_peak() -> None:
    with pytest.raises(ValueError, match="never measured"):
        Peak(rows=0, pixels=1, bytes=1)


def test_an_estimate_says_its_parts_and_how_they_are_known() -> None:
    footprint = replace(PLAIN, weights_bytes=6_940_000_000, measured=("denoise",))
    estimate = Estimate.of(footprint, Demand(2, 1, 1024 * 1024), budget_bytes=8 * 10**9)
    assert estimate.needed_bytes == 6_940_000_000 + 20 * 1024 * 1024
    assert estimate.fits
    assert estimate.parts() == ("weights 6.94 GB, denoising 21 MB measured, decoding 15.7 MB by formula")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_500, "1.5 kB"),
        (6_938_000_000, "6.94 GB"),
        (10**13, "10,000 GB"),
    ],
)
def test_bytes_are_told_in_decimal_units(count: int, words: str) -> None:
    assert told(count) == words
