"""The header of a safetensors file: what it says, and what is no header, or not of this file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from router.header import HEADER_LIMIT_BYTES, Header, HeaderError
from tests.headers import described, write

TWO = described({"a": (2, 3), "b": (5,)})


def flaw(file: Path) -> HeaderError:
    with pytest.raises(HeaderError) as caught:
        Header.read(file)
    return caught.value


def test_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    file = tmp_path / "real.safetensors"
    save_file({"half": torch.zeros(2, 3).half(), "scalar": torch.tensor(1)}, file, {"format": "pt"})
    header = Header.read(file)
    assert header.metadata == {"format": "pt"}
    half, scalar = header.tensors["half"], header.tensors["scalar"]
    assert (half.dtype, half.shape, half.size_bytes, half.elements) == ("F16", (2, 3), 12, 6)
    assert (scalar.shape, scalar.size_bytes, scalar.elements) == ((), 8, 1)


def test_a_file_of_a_type_that_is_newer_than_this_is_read(tmp_path: Path) -> None:
    tensors = {"a": {"dtype": "F3_NEW", "shape": [4], "data_offsets": [0, 2]}}
    assert Header.read(write(tmp_path / "new", tensors)).tensors["a"].size_bytes == 2


@pytest.mark.parametrize(
    ("header", "size", "says"),
    [
        (TWO, 21, "is cut short: 1 bytes are missing"),
        (TWO, 25, "is damaged: 3 bytes belong to no tensor"),
        (TWO | {"c": TWO["b"]}, 22, "overlap or leave a gap"),
        ({"a": {**TWO["a"], "data_offsets": [2, 14]}}, 14, "overlap or leave a gap"),
        ({"a": {**TWO["a"], "data_offsets": [12, 0]}}, 12, "damaged in its header"),
        ({"a": {**TWO["a"], "shape": [-2, -3]}}, 12, "damaged in its header"),
        ({"a": {**TWO["a"], "shape": [2, 4]}}, 12, "damaged in its header"),
        ({"a": {**TWO["a"], "shape": "2x3"}}, 12, "damaged in its header"),
        ({"a": {**TWO["a"], "dtype": None}}, 12, "damaged in its header"),
        ({"a": {"dtype": "F16", "shape": [6]}}, 12, "damaged in its header"),
        ({"__metadata__": [], **TWO}, 22, "damaged in its header"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, header: dict[str, Any], size: int, says: str) -> None:
    assert says in str(flaw(write(tmp_path / "model.safetensors", header, size)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is cut short"),
        (b"\x10\0\0", "is cut short"),
        ((500).to_bytes(8, "little") + b"{}", "is cut short"),
        ((HEADER_LIMIT_BYTES + 1).to_bytes(8, "little") + b"{}", "would have 100,000,001 bytes"),
        ((2).to_bytes(8, "little") + b"[]", "is damaged in its header"),
        ((4).to_bytes(8, "little") + b"\xff\xfe{}", "is damaged in its header"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "is damaged in its header"),
        (b"GGUF\x03\0\0\0" + b"\0" * 90, "is a GGUF file"),
        (b"<!DOCTYPE html><html>", "is damaged"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    assert says in str(flaw(file))


def test_a_header_beyond_the_formats_limit_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with file.open("wb") as stream:
        stream.write((HEADER_LIMIT_BYTES + 1).to_bytes(8, "little"))
        stream.truncate(2 * HEADER_LIMIT_BYTES)
    assert "its header would have 100,000,001 bytes" in str(flaw(file))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_under_another_name_is_told_and_not_opened(tmp_path: Path, zipped: bool) -> None:
    written = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, written, _use_new_zipfile_serialization=zipped)
    file = tmp_path / "model.safetensors"
    file.write_bytes(written.getvalue())
    found = flaw(file)
    assert "is a pickle under another name, which can run code" in str(found)
    assert found.cure == "convert it to safetensors"
