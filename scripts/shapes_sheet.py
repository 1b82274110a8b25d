"""A contact sheet of the shipped model: every 21st of the 500 test prompts, none left out."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scripts.shapes_draw import SIDE, Pixels
from scripts.shapes_paint import paint
from scripts.shapes_prompts import scenes

COLUMNS, ROWS = 6, 4
FIRST, EVERY = 7, 21
STEPS = 20
GAP, CAPTION, LINE = 8, 42, 13
TARGET = Path("docs/contact-sheet.png")


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    asked = list(enumerate(scenes()))[FIRST::EVERY][: COLUMNS * ROWS]
    pictures = paint(asked, steps=STEPS)
    sheet = contact_sheet(pictures, [scene.prompt for _, scene in asked])
    # Without the lowest bit of each colour, which nobody sees, the file is a quarter smaller.
    sheet.point(lambda level: level | 1).save(target, optimize=True)
    print(target)


def contact_sheet(pictures: list[Pixels], captions: list[str]) -> Image.Image:
    """The pictures in rows of six, each with its caption below."""
    cell = SIDE + GAP
    sheet = Image.new("RGB", (COLUMNS * cell + GAP, ROWS * (cell + CAPTION) + GAP), "white")
    drawing, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for index, (pixels, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = GAP + index % COLUMNS * cell
        top = GAP + index // COLUMNS * (cell + CAPTION)
        sheet.paste(Image.fromarray(pixels), (left, top))
        drawing.rectangle((left - 1, top - 1, left + SIDE, top + SIDE), outline="lightgray")
        for line, words in enumerate(textwrap.wrap(caption, 22)):
            drawing.text((left, top + SIDE + 3 + line * LINE), words, fill="black", font=font)
    return sheet


if __name__ == "__main__":
    main()
