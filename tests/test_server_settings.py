"""ServerSettings: the [server] table, its variables, keys, and the refusal to stand open by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.errors import ConfigError
from router.server.settings import ServerSettings, load_server_settings
from router.settings import load_config
from tests.services import KEY


def read(folder: Path, text: str = "", **variables: str) -> ServerSettings:
    if text:
        (folder / "triptych.toml").write_text(text)
    environ = {f"TRIPTYCH_SERVER_{name.upper()}": value for name, value in variables.items()}
    return load_server_settings(environ=environ, directory=folder)


def refused(folder: Path, text: str = "", **variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, **variables)
    return str(caught.value)


def test_alone_it_listens_on_loopback(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert (settings.host, settings.port, settings.keys) == ("127.0.0.1", 8000, ())
    assert settings.state == tmp_path / "triptych-state"
    assert settings.outputs_folder == tmp_path / "triptych-state/outputs"


def test_a_variable_goes_before_the_file_and_the_command_line_before_both(tmp_path: Path) -> None:
    text = "[server]\nport = 1\nmax_body_bytes = '1MiB'\npreload = ['a', 'b']\nlink_s = 5"
    settings = read(tmp_path, text, port="2", outputs="pictures")
    assert (settings.port, settings.max_body_bytes, settings.preload) == (2, 1024**2, ("a", "b"))
    assert settings.outputs_folder == tmp_path / "pictures"
    given = load_server_settings(environ={}, directory=tmp_path, given={"port": 3})
    assert given.port == 3


def test_the_rest_of_the_program_passes_over_what_is_the_services(tmp_path: Path) -> None:
    (tmp_path / "triptych.toml").write_text("[server]\nport = 1")
    environ = {"TRIPTYCH_SERVER_PORT": "2", "TRIPTYCH_QUEUE": "3"}
    assert load_config(environ=environ, directory=tmp_path).limits.queue == 3


def test_keys_come_from_variable_and_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# ours\n\n{KEY}\n  {KEY}-2\n")
    settings = read(tmp_path, keys=f"{KEY}-3, {KEY}-4", keys_file="keys")
    known = [key.get_secret_value() for key in settings.keys]
    assert known == [f"{KEY}-3", f"{KEY}-4", KEY, f"{KEY}-2"]
    assert KEY not in repr(settings)


@pytest.mark.parametrize("variables", [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "10.0.0.1"}])
def test_others_reach_it_only_with_a_key_or_an_explicit_no(tmp_path: Path, variables: dict[str, str]) -> None:
    assert "there is no API key" in refused(tmp_path, **variables)
    assert read(tmp_path, **variables, keys=KEY).host == variables["host"]
    assert read(tmp_path, **variables, keyless="true").keyless


@pytest.mark.parametrize(
    ("text", "variables", "said"),
    [
        ("[server]\nprot = 1", {}, "there is no key `prot`; did you mean port?"),
        ("[server]\nport = 70000", {}, "`port` is 70000"),
        ("server = 1", {}, "`server` is 1: it must be a table"),
        ("", {"prot": "1"}, "There is no variable TRIPTYCH_SERVER_PROT; did you mean TRIPTYCH_SERVER_PORT?"),
        ("", {"port": "x"}, "`TRIPTYCH_SERVER_PORT` is 'x'"),
        ("", {"public_url": "pictures.example/path"}, "TRIPTYCH_SERVER_PUBLIC_URL"),
        ("", {"keys_file": "none"}, "cannot be read"),
        ("", {"keys": KEY, "keyless": "true"}, "take one of them away"),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path: Path, text: str, variables: dict[str, str], said: str) -> None:
    assert said in refused(tmp_path, text, **variables)


def test_a_weak_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    said = refused(tmp_path, keys="secret")
    assert "too weak" in said
    assert "'secret'" not in said
    (tmp_path / "keys").write_text("# none\n")
    assert "holds no key" in refused(tmp_path, keys_file="keys")
