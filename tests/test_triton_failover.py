"""A Triton server that is killed under load, and comes back: every request is answered."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from router import BackendRouter
from router.config import BreakerConfig, InstanceConfig, Limits, ModelConfig, RouterConfig
from router.types import Event, GenerateResult, Step
from tests.doubles import until
from tests.exports import Exports
from tests.triton_instances import LEAST_DB, least_db, request
from tests.triton_servers import TritonServer, start_server

MANY = 20
STEPS = 100


@pytest.fixture
def own(triton_repository: Path, tmp_path: Path) -> Iterator[Own]:
    with ExitStack() as stack:
        yield Own(stack, triton_repository, tmp_path / "server.log")


class Own:
    """A server of this test's own, which it may kill and start again at the same address."""

    def __init__(self, stack: ExitStack, repository: Path, log: Path) -> None:
        self._stack = stack
        self._repository = repository
        self._log = log
        self.server = self.start()

    def start(self, *options: str) -> TritonServer:
        started = start_server(self._repository, self._log, "--load=sd15", *options)
        self.server = self._stack.enter_context(started)
        return self.server

    def kill(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)

    def start_again(self) -> None:
        self.start(f"--grpc-port={self.server.grpc.rpartition(':')[2]}")


def config(server: TritonServer, export: Path) -> RouterConfig:
    instances = (
        InstanceConfig(name="remote", backend="triton", source=f"grpc://{server.grpc}/sd15"),
        InstanceConfig(
            name="local",
            backend="onnxruntime",
            source=str(export),
            device="cpu",
            options={"unverified": True},
        ),
    )
    return RouterConfig(
        models=(ModelConfig(name="sd15", instances=instances),),
        default_model="sd15",
        limits=Limits(concurrency=2 * MANY, max_steps=STEPS),
        breaker=BreakerConfig(failures=3, reset_s=0.5),
    )


class Crowd:
    """Requests that differ in nothing but their seeds."""

    def __init__(self, router: BackendRouter) -> None:
        self._router = router
        self._stepped = asyncio.Event()
        self.tasks = [asyncio.create_task(self._make(seed)) for seed in range(MANY)]

    async def under_way(self) -> None:
        """All are with the server, which runs some of them while the others wait there."""
        await self._stepped.wait()
        await until(lambda: self._router.instances()[0].running == MANY)
        assert not any(task.done() for task in self.tasks)

    async def _make(self, seed: int) -> GenerateResult:
        def note(event: Event) -> None:
            if isinstance(event, Step):
                self._stepped.set()

        return await self._router.generate(request(seed=seed, num_inference_steps=STEPS), on_event=note)


async def test_forty_requests_survive_a_kill_and_traffic_returns(own: Own, exports: Exports):
    async with BackendRouter(config(own.server, exports("sd15"))) as router:
        before = await router.generate(request(seed=0))
        assert before.instance == "remote"
        first = Crowd(router)
        await first.under_way()
        own.kill()
        second = Crowd(router)
        were_under_way, arrived = await asyncio.gather(*first.tasks), await asyncio.gather(*second.tasks)
        said = "remote could not serve (backend_unavailable); local did."
        assert [result.notes for result in were_under_way] == [(said,)] * MANY
        assert {result.instance for result in arrived} == {"local"}
        for seed, (one, other) in enumerate(zip(were_under_way, arrived, strict=True)):
            assert one.seeds == other.seeds == (seed,)
            assert least_db([one], [other]) >= LEAST_DB
        assert [status.breaker for status in router.instances()] == ["open", "closed"]
        await asyncio.to_thread(own.start_again)
        async with asyncio.timeout(30):
            while (after := await router.generate(request(seed=0))).instance != "remote":
                pass  # the breaker lets no request through before its probe went well
        assert after.images == before.images
        assert [status.breaker for status in router.instances()] == ["closed", "closed"]
