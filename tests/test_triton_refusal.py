"""What a Triton instance is refused for before anything is asked, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends.triton import TritonBackend
from router.config import InstanceConfig
from router.errors import ConfigError
from tests.triton_instances import Lanes, generate, loaded, remote, serving

URL = "grpc://127.0.0.1:8001/demo"


def refused(url: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        remote(url, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "`source` is missing; write grpc://HOST:8001/MODEL"),
        ("gpu-1:8001/demo", "lacks its scheme; write grpc://HOST:PORT, or grpcs:// for TLS"),
        ("//gpu-1:8001/demo", "lacks its scheme"),
        ("grpc://gpu-1/demo", "has no port; add it, Triton's for gRPC is `:8001`"),
        ("grpc://gpu-1:0/demo", "has no port"),
        ("grpc://gpu-1:port/demo", "host or port cannot be read"),
        ("grpc://gpu-1:99999/demo", "host or port cannot be read"),
        ("grpc://[::1:8001/demo", "host or port cannot be read"),
        ("http://gpu-1:8000/demo", "Triton's HTTP port; give its gRPC port"),
        ("unix:///socket", "lacks its scheme"),
        ("grpc://:8001/demo", "names no host"),
        ("grpc://gpu-1:8001", "names no model; write it behind the port"),
        ("grpc://gpu-1:8001/demo/1", "more than one model"),
        ("grpc://gpu-1:8001/demo?a=b", "host, port and model only"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, sentence: str):
    said = refused(url)
    assert said.startswith("remote: `source` is ")
    assert sentence in said


def test_a_password_in_a_url_is_not_repeated():
    said = refused("grpc://me:hunter2@gpu-1:8001/demo")
    assert "hunter2" not in said
    assert "secrets belong in `headers`" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"replica": []}, "option `replica` is not known; the options are: replicas, "),
        ({"replicas": ["gpu-2:8001"]}, "option `replicas.0` is 'gpu-2:8001', which lacks its scheme"),
        ({"replicas": ["grpc://gpu-2:8001/other"]}, "has model 'other', `source` has 'demo'"),
        ({"replicas": ["grpc://127.0.0.1:8001"]}, "names a server twice"),
        ({"headers": {"Authorization": "x"}}, "option `headers` has 'Authorization'; a name has lower-case"),
        ({"headers": {"key-bin": "x"}}, "does not end in `-bin`"),
        ({"headers": {"key": "s\u00e9cret"}}, "option `headers.key` has characters beyond ASCII"),
        ({"root_certificates": "ca.pem"}, "option `root_certificates` is for TLS; write grpcs://"),
        ({"max_message_bytes": 5}, "option `max_message_bytes` is 5: "),
        ({"connect_s": 0}, "option `connect_s` is 0: "),
        ({"shared_memory": "cuda"}, "option `shared_memory` is 'cuda': "),
    ],
)
def test_an_option_that_cannot_be_used(options: dict[str, Any], sentence: str):
    said = refused(URL, **options)
    assert sentence in said
    assert "s\u00e9cret" not in said


def test_a_certificate_of_our_own_needs_its_key():
    said = refused(URL.replace("grpc:", "grpcs:"), certificate_chain="own.pem")
    assert "`certificate_chain` and `private_key` go together" in said


async def test_a_certificate_that_is_not_there(tmp_path: Path):
    backend = remote(URL.replace("grpc:", "grpcs:"), root_certificates=str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match=r"option `root_certificates` is 'ca.pem', which cannot be read"):
        await backend.probe()


async def test_a_dtype_that_the_model_is_not_in(lanes: Lanes):
    async with serving(lanes) as double:
        instance = InstanceConfig(name="remote", backend="triton", source=double.url, dtype="float16")
        with pytest.raises(ConfigError, match="`dtype` is 'float16', but the model there is in float32"):
            await TritonBackend(instance).probe()


async def test_settings_that_are_the_servers_affair_are_told_of(lanes: Lanes):
    async with serving(lanes) as double:
        instance = InstanceConfig(
            name="remote", backend="triton", source=double.url, device="cuda:0", row_limit=4
        )
        found = await TritonBackend(instance).probe()
    assert found.notes == (
        f"Triton 0.0.1 at 127.0.0.1:{double.port}",
        "`device` is the server's affair and has no effect here",
        "`row_limit` is the server's affair and has no effect here",
    )


async def test_headers_go_with_every_call_and_into_no_repr(lanes: Lanes):
    async with serving(lanes) as double:
        backend = await loaded(double.url, headers={"authorization": "Bearer hunter2"})
        await generate(backend)
        assert [headers["authorization"] for headers in double.headers] == ["Bearer hunter2"] * 2
        assert "hunter2" not in repr(backend.options) + repr(backend.servers)
        await backend.unload()
