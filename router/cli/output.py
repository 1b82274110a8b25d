"""What the commands print: results on stdout, everything else on stderr; sentences are never wrapped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from router.cli.options import in_options

STDOUT = Console(highlight=False)
STDERR = Console(stderr=True, highlight=False)


def print_line(text: str, style: str = "") -> None:
    STDOUT.print(Text(text, style=style), soft_wrap=True)


def print_note(text: str) -> None:
    STDERR.print(Text(f"note: {in_options(text)}", style="yellow"), soft_wrap=True)


def print_error(text: str) -> None:
    STDERR.print(Text("error: ", style="bold red") + Text(text), soft_wrap=True)


def print_table(title: str, columns: tuple[str, ...], rows: Sequence[Sequence[str | Text]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        cells: list[RenderableType] = [Text(cell) if isinstance(cell, str) else cell for cell in row]
        table.add_row(*cells)
    STDOUT.print(table)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))
