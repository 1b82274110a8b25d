"""Several Triton servers of one instance: whom a request goes to, who is passed over, who comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import trustme

from backends import _triton_server
from router.errors import BackendUnavailableError, GenerateError
from tests.doubles import until
from tests.triton_doubles import TritonDouble
from tests.triton_instances import Lanes, begin, fake, generate, loaded, loaded_from, remote, serving


@pytest.fixture
async def two(lanes: Lanes) -> AsyncIterator[tuple[TritonDouble, TritonDouble]]:
    async with serving(lanes) as one, serving(lanes) as other:
        yield one, other


def seen(*doubles: TritonDouble) -> list[int]:
    return [len(double.seen) for double in doubles]


async def test_requests_go_to_whoever_has_least_in_hand(two: tuple[TritonDouble, TritonDouble]):
    async with loaded_from(*two) as backend:
        for double in two:
            double.answers.clear()
        many = begin(backend, num_images_per_prompt=6)
        few = [begin(backend, seed=index) for index in range(4)]
        await until(lambda: sum(seen(*two)) == 5)
        for double in two:
            double.let_go()
        await asyncio.gather(many, *few)
        assert sorted(seen(*two)) == [1, 4]  # one of six pictures beside four of one


async def test_equals_take_turns(two: tuple[TritonDouble, TritonDouble]):
    async with loaded_from(*two) as backend:
        for _ in range(4):
            await generate(backend)
        assert seen(*two) == [2, 2]


async def test_a_server_that_dies_is_passed_over(two: tuple[TritonDouble, TritonDouble]):
    async with loaded_from(*two) as backend:
        two[0].answers.clear()
        two[1].answers.clear()
        works = [begin(backend, seed=index) for index in range(6)]
        await until(lambda: seen(*two) == [3, 3])
        await two[0].die()
        two[1].let_go()
        made = await asyncio.gather(*works)
        assert [generated.pictures[0].seed for generated in made] == list(range(6))
        assert seen(two[1]) == [6]


async def test_a_server_that_failed_is_left_alone_while_another_is_well(
    two: tuple[TritonDouble, TritonDouble],
):
    async with loaded_from(*two) as backend:
        two[0].says = "backend_unavailable: it is broken."
        await generate(backend)
        await generate(backend)
        asked = two[0].questions
        for _ in range(3):
            await generate(backend)
        assert two[0].questions == asked
        assert len(two[1].seen) == 5


async def test_a_server_that_comes_back_gets_work_again(
    two: tuple[TritonDouble, TritonDouble], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_triton_server, "_REST_S", 0.0)
    async with loaded_from(*two) as backend:
        await two[0].die()
        await generate(backend)
        await generate(backend)
        assert backend.servers[0].is_suspect
        await two[0].start()
        async with asyncio.timeout(10):
            while seen(two[0]) == [0]:
                await generate(backend)
        assert not backend.servers[0].is_suspect


async def test_a_failure_of_the_picture_is_not_tried_elsewhere(two: tuple[TritonDouble, TritonDouble]):
    """Who else may make it is for the router to say."""
    for double in two:
        double.says = "generate_failed: it failed."
    async with loaded_from(*two) as backend:
        with pytest.raises(GenerateError):
            await generate(backend)
        assert not any(server.is_suspect for server in backend.servers)


async def test_all_away_is_one_error(two: tuple[TritonDouble, TritonDouble]):
    async with loaded_from(*two) as backend:
        for double in two:
            await double.die()
        with pytest.raises(BackendUnavailableError):
            await generate(backend)


async def test_a_replica_that_is_away_is_a_note(two: tuple[TritonDouble, TritonDouble]):
    await two[1].die()
    backend = remote(two[0].url, replicas=[two[1].url])
    found = await backend.probe()
    assert f"The Triton server 127.0.0.1:{two[1].port} cannot be reached" in found.notes[1]


async def test_a_replica_that_was_away_at_first_is_used_once_it_is_there(
    two: tuple[TritonDouble, TritonDouble], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_triton_server, "_REST_S", 0.0)
    await two[1].die()
    async with loaded_from(*two) as backend:
        await two[1].start()
        async with asyncio.timeout(10):
            while seen(two[1]) == [0]:
                await generate(backend)


async def test_a_replica_that_serves_another_model_gets_no_work(lanes: Lanes):
    async with serving(lanes) as one, serving(lanes, profiles=["64x64"]) as other:
        async with loaded_from(one, other) as backend:
            assert "serves another model 'demo'" in (await backend.probe()).notes[2]
            for _ in range(4):
                await generate(backend)
        assert seen(one, other) == [4, 0]


async def test_a_replica_that_changed_gets_no_work_after_a_probe(two: tuple[TritonDouble, TritonDouble]):
    async with loaded_from(*two) as backend:
        two[1].parameters["capabilities"] = two[1].parameters["capabilities"].replace("float32", "float16")
        await backend.probe()
        for _ in range(4):
            await generate(backend)
        assert seen(*two) == [4, 0]


async def test_the_model_is_loaded_and_unloaded_on_every_server(two: tuple[TritonDouble, TritonDouble]):
    for double in two:
        double.loaded = False
    backend = await loaded(two[0].url, replicas=[two[1].url], repository_control=True)
    assert [double.loaded for double in two] == [True, True]
    await generate(backend)
    await backend.unload()
    assert [double.loaded for double in two] == [False, False]
    await backend.probe()
    assert [double.loaded for double in two] == [False, False]  # what it can do is known already
    await backend.load()
    await generate(backend)
    await backend.unload()


async def test_a_model_is_left_alone_where_it_is_not_ours_to_load(lanes: Lanes):
    async with serving(lanes) as double:
        async with loaded_from(double) as backend:
            await generate(backend)
        assert double.loaded


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


async def test_tls_is_checked_by_the_certificates_given(
    lanes: Lanes, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
):
    own = authority.issue_cert("127.0.0.1")
    key, chain = own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
    trusted = authority.cert_pem.bytes()
    double = TritonDouble(fake(lanes))
    await double.start(grpc.ssl_server_credentials([(key, chain)], trusted, require_client_auth=True))
    folder = tmp_path_factory.mktemp("tls")
    files = {"root_certificates": trusted, "certificate_chain": chain, "private_key": key}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    options = {name: str(folder / name) for name in files}
    url = double.url.replace("grpc:", "grpcs:")
    backend = await loaded(url, **options)
    assert (await generate(backend)).pictures[0].image is not None
    await backend.unload()
    (folder / "root_certificates").write_bytes(trustme.CA().cert_pem.bytes())
    with pytest.raises(BackendUnavailableError, match="cannot be reached"):
        await remote(url, **options).probe()
    await double.die()
