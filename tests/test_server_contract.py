"""The OpenAPI document: complete, and kept in made-up requests. `scripts/fuzz_http` alone makes thousands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router.router import BackendRouter
from router.server.app import create_app
from router.server.settings import ServerSettings
from tests.services import fake_config

ROOT = Path(__file__).parent.parent


@pytest.fixture
def document() -> dict[str, Any]:
    return create_app(BackendRouter(fake_config()), ServerSettings()).openapi()


def test_every_form_is_in_the_document(document: dict[str, Any]) -> None:
    assert set(document["paths"]) >= {
        "/api/v1/generate", "/image/generate", "/generate", "/api/v1/explain", "/api/v1/capabilities",
        "/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/v1/models", "/v1/jobs",
        "/outputs/images/{name}", "/outputs/metadata/{name}", "/health", "/healthz", "/readyz", "/metrics",
        "/api/v1/sizes",
    }  # fmt: skip


def test_every_body_forbids_what_is_unknown_and_holds_our_fields(document: dict[str, Any]) -> None:
    for path in ("/api/v1/generate", "/generate", "/v1/images/generations"):
        (content,) = document["paths"][path]["post"]["requestBody"]["content"].values()
        assert content["schema"]["additionalProperties"] is False
        assert {"prompt", "seed", "num_inference_steps", "negative_prompt"} <= set(
            content["schema"]["properties"]
        )


def test_made_up_requests_find_no_5xx_and_no_broken_promise() -> None:
    command = [sys.executable, ROOT / "scripts/fuzz_http", "--phases=fuzzing", "--max-examples=2", "--seed=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
