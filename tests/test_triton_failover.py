"""A Triton server that is killed under load, and comes back: every request is answered."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from router import BackendRouter
from router.config import BreakerConfig, InstanceConfig, Limits, ModelConfig, RouterConfig
from router.errors import BackendUnavailableError
from router.types import Event, GenerateResult, Step, ignore_event
from tests.doubles import until
from tests.exports import Exports
from tests.triton_instances import LEAST_DB, least_db, loaded, remote, request
from tests.triton_servers import TritonServer, start_server

MANY = 20
STEPS = 100


@pytest.fixture(scope="module")
def own(triton_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    """Every test leaves it ready."""
    with ExitStack() as stack:
        yield Own(stack, triton_repository, tmp_path_factory.mktemp("own") / "server.log")


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

    def send(self, number: signal.Signals) -> None:
        os.kill(self.server.pid, number)

    def start_again(self) -> None:
        self.start(f"--grpc-port={self.server.grpc.rpartition(':')[2]}")


def config(server: TritonServer, export: Path, **options: Any) -> RouterConfig:
    source = f"grpc://{server.grpc}/sd15"
    instances = (
        InstanceConfig(name="remote", backend="triton", source=source, options=options),
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


async def test_a_server_that_accepts_and_never_answers_is_passed_over(own: Own, exports: Exports):
    """Stopped, its kernel still takes connections; when it goes on, so does its traffic."""
    limits = {"connect_s": 0.5, "silence_s": 0.3}
    async with BackendRouter(config(own.server, exports("sd15"), **limits)) as router:
        assert (await router.generate(request())).instance == "remote"
        own.send(signal.SIGSTOP)
        try:
            results = await asyncio.gather(*(router.generate(request(seed=seed)) for seed in range(4)))
        finally:
            own.send(signal.SIGCONT)
        assert [result.instance for result in results] == ["local"] * 4
        assert "accepts calls and does not answer" in results[0].attempts[0].error
        async with asyncio.timeout(30):
            while (await router.generate(request())).instance != "remote":
                pass


async def test_a_model_is_loaded_for_a_request_and_unloaded_at_the_end(own: Own):
    source = f"grpc://{own.server.grpc}/sd15"
    backend = await loaded(source, repository_control=True)
    await backend.unload()
    with pytest.raises(BackendUnavailableError, match="at rest; load it there"):
        await remote(source).probe()
    backend = await loaded(source, repository_control=True)  # and it stays so: the server is others' too
    assert (await backend.generate(request(), ignore_event, None)).pictures[0].image is not None
    await backend.servers[0].close()


async def test_forty_requests_survive_a_kill_and_traffic_returns(own: Own, exports: Exports):
    async with BackendRouter(config(own.server, exports("sd15"))) as router:
        before = await router.generate(request(seed=0))
        assert before.instance == "remote"
        first = Crowd(router)
        await first.under_way()
        own.send(signal.SIGKILL)
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
