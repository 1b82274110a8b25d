"""The parity sheet: source, export and their difference side by side, one row for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from export.pictures import Pair, as_array, differences
from router.manifest import Manifest, ParityRecord, PictureParity

FILE_NAME: Final = "parity.png"

_MIN_CELL, _MAX_CELL = 192, 448  # pixels of the longer side
_MIN_WIDTH = 680  # what the header needs
_MARGIN, _GAP, _HEADER, _CAPTION = 28, 14, 92, 46
_MAX_AMPLIFICATION = 128
_PAPER, _INK, _FAINT, _LINE, _GOOD, _BAD = "#fbfaf7", "#1d1d1b", "#77746c", "#d9d5cb", "#2f6b3c", "#a12b2b"


def draw(pairs: Sequence[Pair], manifest: Manifest, record: ParityRecord) -> Image.Image:
    """The sheet. Differences are multiplied, all by one factor, so that the largest is just white."""
    factor = _amplification(pairs)
    cells = [_row(pair, factor) for pair in pairs]
    widest = max(sum(cell.width for cell in row) for row in cells)
    width = max(widest + 2 * _GAP + 2 * _MARGIN, _MIN_WIDTH)
    height = _HEADER + sum(row[0].height + _CAPTION for row in cells)
    sheet = Image.new("RGB", (width, height), _PAPER)
    drawing = ImageDraw.Draw(sheet)
    _draw_header(drawing, manifest, record, cells[0], factor)
    top = _HEADER
    for row, picture in zip(cells, record.pictures, strict=True):
        _draw_row(sheet, drawing, row, top)
        _draw_caption(drawing, picture, record, top + row[0].height + 8)
        top += row[0].height + _CAPTION
    return sheet


def write(file: Path, pairs: Sequence[Pair], manifest: Manifest, record: ParityRecord) -> None:
    draw(pairs, manifest, record).save(file, optimize=True)


def _row(pair: Pair, factor: int) -> list[Image.Image]:
    levels = np.minimum(differences(pair.source, pair.export) * factor, 255).astype(np.uint8)
    size = _cell_size(pair.source.height, pair.source.width)
    return [
        _scaled(Image.fromarray(as_array(pair.source)), size),
        _scaled(Image.fromarray(as_array(pair.export)), size),
        Image.fromarray(_spread(levels, size)).resize(size, Image.Resampling.NEAREST),
    ]


def _cell_size(height: int, width: int) -> tuple[int, int]:
    """Width and height: small pictures are enlarged by a whole factor, large ones reduced."""
    longer = max(height, width)
    scale = -(-_MIN_CELL // longer) if longer < _MIN_CELL else min(1.0, _MAX_CELL / longer)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    enlarged = size[0] > image.width
    return image.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)


def _spread(levels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The largest of each block, so that reducing loses no lone pixel."""
    step = -(-levels.shape[1] // size[0])
    if step == 1:
        return levels
    height, width = levels.shape[:2]
    padded = np.pad(levels, ((0, -height % step), (0, -width % step), (0, 0)))
    blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step, 3)
    largest: NDArray[np.uint8] = blocks.max(axis=(1, 3))
    return largest


def _amplification(pairs: Sequence[Pair]) -> int:
    largest = max(int(differences(pair.source, pair.export).max()) for pair in pairs)
    return max(1, min(_MAX_AMPLIFICATION, 255 // max(largest, 1)))


def _draw_header(
    drawing: ImageDraw.ImageDraw,
    manifest: Manifest,
    record: ParityRecord,
    cells: Sequence[Image.Image],
    factor: int,
) -> None:
    dtype = manifest.profiles[0].dtype
    drawing.text((_MARGIN, 20), f"{manifest.family}, {dtype}, opset {manifest.opset}", _INK, _font(19))
    worst = max(record.components, key=lambda name: record.components[name])
    said = (
        f"{record.runtime}. Largest difference of a component {record.components[worst]:.1e} ({worst});"
        f" pictures must reach {record.min_psnr_db:g} dB."
    )
    drawing.text((_MARGIN, 46), said, _FAINT, _font(12))
    left = _MARGIN
    for cell, title in zip(cells, ("source, float32", "export", f"difference, {factor} times"), strict=True):
        drawing.text((left, _HEADER - 21), title, _INK, _font(13))
        left += cell.width + _GAP


def _draw_row(
    sheet: Image.Image, drawing: ImageDraw.ImageDraw, cells: Sequence[Image.Image], top: int
) -> None:
    left = _MARGIN
    for cell in cells:
        sheet.paste(cell, (left, top))
        box = (left - 1, top - 1, left + cell.width, top + cell.height)
        drawing.rectangle(box, outline=_LINE)
        left += cell.width + _GAP


def _draw_caption(
    drawing: ImageDraw.ImageDraw, picture: PictureParity, record: ParityRecord, top: int
) -> None:
    equal = picture.psnr_db is None or picture.psnr_db >= record.min_psnr_db
    measured = "equal" if picture.psnr_db is None else f"{picture.psnr_db:.1f} dB"
    if picture.largest_difference:
        measured += f", largest difference {picture.largest_difference} of 255"
    font = _font(12)
    drawing.text((_MARGIN, top), measured, _GOOD if equal else _BAD, font)
    left = _MARGIN + drawing.textlength(f"{measured}    ", font)
    drawing.text((left, top), f"{picture.name}, {picture.profile}", _FAINT, font)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
