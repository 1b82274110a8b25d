"""Hostile files: whatever their bytes, they are read or refused and nothing else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router import images
from router.errors import InvalidRequestError
from tests.pictures import SEEDS, chunk


def with_checksums(data: bytes) -> bytes:
    """The PNG with right checksums, so that a mutation reaches what lies behind them."""
    mended, position = data[:8], 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        mended += chunk(data[position + 4 : position + 8], data[position + 8 : position + 8 + length])
        position += 12 + length
    return mended


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 8, len(data))))
        data[start:end] = draw(st.binary(max_size=8))
    if data.startswith(b"\x89PNG\r\n\x1a\n") and draw(st.booleans()):
        return with_checksums(bytes(data))
    return bytes(data)


def survives(data: bytes) -> None:
    for read in (images.decode, images.read_metadata):
        with contextlib.suppress(InvalidRequestError):
            read(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(data=mutated_files())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_files_are_read_or_refused(data: bytes):
    survives(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBPVP8 "]),
    rest=st.binary(max_size=200),
)
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_read_or_refused(start: bytes, rest: bytes):
    survives(start + rest)
