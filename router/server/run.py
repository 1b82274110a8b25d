"""run: uvicorn around the app, begun and ended our way.

The port is open from the beginning: `/healthz` answers while models are still loaded, `/readyz` says no.
First SIGTERM or SIGINT: `/readyz` says no while the listener still lives, no new work is taken,
running work is finished, then everything closes and the process exits with 0. What is not finished
after the grace time is stopped. A second signal ends the process at once, and so does the first while it
starts. With `exit_on_lost_device` a device that only a new process mends ends it as a signal does, with
exit code 5.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NoReturn

import uvicorn

from router.errors import ConfigError, DeviceLostError
from router.router import BackendRouter
from router.server.app import create_app, opened
from router.server.front import Front
from router.server.log import keep_flushed
from router.server.lost_device import device_lost
from router.server.settings import ServerSettings

log = logging.getLogger("router.server")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LAST_REPLIES_S = 5
_KEEP_ALIVE_S = 65
_BACKLOG = 2048
_YOUNG_OBJECTS = 5000


def run(router: BackendRouter, settings: ServerSettings) -> None:
    """Serve until a signal comes. Blocks. Raises `ConfigError` where it cannot begin.

    Raises `DeviceLostError` when it has ended because of one.
    """
    check_single(os.environ)
    app = create_app(router, settings)
    _relieve_collector()
    config = uvicorn.Config(
        app,
        lifespan="off",  # uvicorn would log what is wrong at the start as a stack trace
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_LAST_REPLIES_S,
    )
    with _bound(settings) as listener, asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(app.state.front, Server(config, app.state.front), listener))


def _relieve_collector() -> None:
    """Spare the garbage collector work that finds nothing, 30 us of a small request.

    It need not walk what importing has made. That comes before any model, as what is frozen is never
    collected. And it need not begin at fewer objects than requests in progress hold.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


async def _serve(front: Front, server: Server, listener: socket.socket) -> None:
    flushing = asyncio.create_task(keep_flushed())
    async with opened(front) as start:
        address = dict(zip(("host", "port"), listener.getsockname(), strict=False))
        log.info("listening", extra=address)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await start()
            log.info("ready", extra={**address, "seconds": round(time.time() - front.started_at, 3)})
        except BaseException:
            server.should_exit = True
            raise
        finally:
            await serving
    flushing.cancel()
    log.info("ended")
    if server.lost is not None:
        raise server.lost


def _bound(settings: ServerSettings) -> socket.socket:
    """The address is taken before anything else is done."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as exc:
        listener.close()
        raise ConfigError(
            f"Cannot listen on {settings.host}, port {settings.port} ({exc.strerror}); change `server.host`"
            " or `server.port` (--host, --port), or stop who has it."
        ) from exc
    return listener


def check_single(environ: Mapping[str, str]) -> None:
    """Refuse `WEB_CONCURRENCY` above 1: two processes would load every model twice."""
    wanted = environ.get("WEB_CONCURRENCY", "").strip()
    if wanted not in ("", "1"):
        raise ConfigError(
            f"WEB_CONCURRENCY is {wanted[:20]!r}, but one process owns the devices and the state folder;"
            " unset it. More throughput comes from more instances in triptych.toml, or from several services"
            " behind a load balancer, each with a device and a state folder of its own."
        )


class Server(uvicorn.Server):
    """uvicorn with our own behaviour at signals: its own closes the listener at once."""

    def __init__(self, config: uvicorn.Config, front: Front) -> None:
        super().__init__(config)
        self._front = front
        self._ending: asyncio.Task[None] | None = None
        self.lost: DeviceLostError | None = None
        """Why it ended by itself; `None` while it has not."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        watching = asyncio.create_task(self._watch_devices())
        try:
            await super().serve(sockets)
        finally:
            watching.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # which alone gets signals
            yield
            return
        loop = asyncio.get_running_loop()
        for sign in _SIGNALS:
            loop.add_signal_handler(sign, self._on_signal, sign)
        try:
            yield
        finally:
            for sign in _SIGNALS:
                loop.remove_signal_handler(sign)

    def _on_signal(self, sign: signal.Signals) -> None:
        if not self._front.ready:
            _end_the_start(sign)
        if self._ending is None:
            log.info("shutting down", extra={"signal": sign.name, "running": self._front.running})
            self._ending = asyncio.create_task(self._end())
            return
        log.warning("shutting down at once", extra={"signal": sign.name, "running": self._front.running})
        signal.signal(sign, signal.SIG_DFL)
        os.kill(os.getpid(), sign)

    async def _watch_devices(self) -> None:
        if not self._front.settings.exit_on_lost_device:
            return
        self.lost = await device_lost(self._front.router)
        log.error("shutting down: %s", self.lost, extra={"running": self._front.running})
        self._ending = self._ending or asyncio.create_task(self._end())

    async def _end(self) -> None:
        """The listener lives until nothing runs, and for `notice_s` at least."""
        front, settings = self._front, self._front.settings
        try:
            async with asyncio.timeout(settings.grace_s):
                await asyncio.gather(front.begin_to_close(), asyncio.sleep(settings.notice_s), front.idle())
        except TimeoutError:
            log.warning("the grace time is over; stopping what runs", extra={"running": front.running})
            await front.stop()
        self.should_exit = True


def _end_the_start(sign: signal.Signals) -> NoReturn:
    """Nobody waits for anything yet, and a thread that loads a model can only be waited for."""
    log.info("shutting down before it was ready", extra={"signal": sign.name})
    logging.shutdown()  # writes what the log still holds
    os._exit(0)
