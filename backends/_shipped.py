"""The models that come with the package, named `shipped:NAME` where a source is asked for."""

from __future__ import annotations

from pathlib import Path

from router.errors import LoadError

PREFIX = "shipped:"
SHIPPED = {"shapes": Path(__file__).parent / "shapes_model"}
"""Name -> folder in Diffusers' layout."""


def resolve(source: str) -> str:
    """The folder that `shipped:NAME` stands for; any other source as it is.

    Raises `LoadError` for a name that is not shipped.
    """
    if not source.startswith(PREFIX):
        return source
    folder = SHIPPED.get(source.removeprefix(PREFIX))
    if folder is None:
        known = ", ".join(PREFIX + name for name in SHIPPED)
        raise LoadError(f"There is no model {source!r} in this package; `source` can be {known}.")
    return str(folder)
