"""Exports pipeline folders with the real Optimum; runs in its environment.

python optimum_export.py SOURCE OUTPUT [SOURCE OUTPUT ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from optimum.exporters.onnx import main_export


def export(source: Path, output: Path) -> None:
    """`task="auto"` cannot be told of a local folder, so it is named."""
    main_export(
        model_name_or_path=str(source),
        output=str(output),
        task="text-to-image",
        library_name="diffusers",
        do_validation=False,
        no_post_process=True,
    )


if __name__ == "__main__":
    for source, output in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        export(Path(source), Path(output))
