"""ServerSettings: the `[server]` table of triptych.toml and the TRIPTYCH_SERVER_ environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from router.errors import ConfigError
from router.findings import did_you_mean, first_finding
from router.images import MAX_PIXELS
from router.settings import read_server_table
from router.variables import SERVER_PREFIX

MIN_KEY_CHARACTERS = 16
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Bytes: TypeAlias = Annotated[ByteSize, Field(ge=1)]
_Count: TypeAlias = Annotated[int, Field(ge=1)]


def _split(value: Any) -> Any:
    """A list in the file; in a variable, names with commas between them."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


_Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_split)]
_Authority: TypeAlias = Annotated[str, Field(pattern=r"^([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$")]


class ServerSettings(BaseModel):
    """How the service listens, whom it lets in, and how much it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """Address to listen on; another than loopback wants `keys`, or `keyless = true`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    public_url: Annotated[str, Field(pattern=r"^(https?://[^\s/?#]+)?$")] = ""
    """`https://pictures.example` where a proxy stands before it; for the links in replies."""

    keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_split)] = Field(default=(), repr=False)
    keys_file: Path | None = None
    """One key a line; empty lines and lines with # are passed over."""
    keyless: bool = False
    """The explicit no: let everybody in although others can reach the address."""
    requests_per_key: _Count | None = None
    """Requests of one key in progress at once; without keys, of all together."""
    pictures_per_minute: _Count | None = None
    """Pictures that one key may ask for in any minute."""
    hosts: _Names = ()
    """Names by which it may be called, beside IP addresses, `localhost` and that of `public_url`."""
    origins: _Names = ()
    """Web pages of other origins that may call it, as `https://page.example`."""
    link_s: _Seconds = 3600.0
    """Seconds for which a signed link to a picture is good."""

    max_body_bytes: _Bytes = ByteSize(32 * 1024**2)
    max_input_pixels: Annotated[int, Field(ge=64, le=MAX_PIXELS)] = MAX_PIXELS
    """Pixels of one picture that is sent in."""
    body_s: _Seconds = 60.0
    """Seconds that a client may take to send a body."""
    image_urls: bool = False
    """Whether pictures may be given by their http or https address, which is then fetched."""
    image_hosts: Annotated[tuple[_Authority, ...], BeforeValidator(_split)] = ()
    """The only ones to fetch from, `name` or `name:port`, wherever they are; else every public address."""
    max_image_bytes: _Bytes = ByteSize(16 * 1024**2)
    """Of one picture that is fetched."""
    image_s: _Seconds = 10.0
    """Seconds that fetching one picture may take, redirects included."""

    state: Path = Path("triptych-state")
    """Folder of the jobs, the lock and the key that signs links. One process only."""
    outputs: Path | None = None
    """Folder of the pictures; `outputs` in the state folder where left out."""
    outputs_bytes: _Bytes = ByteSize(10 * 1024**3)
    outputs_s: _Seconds = 7 * 86400.0
    """Age at which a picture is removed; the oldest go earlier where `outputs_bytes` are passed."""

    jobs_waiting: _Count = 1000
    """Jobs that may wait; one more is refused."""
    jobs_running: _Count = 8
    """Jobs given to the models at once."""
    jobs_patience_s: _Seconds = 600.0
    """How long a job waits where no instance is available, before it fails."""
    jobs_bytes: _Bytes = ByteSize(2 * 1024**3)
    """Of all jobs with their pictures; the oldest that have ended make room for new ones."""
    jobs_s: _Seconds = 7 * 86400.0
    """Age, from its end, at which a job is removed with its pictures."""

    preload: _Names = ()
    """Models to load before `/readyz` says yes."""
    grace_s: _Seconds = 30.0
    """Seconds from SIGTERM to the end; what runs then is stopped."""
    notice_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Seconds after SIGTERM for which it goes on listening at least, with `/readyz` at 503."""
    exit_on_lost_device: bool = False
    """End, with exit code 5, when a device failed that only a new process mends; else others serve on."""
    log: Literal["json", "text"] = "json"

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK

    @property
    def outputs_folder(self) -> Path:
        return self.outputs or self.state / "outputs"


def load_server_settings(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    *,
    given: Mapping[str, Any] | None = None,
) -> ServerSettings:
    """Read file, environment and keys. Blocks for as long as that takes; raises `ConfigError`.

    A variable, `TRIPTYCH_SERVER_PORT`, goes before the file's `[server] port`. Relative folders are
    relative to the file, else to `directory`. `given` comes from the command line and goes before
    both; the other arguments are those of `load_config`.
    """
    environ = os.environ if environ is None else environ
    directory = Path.cwd() if directory is None else directory
    place, table = read_server_table(path, environ, directory)
    from_file = _validated(table, f"{place}: server") if place else ServerSettings()
    variables = _variables(environ)
    _validated(variables, "Environment", _variable)
    values = from_file.model_dump(exclude_unset=True) | variables | dict(given or {})
    settings = _validated(values, "Command line")
    return _checked(_with_keys(_resolved(settings, place.parent if place else directory)))


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Setting -> what the environment says; empty is not set."""
    given = {}
    for name, value in environ.items():
        if not name.upper().startswith(SERVER_PREFIX):
            continue
        key = name.upper().removeprefix(SERVER_PREFIX).lower()
        if key not in ServerSettings.model_fields:
            known = did_you_mean(key, ServerSettings.model_fields, _variable)
            raise ConfigError(f"There is no variable {name.upper()}; {known}")
        if value:
            given[key] = value
    return given


