"""Plan: which graphs an export needs, and in which file each of them stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from export.components import Component
from export.families import Family
from export.settings import ExportSettings
from router.types import ShapeProfile

FIRST_GRAPH: Final = "model.onnx"
"""Where Optimum looks."""

DYNAMIC_ROWS: Final = 2
"""Rows of the example of an open batch axis: PyTorch takes 0 and 1 for constants."""


@dataclass(frozen=True)
class PlannedGraph:
    """One component at one profile and one number of rows."""

    component: Component
    profile: ShapeProfile
    rows: int
    file: str
    """Inside the export's folder, with `/`. Equal shapes share a file: a text encoder knows no size."""


def plan(family: Family, settings: ExportSettings) -> dict[str, tuple[PlannedGraph, ...]]:
    """Component -> its graphs, the first profile's first bucket first."""
    return {component.name: tuple(_graphs(component, settings)) for component in family.components}


def bucket_rows(profile: ShapeProfile, settings: ExportSettings) -> tuple[int, ...]:
    """The rows that the denoiser's graphs are made for; those of the example where the axis stays open."""
    return (DYNAMIC_ROWS,) if settings.dynamic_batch else profile.row_buckets


def _graphs(component: Component, settings: ExportSettings) -> Iterator[PlannedGraph]:
    files: dict[tuple[tuple[int, ...], ...], str] = {}
    for profile in settings.profiles:
        for rows in (DYNAMIC_ROWS,) if settings.dynamic_batch else component.rows(profile):
            shapes = tuple(each.shape(profile, rows) for each in component.inputs)
            file = files.setdefault(shapes, _file(component, profile, rows, settings, first=not files))
            yield PlannedGraph(component, profile, rows, file)


def _file(
    component: Component, profile: ShapeProfile, rows: int, settings: ExportSettings, *, first: bool
) -> str:
    if first:
        return f"{component.name}/{FIRST_GRAPH}"
    bucket = f"-r{rows}" if component.rows_kind == "bucket" and not settings.dynamic_batch else ""
    return f"{component.name}/{profile.name}{bucket}.onnx"
