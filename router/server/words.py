"""Errors in the words of the form that was used, where it has names of its own for the router's fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from router.errors import InvalidRequestError, NoRouteError


@contextmanager
def in_words(words: Mapping[str, str]) -> Iterator[None]:
    """`words`: the router's name of a field -> the form's."""
    try:
        yield
    except InvalidRequestError as exc:
        param = words.get(exc.param or "", exc.param)
        raise type(exc)(_said(str(exc), words), param=param) from exc
    except NoRouteError as exc:
        rejections = {instance: _said(why, words) for instance, why in exc.rejections.items()}
        raise NoRouteError(exc.model, rejections) from exc


def _said(sentence: str, words: Mapping[str, str]) -> str:
    for ours, theirs in words.items():
        sentence = sentence.replace(f"`{ours}`", f"`{theirs}`")
    return sentence
