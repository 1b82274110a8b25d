"""What a library raised, as it is logged: words of the prompt and paths are left out, the rest is kept."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from router.cause import log_cause
from router.request_id import REQUEST_ID

LOG = logging.getLogger("router.test_cause")


def logged(caplog: pytest.LogCaptureFixture, exc: BaseException, *secrets: str | None) -> dict[str, Any]:
    with caplog.at_level(logging.WARNING, "router.test_cause"):
        log_cause(LOG, "a picture failed", exc, "demo/fake", secrets)
    return vars(caplog.records[-1])


@pytest.mark.parametrize(
    ("message", "secrets", "left"),
    [
        ("no cat named Rosebud here", ("a cat named Rosebud",), "ValueError: no… here"),
        ("token 'ROSEBUD SLEDGE' is too long", ("my rosebud sledge",), "ValueError: token '…' is too long"),
        ("a 'cat' in concat", ("cat",), "ValueError: a '…' in concat"),
        ("shapes 4x64 and 4x32", ("a red circle", None, ""), "ValueError: shapes 4x64 and 4x32"),
        ("no file /srv/models/x/unet/model.safetensors", (), "ValueError: no file model.safetensors"),
        (r"no file C:\models\x\model.bin", (), "ValueError: no file model.bin"),
        ("N/A of 3/4", (), "ValueError: N/A of 3/4"),
        ("", (), "ValueError"),
    ],
)
def test_words_of_the_request_and_paths_are_left_out(
    caplog: pytest.LogCaptureFixture, message: str, secrets: tuple[str | None, ...], left: str
):
    assert logged(caplog, ValueError(message), *secrets)["cause"] == left


def test_the_causes_beneath_are_told_too_and_all_is_short(caplog: pytest.LogCaptureFixture):
    try:
        try:
            raise KeyError("x" * 10_000)
        except KeyError as exc:
            raise RuntimeError("outer") from exc
    except RuntimeError as exc:
        cause = logged(caplog, exc)["cause"]
    assert cause.startswith("RuntimeError: outer; from KeyError: 'xxx")
    assert len(cause) < 400


def test_it_says_where_in_the_code_and_for_which_request(caplog: pytest.LogCaptureFixture):
    def deep() -> None:
        raise ValueError("deep")

    token = REQUEST_ID.set("mine-1")
    try:
        deep()
    except ValueError as exc:
        facts = logged(caplog, exc)
    finally:
        REQUEST_ID.reset(token)
    assert (facts["request_id"], facts["instance"]) == ("mine-1", "demo/fake")
    assert facts["frames"][-1].startswith("test_cause.py:")
    assert facts["frames"][-1].endswith(" deep")
