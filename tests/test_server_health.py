"""GET /health: alive, which devices serve, and CUDA as its driver tells it, without any model library."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.server import cuda
from tests.services import KEY, fake_config, serving


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cuda.is_available.cache_clear()
    yield
    cuda.is_available.cache_clear()


class Driver:
    """What `libcuda` answers: the code of its beginning, and how many devices it has."""

    def __init__(self, begun: int, count: int) -> None:
        self.begun, self.count = begun, count
        self.asked = 0

    def cuInit(self, flags: int) -> int:
        self.asked += 1
        return self.begun

    def cuDeviceGetCount(self, found: Any) -> int:
        found._obj.value = self.count
        return 0


def install(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> None:
    def load(name: str) -> Driver:
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (None, False),
        (Driver(0, 1), True),
        (Driver(0, 0), False),
        (Driver(100, 0), False),
        (Driver(999, 0), None),
    ],
    ids=["no driver", "one device", "none", "no device at all", "a driver that fails"],
)
def test_health_tells_cuda_as_the_driver_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: Driver | None, expected: bool | None
) -> None:
    with serving(tmp_path) as service:
        install(monkeypatch, driver)
        first, second = (service.http.get("/health").json() for _ in range(2))
    assert first == second == {"status": "ok", "cuda": expected, "devices": ["cpu"]}
    assert driver is None or driver.asked == 1


def test_devices_that_are_hidden_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Driver(0, 1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert cuda.is_available() is False


def test_health_wants_no_key_and_no_working_instance(tmp_path: Path) -> None:
    config = fake_config(faults=[{"at": "probe", "error": "backend_unavailable", "times": 0}])
    with serving(tmp_path, config, keys=(KEY,)) as service:
        answer = service.http.get("/health")
    assert (answer.status_code, answer.json()["status"], answer.json()["devices"]) == (200, "ok", [])


def test_it_imports_no_model_library() -> None:
    code = (
        "import sys; from router.server import cuda; cuda.is_available();"
        "sys.exit(bool({'torch', 'onnxruntime', 'numpy'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
