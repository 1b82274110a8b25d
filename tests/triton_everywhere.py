"""The fixture `everywhere`: a configuration in which each backend serves the same model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exports import Exports
from tests.miniatures import miniature
from tests.triton_servers import TritonServer


@pytest.fixture
def everywhere(triton_server: TritonServer, exports: Exports, miniatures: Path, tmp_path: Path) -> Path:
    """The folder of a configuration in which each backend serves the same model."""
    (tmp_path / "triptych.toml").write_text(
        f"""
        [limits]
        concurrency = 16

        [[models.sd15.instances]]
        backend = "diffusers"
        source = "{miniature("sd15", miniatures)}"
        device = "cpu"

        [[models.sd15.instances]]
        backend = "onnxruntime"
        source = "{exports("sd15")}"
        device = "cpu"
        options = {{ unverified = true }}

        [[models.sd15.instances]]
        backend = "triton"
        source = "grpc://{triton_server.grpc}/sd15"
        """
    )
    return tmp_path