def _validated(values: Mapping[str, Any], where: str, spell: Any = str) -> ServerSettings:
    try:
        return ServerSettings.model_validate(values)
    except ValidationError as exc:
        raise ConfigError(f"{where}: {first_finding(exc, ServerSettings, spell)}") from None


def _resolved(settings: ServerSettings, folder: Path) -> ServerSettings:
    paths = {name: getattr(settings, name) for name in ("state", "outputs", "keys_file")}
    absolute = {name: folder / path.expanduser() for name, path in paths.items() if path is not None}
    return settings.model_copy(update=absolute)


def _with_keys(settings: ServerSettings) -> ServerSettings:
    """The keys of the file beside those that were given."""
    if settings.keys_file is None:
        return settings
    try:
        lines = settings.keys_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"`server.keys_file` {settings.keys_file} cannot be read; correct it.") from exc
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise ConfigError(f"`server.keys_file` {settings.keys_file} holds no key; write one a line.")
    checked = _validated({"keys": found}, str(settings.keys_file))
    return settings.model_copy(update={"keys": (*settings.keys, *checked.keys)})


def _checked(settings: ServerSettings) -> ServerSettings:
    """Refuse to stand open where others can reach it, unless that is what was said."""
    if not (settings.keys or settings.keyless or settings.is_loopback):
        raise ConfigError(
            f"`server.host` {settings.host} can be reached by others, and there is no API key; set"
            " TRIPTYCH_SERVER_KEYS or `server.keys_file`, or say `keyless = true`."
        )
    if settings.keys and settings.keyless:
        raise ConfigError("There are API keys, and `server.keyless` is true; take one of them away.")
    if settings.image_hosts and not settings.image_urls:
        raise ConfigError(
            "`server.image_hosts` lists hosts, but nothing is fetched; set `server.image_urls` to true."
        )
    if not all(_is_strong(key.get_secret_value()) for key in settings.keys):
        raise ConfigError(
            f"One of the {len(settings.keys)} API keys is too weak; a key has at least {MIN_KEY_CHARACTERS}"
            " ASCII characters and no spaces: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return settings


def _is_strong(key: str) -> bool:
    return len(key) >= MIN_KEY_CHARACTERS and key.isascii() and key.isprintable() and " " not in key


def _variable(name: str) -> str:
    return SERVER_PREFIX + name.upper()
