"""contact_sheet: several pictures on one white sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from router.errors import InvalidRequestError
from router.types import RawImage

_GAP = 4
_WHITE = b"\xff"


def contact_sheet(images: Sequence[RawImage], columns: int | None = None) -> RawImage:
    """The pictures in reading order on one white sheet, as near to square as `columns` allows.

    Raises `InvalidRequestError` for no pictures, or for less than one column.
    """
    if not images:
        raise InvalidRequestError("A contact sheet needs at least one picture.", param="images")
    if columns is not None and columns < 1:
        raise InvalidRequestError(f"`columns` is {columns}; a sheet has at least 1.", param="columns")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    cell_height = max(image.height for image in images) + _GAP
    cell_width = max(image.width for image in images) + _GAP
    height, width = rows * cell_height + _GAP, columns * cell_width + _GAP
    sheet = bytearray(_WHITE * (height * width * 3))
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        _paste(image, sheet, width, top=_GAP + row * cell_height, left=_GAP + column * cell_width)
    return RawImage(height, width, bytes(sheet))


def _paste(image: RawImage, sheet: bytearray, sheet_width: int, *, top: int, left: int) -> None:
    line = image.width * 3
    for row in range(image.height):
        start = ((top + row) * sheet_width + left) * 3
        sheet[start : start + line] = image.pixels[row * line : (row + 1) * line]
