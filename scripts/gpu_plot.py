"""A plot of what bench_gpu has measured: pictures per second of each way, as an SVG of bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, LEFT, LINE, TOP = 900, 330, 24, 56
COLOURS = {"equal": "#3b6ea5", "mixed": "#d98b2b"}


def svg(title: str, subtitle: str, rows: Sequence[dict[str, Any]]) -> str:
    """One bar for each row that has `images_per_s`; those of mixed requests in another colour."""
    bars = [row for row in rows if row.get("images_per_s")]
    most = max((row["images_per_s"] for row in bars), default=1.0)
    drawn = [_bar(index, row, most) for index, row in enumerate(bars)]
    height = TOP + LINE * len(bars) + 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
            ' font-family="sans-serif" font-size="13">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="12" y="22" font-size="16" font-weight="bold">{escape(title)}</text>',
            f'<text x="12" y="42" fill="#555">{escape(subtitle)}</text>',
            *drawn,
            "</svg>\n",
        ]
    )


def _bar(index: int, row: dict[str, Any], most: float) -> str:
    top, length = TOP + LINE * index, (WIDTH - LEFT - 90) * row["images_per_s"] / most
    label = f"{row['way']}: {row['requests']} {row['workload']}"
    return (
        f'<text x="{LEFT - 8}" y="{top + 15}" text-anchor="end">{escape(label)}</text>'
        f'<rect x="{LEFT}" y="{top + 3}" width="{length:.1f}" height="{LINE - 7}"'
        f' fill="{COLOURS[row["workload"]]}"/>'
        f'<text x="{LEFT + length + 6:.1f}" y="{top + 15}">{row["images_per_s"]:.3g}</text>'
    )
