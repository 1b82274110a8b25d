"""Starts a Triton server, says when it is ready, and leaves nothing behind: what scripts/triton_server runs.

One line on stdout when it is ready: `ready grpc=127.0.0.1:8001 http=127.0.0.1:8000 metrics=... pid=...`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType

from scripts.triton_files import ROOT, NoServerError, find_server
from scripts.triton_sweep import prefix, sweep

PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_POLL_S = 0.1


class Ended(Exception):
    """The server has ended, or shall end."""


def main() -> int:
    arguments = _read()
    if arguments.container:
        print(container_command(arguments))
        return 0
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, _end)
    for each in sweep():
        print(f"Swept: {each}", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="triptych_") as folder:
            return _serve(arguments, Path(folder))
    except NoServerError as exc:
        print(exc, file=sys.stderr)
        return 2


def _read() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path, help="what `triptych export triton` wrote")
    parser.add_argument(
        "--load", action="append", metavar="NAME", help="a model to load; default: all, one by one"
    )
    parser.add_argument("--server", metavar="PATH", help="folder of a Triton server, or its binary")
    parser.add_argument("--container", action="store_true", help="print the command for NVIDIA's container")
    parser.add_argument("--image", default="nvcr.io/nvidia/tritonserver:24.12-py3")
    for name, port in PORTS.items():
        parser.add_argument(f"--{name}-port", type=int, default=port, help="0 takes a free one")
    parser.add_argument("--ready-s", type=float, default=300, help="seconds that loading may take")
    parser.add_argument("--exit-s", type=int, default=30, help="seconds that running requests get at the end")
    parser.add_argument("more", nargs="*", help="after `--`: handed to tritonserver as it is")
    arguments = parser.parse_args()
    if not arguments.repository.is_dir():
        parser.error(
            f"there is no folder {str(arguments.repository)!r}; make it with `triptych export triton`"
        )
    models = sorted(file.parent.name for file in arguments.repository.glob("*/config.pbtxt"))
    for name in arguments.load or ():
        if name not in models:
            parser.error(f"the repository has no model {name!r}; it has {', '.join(models) or 'none'}")
    arguments.load = arguments.load or models
    return arguments


def _serve(arguments: argparse.Namespace, folder: Path) -> int:
    """Until it ends or is ended; then nothing of it is left."""
    files = find_server(arguments.server)
    ports = {name: getattr(arguments, f"{name}_port") or _free_port() for name in PORTS}
    (folder / "backends").mkdir()
    options = _options(arguments, str(arguments.repository), ports, "127.0.0.1")
    options.append(f"--backend-directory={files.backend_folder(folder / 'backends')}")
    server = subprocess.Popen(
        [files.binary, *options],
        env=files.environment(),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,  # Ctrl-C is for us, who then end it
        preexec_fn=_end_with_parent,
    )
    try:
        _wait_until_ready(server, ports["http"], arguments.ready_s)
        places = " ".join(f"{name}=127.0.0.1:{port}" for name, port in ports.items())
        print(f"ready {places} pid={server.pid}", flush=True)
        server.wait()
    except Ended:
        pass
    finally:
        _stop(server, arguments.exit_s + 5)
    return _exit_code(server)


def _options(
    arguments: argparse.Namespace, repository: str, ports: dict[str, int], address: str
) -> list[str]:
    options = [f"--model-repository={repository}", "--model-control-mode=explicit"]
    options += [f"--load-model={name}" for name in arguments.load]
    for name, port in ports.items():
        options += [f"--{name}-address={address}", f"--{name}-port={port}"]
    return [
        *options,
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={arguments.exit_s}",
        f"--backend-config=python,shm-region-prefix-name={prefix(os.getpid())}",
        f"--backend-config=python,stub-timeout-seconds={arguments.ready_s:.0f}",
        *arguments.more,
    ]


def container_command(arguments: argparse.Namespace) -> str:
    """For NVIDIA's image, with Triptych installed into it; its ports are published on loopback alone."""
    inside = _options(arguments, "/models", PORTS, "0.0.0.0")
    publish = [part for port in PORTS.values() for part in ("-p", f"127.0.0.1:{port}:{port}")]
    run = ["docker", "run", "--rm", "--gpus=all", "--ipc=host", "-e", "OMP_WAIT_POLICY=PASSIVE", *publish]
    run += ["-v", f"{arguments.repository.resolve()}:/models:ro", "-v", f"{ROOT}:/triptych", arguments.image]
    script = "pip install 'numpy<2' '/triptych[onnx-gpu]' && exec tritonserver " + shlex.join(inside)
    return shlex.join([*run, "bash", "-c", script])


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if server.poll() is not None:
            raise Ended
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5),
        ):
            return
        time.sleep(_POLL_S)
    print(
        f"The server was not ready within {limit_s:.0f} s; see its log, or raise `--ready-s`.",
        file=sys.stderr,
    )
    raise Ended


def _stop(server: subprocess.Popen[bytes], limit_s: float) -> None:
    """Ask it to end, wait, kill what is left of it, and sweep."""
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    if server.poll() is None:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(limit_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # its stubs, too: they are of its group
    server.wait()
    sweep(ended=os.getpid())


def _exit_code(server: subprocess.Popen[bytes]) -> int:
    """As a shell has it: 137 for a server that was killed."""
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def _end(signal_number: int, frame: FrameType | None) -> None:
    raise Ended


def _end_with_parent() -> None:
    """In the child: the kernel ends the server where this process is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
