"""StandIn: stands where a pipeline's module stood, and hands its calls to the lane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from backends._gather import Digests
from router.call import Call


class MakesCalls(Protocol):
    """What turns a module's call into the lane's: a `Gathering`."""

    def call(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], digests: Digests, *, share: bool
    ) -> Call: ...


class RunsCalls(Protocol):
    """What runs a call, and returns when it has run: a lane."""

    def call(self, call: Call) -> Any: ...


class StandIn:
    """Passes for the module: every attribute is the module's, `isinstance` says so too.

    One for each task. Only the call differs, or, where `method` is given, only that method.
    """

    _OWN = frozenset({"_module", "_method", "_gathering", "_lane", "_digests", "_share"})

    def __init__(
        self,
        module: object,
        gathering: MakesCalls,
        lane: RunsCalls,
        *,
        share: bool,
        method: str = "__call__",
    ) -> None:
        self._module = module
        self._method = method
        self._gathering = gathering
        self._lane = lane
        self._digests = Digests()
        self._share = share

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._module)

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            return self._gathered
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        target = super() if name in self._OWN else self._module
        target.__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._module, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._method == "__call__":
            return self._gathered(*args, **kwargs)
        return self._module(*args, **kwargs)  # type: ignore[operator]

    def _gathered(self, *args: Any, **kwargs: Any) -> Any:
        call = self._gathering.call(args, kwargs, self._digests, share=self._share)
        return self._lane.call(call)
