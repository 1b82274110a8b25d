"""The program as a whole: `--help`, one line for a failure, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import DEMO, PATH, configure, pictures_in


def test_help_documents_exit_codes_and_loads_no_model_library():
    code = (
        "import sys\n"
        "from router.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    loaded = {name.split('.')[0] for name in sys.modules}\n"
        "    assert not loaded & {'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'backends'}, loaded\n"
    )
    for command in ([], ["generate"], ["explain"], ["backends"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "130 stopped by Ctrl-C" in " ".join(done.stdout.split())


def test_a_failure_is_one_line_and_nothing_else(folder: Path):
    configure(folder, f'{DEMO}options = {{ faults = [{{ at = "generate", times = 0 }}] }}\n')
    words = [sys.executable, "-m", "router", "generate", "a circle"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": PATH})
    assert done.returncode == 1
    assert done.stderr == "error: demo/fake: the fault planted at 'generate'.\n"
    assert done.stdout == ""


SLOW = """
import pathlib
from backends.fake import FakeBackend

class SlowBackend(FakeBackend):
    async def generate(self, request, on_event, deadline_s):
        pathlib.Path("started").touch()
        try:
            return await super().generate(request, on_event, deadline_s)
        finally:
            pathlib.Path("ended").touch()
"""


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_stops_the_work_and_leaves_nothing_behind(folder: Path, as_json: bool):
    (folder / "slow.py").write_text(SLOW)
    configure(
        folder,
        '[[models.demo.instances]]\nbackend = "slow:SlowBackend"\noptions = {step_s = 0.02, steps = 150}',
    )
    words = ["generate", "a circle", "a square", "-o", "out.png", *(["--json"] if as_json else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "router", *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), PATH])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (folder / "started").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.startswith("error: Stopped")
    assert stderr.count("\n") == 1
    assert (json.loads(stdout)["error"]["code"] == "cancelled") if as_json else stdout == ""
    assert (folder / "ended").exists()
    assert not [name for name in pictures_in(folder) if "out" in name]
